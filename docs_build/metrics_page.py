"""Reference of metrics and alerts, from the objects that are scraped and the rules that are loaded."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from docs_build.markdown import code, table
from housing_assets.exporter import MonitoringCollector
from housing_assets.storage import open_store
from housing_serving.metrics import Metrics

RULES = Path(__file__).parents[1] / "deploy" / "monitoring" / "alerts.yml"
INTRODUCTION = """# Metrics and alerts

The service answers `GET /metrics` with the numbers of all its workers; `housing exporter` tells what
monitoring found. [Alerts](../alerts.md) says how both are set up, the [runbook](../runbook.md) what to do.
"""


def metrics_page() -> str:
    """The page."""
    return "\n\n".join(
        [
            INTRODUCTION,
            "## The service",
            metrics_table(service_metrics()),
            "## housing exporter",
            metrics_table(exporter_metrics()),
            "## Alert rules",
            alerts_table(),
        ]
    )


def metrics_table(found: Iterable[tuple[Metric, tuple[str, ...]]]) -> str:
    """Name, kind, labels and meaning of each metric."""
    rows = [
        [code(exposed_name(metric)), metric.type, ", ".join(map(code, labels)), metric.documentation]
        for metric, labels in sorted(found, key=lambda one: one[0].name)
    ]
    return table(["metric", "kind", "labels", "says"], rows)


def exposed_name(metric: Metric) -> str:
    """The name as it is scraped."""
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def service_metrics() -> Iterable[tuple[Metric, tuple[str, ...]]]:
    """Every metric that the service defines."""
    metrics = Metrics()
    for one in vars(metrics).values():
        for metric in one.values() if isinstance(one, dict) else [one]:
            if isinstance(metric, MetricWrapperBase):
                yield next(iter(metric.describe())), tuple(metric._labelnames)
    metrics.close()


def exporter_metrics() -> Iterable[tuple[Metric, tuple[str, ...]]]:
    """Every metric of the exporter, as it is before there is any report."""
    with tempfile.TemporaryDirectory(prefix="housing-docs-") as folder:
        for family in MonitoringCollector(lambda: open_store(folder)).collect():
            yield family, tuple(family._labelnames)


def alerts_table() -> str:
    """Every alert of Prometheus, with its entry in the runbook."""
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    rows = [
        [
            f"[{rule['alert']}](../runbook.md#{rule['alert'].lower()})",
            rule["labels"]["severity"],
            code(" ".join(rule["expr"].split())),
            rule.get("for", "at once"),
        ]
        for group in groups
        for rule in group["rules"]
    ]
    return table(["alert", "severity", "when", "for"], rows)
