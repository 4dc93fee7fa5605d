"""When an alert opens, becomes worse and closes: arithmetic over the newest reports alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from housing_assets.alerts.book import MAX_CLOSED, Alert, AlertBook, Notice, Outbox
from housing_assets.monitoring.findings import Finding, Report
from housing_assets.recent_reports import RecentReports


@dataclass(frozen=True)
class AlertRules:
    """How many reports in a row it takes: what comes and goes from day to day opens nothing, or stays open.

    Attributes:
        warning_reports: reports that find a cause before an alert opens, unless the newest calls it critical.
        clean_reports: reports that do not find it any more before the alert closes.
    """

    warning_reports: int = 2
    clean_reports: int = 2

    @property
    def reports(self) -> int:
        """As many of the newest reports decide."""
        return max(self.warning_reports, self.clean_reports)


def apply_reports(
    book: AlertBook,
    recent: Iterable[RecentReports],
    channels: Sequence[str],
    rules: AlertRules,
    now: datetime,
) -> AlertBook:
    """The book after a look at the newest reports; the same book if it knew all of that.

    Args:
        book: As it was.
        recent: The newest reports of each kind of evidence.
        channels: Who is to be told; what others are still to be told is dropped.
        rules: When an alert opens and closes.
        now: When alerts are opened and closed.
    """
    notices: list[Notice] = []
    opened, closed = list(book.opened), list(book.closed)
    for found in (one for one in recent if one.reports):
        _open(opened, notices, found.reports, rules, now)
        _close(opened, closed, notices, found, rules, now)
    boxes = [book.outbox(channel) for channel in channels]
    return AlertBook(
        opened=tuple(opened), closed=tuple(closed[-MAX_CLOSED:]), outboxes=book.outboxes
    ).with_outboxes(
        *(box.model_copy(update={"notices": (*box.notices, *notices)}) for box in boxes),
        *(Outbox(channel=box.channel) for box in book.outboxes if box.channel not in channels),
    )


def _open(
    opened: list[Alert], notices: list[Notice], reports: Sequence[Report], rules: AlertRules, now: datetime
) -> None:
    """Open what is new, and note what is found again."""
    newest = reports[0]
    places = {alert.cause: place for place, alert in enumerate(opened)}
    for finding in newest.findings:
        place = places.get(finding.cause)
        if place is not None:
            before = opened[place]
            opened[place] = before.seen(newest.day, finding)
            if opened[place].severity != before.severity:
                notices.append(Notice(event="worse", alert=opened[place]))
        elif _is_due(finding, reports, rules):
            opened.append(Alert.open(newest.kind, newest.day, finding, now))
            notices.append(Notice(event="opened", alert=opened[-1]))


def _is_due(finding: Finding, reports: Sequence[Report], rules: AlertRules) -> bool:
    if finding.severity == "critical":
        return True
    deciding = reports[: rules.warning_reports]
    return len(deciding) == rules.warning_reports and all(finds(report, finding.cause) for report in deciding)


def _close(
    opened: list[Alert],
    closed: list[Alert],
    notices: list[Notice],
    recent: RecentReports,
    rules: AlertRules,
    now: datetime,
) -> None:
    """Close what the newest reports do not find any more."""
    deciding = recent.reports[: rules.clean_reports]
    if len(deciding) < rules.clean_reports or not all(recent.judges(report) for report in deciding):
        return
    for alert in [alert for alert in opened if alert.evidence == recent.evidence]:
        if not any(finds(report, alert.cause) for report in deciding):
            opened.remove(alert)
            closed.append(alert.model_copy(update={"closed_at": now}))
            notices.append(Notice(event="closed", alert=closed[-1]))


def finds(report: Report, cause: str) -> bool:
    """Whether the report found this cause."""
    return any(finding.cause == cause for finding in report.findings)
