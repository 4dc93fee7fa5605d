"""`drift_report`: whether what was served on one day looks like what the answering version was trained on."""

from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from housing_assets.daily_asset import (
    ThresholdsConfig,
    daily_asset,
    findings_metadata,
    for_each_day,
    report_links,
    thresholds,
)
from housing_assets.metadata import report_metadata
from housing_assets.ml import plots
from housing_assets.ml.report import StepReport
from housing_assets.monitoring.drift import RULES, Drift, DriftRules, find_drift
from housing_assets.monitoring.findings import Finding, Report
from housing_assets.monitoring.page import page
from housing_assets.monitoring.prediction_rows import PREDICTED
from housing_assets.monitoring.served import ServedDay
from housing_assets.monitoring.training_data import Reference
from housing_assets.monitoring_objects import (
    TrainingDataMissing,
    reference_of,
    served_day,
    write_report,
)
from housing_assets.registry import RegistryResource
from housing_assets.resources import StorageResource
from housing_assets.storage import ObjectStore
from housing_serving.features import RAW_FEATURES

# Drawn of the day for the figure.
FIGURE_ROWS = 20_000


@daily_asset(kinds={"html", "json"}, deps=["prediction_log"])
def drift_report(
    context: dg.AssetExecutionContext,
    config: ThresholdsConfig,
    storage: StorageResource,
    registry: RegistryResource,
) -> None:
    """Drift of one day: every feature and the price, against the training rows of the version that answered.

    One row of its table is one feature of one version.
    A finding needs a change that is more than chance, corrected for the number of tests, and that is large.
    """
    store, rules = storage.store(), thresholds(config, RULES)
    for_each_day(context, lambda day: report_drift(store, registry.model_name, day, rules))


def report_drift(store: ObjectStore, model_name: str, day: date, rules: DriftRules) -> dict[str, Any]:
    """Find the drift of a day, store the report, and return what the asset's page shows."""
    with served_day(store, day) as served:
        versions = list(served.rows_by_version())
        references, missing = find_references(store, model_name, versions)
        drift = find_drift(served, references, rules)
        step = drift_step(served, references, drift, rules)
    report = Report(
        day=day,
        kind="drift",
        model_versions=versions,
        rows=served.rows,
        findings=[*missing, *drift.findings],
        created_at=datetime.now(UTC),
    )
    write_report(store, report, page(f"Drift on {day}", facts(report, drift, rules), report, step))
    return {
        **report_links(store, "drift", day),
        "dagster/row_count": served.rows,
        "model_versions": ", ".join(versions) or "none",
        **findings_metadata(report),
        **report_metadata(step),
    }


def find_references(
    store: ObjectStore, model_name: str, versions: list[str]
) -> tuple[dict[str, Reference], list[Finding]]:
    """What each version was trained on; where that is gone nothing can be compared, which is a finding."""
    references: dict[str, Reference] = {}
    missing: list[str] = []
    for version in versions:
        try:
            references[version] = reference_of(store, model_name, version)
        except TrainingDataMissing as error:
            missing.append(str(error))
    finding = Finding(
        cause="drift:training_data",
        severity="critical",
        subject="training data",
        value=float(len(missing)),
        threshold=0.0,
        text=f"Nothing can be said about drift: {'; '.join(missing)}.",
        action="Restore the bundle and the train_set of its snapshot, or deploy a newly trained version.",
        retrain=False,
    )
    return references, [finding] if missing else []


def facts(report: Report, drift: Drift, rules: DriftRules) -> str:
    """A sentence on what was looked at."""
    versions = ", ".join(map(_version, report.model_versions)) or "no version"
    text = f"{report.rows:,} predictions of {versions}."
    if drift.too_few:
        few = ", ".join(f"{_version(name)} answered {rows:,}" for name, rows in drift.too_few.items())
        text += f" Too few to be judged (fewer than {rules.min_rows:,}): {few}."
    return text


def _version(number: str) -> str:
    return f"version {number}"


def drift_step(
    served: ServedDay, references: dict[str, Reference], drift: Drift, rules: DriftRules
) -> StepReport:
    """Metrics that chart over days, the table, and figures of the version that answered most."""
    table = drift.table()
    figures = {}
    if drift.features:
        rows = served.rows_by_version()
        version = max({one.version for one in drift.features}, key=lambda name: rows[name])
        own = table[table["version"] == version]
        title = f"Version {version}: how far {rows[version]:,} predictions are from its training rows"
        figures["drift_sizes"] = plots.drift_sizes(title, own, rules.warning_psi, rules.critical_psi)
        sample = served.sample([*RAW_FEATURES, PREDICTED, "model_version"], FIGURE_ROWS)
        figures["distributions"] = plots.distributions(
            f"Version {version}: what it was trained on and what it was asked",
            references[version].rows,
            sample[sample["model_version"] == version],
            ("Training", "Served"),
            PREDICTED,
        )
    return StepReport(metrics=drift.metrics(), tables={"drift": table}, figures=figures)
