"""The sensor that looks at a day again when something came in late: rows of the service, or labels."""

import json
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256

import dagster as dg

from housing_assets.jobs import monitoring_job
from housing_assets.resources import StorageResource
from housing_assets.storage import ObjectStore

# Further back, a day is looked at again by hand.
WINDOW_DAYS = 60
FOLDERS = ("monitoring/predictions", "monitoring/labels")


def files_by_day(store: ObjectStore, today: date) -> dict[str, str]:
    """For every ended day that has files, a hash of their names; a name is never used again."""
    found: dict[str, str] = {}
    for number in range(1, WINDOW_DAYS + 1):
        day = (today - timedelta(days=number)).isoformat()
        names = [name for folder in FOLDERS for name in store.list(f"{folder}/{day}/")]
        if names:
            found[day] = sha256("\n".join(names).encode()).hexdigest()[:16]
    return found


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
