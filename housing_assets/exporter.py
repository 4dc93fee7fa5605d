"""`housing exporter`: what monitoring found, as Prometheus reads it.

It keeps nothing: each scrape reads the newest reports and the alert book of the storage root. The prediction
service cannot say this, since it knows neither; a file for another program to pick up would need that program
where the reports are computed.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from housing_assets.alerts.book import AlertBook, AlertBookStore, AlertBookUnreadable
from housing_assets.monitoring.findings import Report
from housing_assets.recent_reports import RecentReports, recent_reports
from housing_assets.settings import Settings
from housing_assets.storage import ObjectStore, StorageError, open_store

logger = logging.getLogger(__name__)

# Less than the time Prometheus gives a scrape by default.
STORAGE_SECONDS = 8.0


class ExporterError(Exception):
    """The exporter cannot start; the message says why and what to do."""


class MonitoringCollector(Collector):
    """The newest reports and the alert book, read anew for each scrape."""

    def __init__(self, store: Callable[[], ObjectStore]) -> None:
        self._store = store

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """All metrics; only `housing_monitoring_readable`, 0, where the storage root cannot be read."""
        readable = GaugeMetricFamily(
            "housing_monitoring_readable", "Whether all newest reports and the alert book can be read."
        )
        try:
            store = self._store()
            today = datetime.now(UTC).date()
            recent = recent_reports(store, today, 1)
            book = AlertBookStore(store).read().book
        except (StorageError, AlertBookUnreadable) as error:
            logger.error("%s", error)
            readable.add_metric([], 0)
            return [readable]
        problems = [problem for found in recent for problem in found.problems]
        for problem in problems:
            logger.error("%s", problem)
        readable.add_metric([], not problems)
        return [readable, *_report_metrics(recent), *_alert_metrics(book)]


def _report_metrics(recent: Iterable[RecentReports]) -> list[GaugeMetricFamily]:
    day = GaugeMetricFamily(
        "housing_report_day_timestamp_seconds",
        "Start of the newest day with a report.",
        labels=["evidence"],
    )
    rows = GaugeMetricFamily(
        "housing_report_rows", "Predictions that the newest report is about.", labels=["evidence"]
    )
    labels = ["evidence", "cause", "subject", "severity"]
    value = GaugeMetricFamily("housing_finding_value", "What the newest report measured.", labels=labels)
    limit = GaugeMetricFamily("housing_finding_threshold", "The limit it went beyond.", labels=labels)
    count = GaugeMetricFamily(
        "housing_findings", "Findings of the newest report.", labels=["evidence", "severity"]
    )
    for evidence, report in ((one.evidence, one.reports[0]) for one in recent if one.reports):
        day.add_metric([evidence], _start_of(report).timestamp())
        rows.add_metric([evidence], report.rows)
        severities = [finding.severity for finding in report.findings]
        for severity in ("warning", "critical"):
            count.add_metric([evidence, severity], severities.count(severity))
        for finding in report.findings:
            own = [evidence, finding.cause, finding.subject, finding.severity]
            value.add_metric(own, finding.value)
            limit.add_metric(own, finding.threshold)
    return [day, rows, count, value, limit]


def _start_of(report: Report) -> datetime:
    return datetime(report.day.year, report.day.month, report.day.day, tzinfo=UTC)


def _alert_metrics(book: AlertBook) -> list[GaugeMetricFamily]:
    opened = GaugeMetricFamily("housing_alert_open", "1 for each open alert.", labels=["cause", "severity"])
    for alert in book.opened:
        opened.add_metric([alert.cause, alert.severity], 1)
    pending = GaugeMetricFamily(
        "housing_alert_undelivered_notices", "Changes that a channel is still to be told.", labels=["channel"]
    )
    for box in book.outboxes:
        pending.add_metric([box.channel], len(box.notices))
    return [opened, pending]


def serve_metrics(settings: Settings, host: str, started: Callable[[str], None]) -> None:
    """Answer scrapes until SIGTERM or SIGINT.

    Args:
        settings: the deployment.
        host: the address to listen on.
        started: called with the address of the metrics when it answers.

    Raises:
        ExporterError: the port is taken.
    """
    # Each scrape is to be over in time, so the client gets less of it than assets do.
    root = settings.storage_root
    registry = CollectorRegistry()
    registry.register(MonitoringCollector(lambda: open_store(root, deadline=STORAGE_SECONDS)))
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        server, thread = start_http_server(settings.exporter_port, host, registry)
    except OSError as error:
        raise ExporterError(
            f"port {settings.exporter_port} cannot be used ({error.strerror}): stop what uses it, or set "
            "HOUSING_EXPORTER_PORT to a free one"
        ) from error
    started(f"http://{host}:{settings.exporter_port}/metrics")
    stopped.wait()
    server.shutdown()
    thread.join()
