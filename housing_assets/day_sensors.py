"""Sensors that look at a day: again when rows or labels came in late, and again and again while it runs."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256

import dagster as dg

from housing_assets.jobs import monitoring_job
from housing_assets.resources import MonitoringResource, StorageResource
from housing_assets.storage import ObjectStore

# Further back, a day is looked at again by hand.
WINDOW_DAYS = 60
FOLDERS = ("monitoring/predictions", "monitoring/labels")


def files_by_day(store: ObjectStore, today: date) -> dict[str, str]:
    """For every ended day that has files, a hash of their names; a name is never used again."""
    found: dict[str, str] = {}
    for number in range(1, WINDOW_DAYS + 1):
        day = (today - timedelta(days=number)).isoformat()
        files = files_of(store, day, FOLDERS)
        if files is not None:
            found[day] = files
    return found


def files_of(store: ObjectStore, day: str, folders: Sequence[str]) -> str | None:
    """A hash of the names of a day's files; None where it has none."""
    names = [name for folder in folders for name in store.list(f"{folder}/{day}/")]
    return sha256("\n".join(names).encode()).hexdigest()[:16] if names else None


@dg.sensor(
    job=monitoring_job,
    name="monitor_late_files",
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Every five minutes: looks again at ended days for which predictions or labels have come in since. "
        "What it finds at its first look, it only remembers."
    ),
)
def monitor_late_files(context: dg.SensorEvaluationContext, storage: StorageResource) -> dg.SensorResult:
    """Request one run for each day whose files have changed."""
    today = datetime.now(UTC).date()
    yesterday = (today - timedelta(days=1)).isoformat()
    before: dict[str, str] | None = json.loads(context.cursor) if context.cursor else None
    found = files_by_day(storage.store(), today)
    # The day that has just ended is the daily schedule's, until it was seen here once.
    known = {} if before is None else {**dict.fromkeys(found, ""), yesterday: found.get(yesterday), **before}
    changed = [day for day in sorted(found) if before is not None and known[day] != found[day]]
    requests = [dg.RunRequest(run_key=f"{day}-{found[day]}", partition_key=day) for day in changed]
    reason = None if requests else f"nothing came in late for {len(found)} days that have files"
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(found), skip_reason=reason)


@dg.sensor(
    job=monitoring_job,
    name="monitor_running_day",
    minimum_interval_seconds=60,
    description=(
        "Looks at the running day as soon as there are predictions of it, and again while more come "
        "in, every hour or as HOUSING_MONITORING_MINUTES says: what drifts today is found today."
    ),
)
def monitor_running_day(
    context: dg.SensorEvaluationContext, storage: StorageResource, monitoring: MonitoringResource
) -> dg.SensorResult | dg.SkipReason:
    """Request a run for today, unless the last was a moment ago or nothing has come in since."""
    now = datetime.now(UTC)
    today = now.date().isoformat()
    last: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
    pause = timedelta(minutes=monitoring.running_day_minutes)
    again = datetime.fromisoformat(last["at"]) + pause if last.get("day") == today else now
    if now < again:
        return dg.SkipReason(f"today was looked at not long ago; the next look is at {again:%H:%M} UTC")
    files = files_of(storage.store(), today, FOLDERS[:1])
    if files is None or files == last.get("files"):
        return dg.SkipReason(f"there are no {'' if files is None else 'more '}predictions of {today} yet")
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=f"{today}-{files}", partition_key=today)],
        cursor=json.dumps({"day": today, "files": files, "at": now.isoformat()}),
    )


DAY_SENSORS = [monitor_late_files, monitor_running_day]
