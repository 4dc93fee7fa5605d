"""When a training follows what monitoring found: arithmetic over findings and earlier trainings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from hashlib import sha256

from housing_assets.recent_reports import MAX_AGE_DAYS, RecentReports

# A cause that led to a training rests until there is a new snapshot: the same rows would give the same model.
COOL_DOWN = timedelta(days=7)
# Whatever the causes, failed trainings included. Days are UTC.
DAILY_CAP = 1
# As far back as a decision needs to know: no report that counts is older.
LOOK_BACK = timedelta(days=max(MAX_AGE_DAYS.values()))

# On the runs that findings led to: which causes, as a JSON list, and one sentence.
CAUSES_TAG = "housing/retrain_causes"
BECAUSE_TAG = "housing/retrain_because"


@dataclass(frozen=True)
class Cause:
    """Something critical that a training would help, and the day of the report that found it."""

    name: str
    day: date


@dataclass(frozen=True)
class Retraining:
    """One run of `training_job`.

    Attributes:
        run_id: of the run.
        causes: that led to it; none if something else did.
        requested_at: when it was created.
        is_over: whether it has ended.
        has_failed: whether it ended without a model.
    """

    run_id: str
    causes: tuple[str, ...]
    requested_at: datetime
    is_over: bool
    has_failed: bool


@dataclass(frozen=True)
class Decision:
    """A training is to be requested.

    Attributes:
        causes: why, sorted.
        run_key: the same for the same findings, so that they lead to one training.
        because: one sentence for people.
    """

    causes: tuple[str, ...]
    run_key: str
    because: str


def causes_of(newest: Iterable[RecentReports]) -> list[Cause]:
    """What the newest reports find that is critical and that a training would help, by name."""
    return sorted(
        (
            Cause(finding.cause, report.day)
            for found in newest
            for report in found.reports
            if found.judges(report)
            for finding in report.findings
            if finding.retrain and finding.severity == "critical"
        ),
        key=lambda cause: cause.name,
    )


def decide(causes: Sequence[Cause], trainings: Sequence[Retraining], now: datetime) -> Decision | str:
    """A training to request, or why there is to be none.

    Args:
        causes: At least one.
        trainings: Those under way, and those within `LOOK_BACK`.
        now: The time.
    """
    names = ", ".join(cause.name for cause in causes)
    if running := [one.run_id for one in trainings if not one.is_over]:
        return f"{names}: a training is under way already, run {running[0]}"
    requested = [one for one in trainings if one.causes]
    today = [one for one in requested if one.requested_at.date() == now.date()]
    if len(today) >= DAILY_CAP:
        return f"{names}: {len(today)} of at most {DAILY_CAP} training(s) a day were requested today (UTC)"
    led = last_trainings(requested)
    fresh = [cause for cause in causes if cause.name not in led or not _rests(cause, led[cause.name], now)]
    if not fresh:
        when = ", ".join(f"{cause.name} on {led[cause.name]:%Y-%m-%d %H:%M} UTC" for cause in causes)
        return (
            f"each cause led to a training already ({when}): it rests for {COOL_DOWN.days} days, and "
            "until it is found on a day after that training"
        )
    days = ", ".join(sorted({str(cause.day) for cause in fresh}))
    key = "\n".join(f"{cause.name} {cause.day}" for cause in fresh)
    return Decision(
        causes=tuple(cause.name for cause in fresh),
        run_key=f"findings-{now.date()}-{sha256(key.encode()).hexdigest()[:16]}",
        because=f"critical on {days}: {', '.join(cause.name for cause in fresh)}",
    )


def last_trainings(requested: Iterable[Retraining]) -> Mapping[str, datetime]:
    """When each cause led to a training last. One that failed has helped nothing, and does not count."""
    last: dict[str, datetime] = {}
    for one in requested:
        if not one.has_failed:
            last |= {cause: max(one.requested_at, last.get(cause, one.requested_at)) for cause in one.causes}
    return last


def _rests(cause: Cause, trained_at: datetime, now: datetime) -> bool:
    # Labels come late: weeks after a training, the newest report can be about days before it.
    return now < trained_at + COOL_DOWN or cause.day <= trained_at.date()
