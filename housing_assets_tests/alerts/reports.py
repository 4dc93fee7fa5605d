"""Reports as monitoring writes them, made by hand."""

from datetime import UTC, date, datetime, timedelta

from housing_assets.monitoring.findings import Finding, Kind, Report, Severity, report_name
from housing_assets.storage import ObjectStore

TODAY = date(2026, 11, 26)
NOW = datetime(2026, 11, 26, 8, 0, tzinfo=UTC)


def day(back: int) -> date:
    """So many days before `TODAY`."""
    return TODAY - timedelta(days=back)


def finding(
    cause: str,
    severity: Severity = "critical",
    *,
    value: float = 0.5,
    retrain: bool = True,
    from_labels: bool = False,
) -> Finding:
    """A finding with plain texts."""
    subject = cause.partition(":")[2]
    return Finding(
        cause=cause,
        severity=severity,
        subject=subject,
        value=value,
        threshold=0.2,
        text=f"{subject} is not as it was in training.",
        action="Look at its plot.",
        retrain=retrain,
        from_labels=from_labels,
    )


def report(on: date, *findings: Finding, kind: Kind = "drift", rows: int = 5000, labels: int = 0) -> Report:
    """A day's report."""
    return Report(
        day=on,
        kind=kind,
        model_versions=["3"],
        rows=rows,
        labels=labels,
        findings=list(findings),
        created_at=datetime(on.year, on.month, on.day, 23, 59, tzinfo=UTC),
    )


def publish(store: ObjectStore, *reports: Report) -> None:
    """Store them where monitoring does."""
    for one in reports:
        store.write(report_name(one.kind, one.day), one.to_json())
