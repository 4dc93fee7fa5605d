"""The newest reports of the storage root: what alerts, retraining and dashboards act on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import get_args

from pydantic import ValidationError

from housing_assets.monitoring.findings import Kind, Report, report_name
from housing_assets.storage import ObjectMissing, ObjectStore

KINDS: tuple[Kind, ...] = get_args(Kind)
# A backfill of older days alarms nobody. Labels arrive weeks after the predictions they belong to.
MAX_AGE_DAYS: dict[Kind, int] = {"drift": 7, "performance": 60}


@dataclass(frozen=True)
class RecentReports:
    """The newest reports of one kind.

    Attributes:
        kind: of all of them.
        reports: the newest first.
        problems: reports that lie there and cannot be read, in words.
    """

    kind: Kind
    reports: tuple[Report, ...]
    problems: tuple[str, ...] = ()


def recent_reports(store: ObjectStore, kind: Kind, today: date, count: int) -> RecentReports:
    """Up to `count` of the newest reports, none from the future and none older than `MAX_AGE_DAYS`.

    Raises:
        housing_assets.storage.StorageError: the storage root cannot be read.
    """
    oldest = today - timedelta(days=MAX_AGE_DAYS[kind])
    days = [day for day in report_days(store, kind) if oldest <= day <= today]
    reports, problems = [], []
    for day in days[:count]:
        name = report_name(kind, day)
        try:
            reports.append(Report.from_json(store.read(name)))
        except ObjectMissing:
            # Deleted since it was listed.
            continue
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(map(str, problem["loc"])) or "report"
            problems.append(
                f"{store.uri(name)} is no report ({field}: {problem['msg']}): materialize {kind}_report of "
                f"{day} again"
            )
    return RecentReports(kind, tuple(reports), tuple(problems))


def report_days(store: ObjectStore, kind: Kind) -> Sequence[date]:
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
