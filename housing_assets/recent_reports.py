"""The newest reports of the storage root: what alerts, retraining and dashboards act on.

Labels arrive weeks after the predictions they belong to. So what takes labels to find is looked for in the
newest reports that have enough of them, and everything else in the newest of all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from pydantic import ValidationError

from housing_assets.monitoring.findings import Kind, Report, report_name
from housing_assets.storage import ObjectMissing, ObjectStore

Evidence = Literal["drift", "performance", "labels"]

# A backfill of older days alarms nobody.
MAX_AGE_DAYS: dict[Kind, int] = {"drift": 7, "performance": 60}
# A report about fewer predictions judges nothing, and is no evidence that something is gone.
MIN_ROWS = 200
# A report with fewer labels has none.
MIN_LABELS = 100


@dataclass(frozen=True)
class RecentReports:
    """The newest reports of one kind of evidence.

    Attributes:
        evidence: what they rest on.
        reports: the newest first, with the findings that rest on this evidence.
        problems: reports that lie there and cannot be read, in words.
    """

    evidence: Evidence
    reports: tuple[Report, ...]
    problems: tuple[str, ...] = ()

    def judges(self, report: Report) -> bool:
        """Whether so much was served that what the report does not find is not there."""
        return self.evidence == "labels" or report.rows >= MIN_ROWS


def recent_reports(store: ObjectStore, today: date, count: int) -> list[RecentReports]:
    """Up to `count` of the newest reports of each kind of evidence.

    None is from the future, and none older than `MAX_AGE_DAYS`.

    Raises:
        housing_assets.storage.StorageError: the storage root cannot be read.
    """
    drift = RecentReports("drift", *_first(_reports(store, "drift", today), count))
    performance: list[Report] = []
    labelled: list[Report] = []
    problems: list[str] = []
    for found in _reports(store, "performance", today):
        if isinstance(found, str):
            problems.append(found)
            continue
        if len(performance) < count:
            performance.append(_only(found, from_labels=False))
        if found.labels >= MIN_LABELS:
            labelled.append(_only(found, from_labels=True))
        if len(labelled) == count:
            break
    return [
        drift,
        RecentReports("performance", tuple(performance), tuple(problems)),
        RecentReports("labels", tuple(labelled)),
    ]


def _first(found: Iterator[Report | str], count: int) -> tuple[tuple[Report, ...], tuple[str, ...]]:
    newest = [one for _, one in zip(range(count), found, strict=False)]
    reports = tuple(one for one in newest if isinstance(one, Report))
    return reports, tuple(one for one in newest if isinstance(one, str))


def _only(report: Report, *, from_labels: bool) -> Report:
    """The report with what it takes labels to find, or with the rest."""
    findings = [finding for finding in report.findings if finding.from_labels == from_labels]
    return report.model_copy(update={"findings": findings})


def _reports(store: ObjectStore, kind: Kind, today: date) -> Iterator[Report | str]:
    """The reports, the newest first; for one that cannot be read, what is wrong with it."""
    oldest = today - timedelta(days=MAX_AGE_DAYS[kind])
    for day in _days(store, kind):
        if not oldest <= day <= today:
            continue
        name = report_name(kind, day)
        try:
            yield Report.from_json(store.read(name))
        except ObjectMissing:
            # Deleted since it was listed.
            continue
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(map(str, problem["loc"])) or "report"
            yield (
                f"{store.uri(name)} is no report ({field}: {problem['msg']}): materialize {kind}_report of "
                f"{day} again"
            )


def _days(store: ObjectStore, kind: Kind) -> Sequence[date]:
    """Days that have a report, the newest first."""
    prefix = f"monitoring/reports/{kind}/"
    days = []
    for name in store.list(prefix):
        # Beside the reports lies what they link to.
        stem = name.removeprefix(prefix).removesuffix(".json")
        try:
            day = date.fromisoformat(stem)
        except ValueError:
            continue
        if name == report_name(kind, day):
            days.append(day)
    return sorted(days, reverse=True)
