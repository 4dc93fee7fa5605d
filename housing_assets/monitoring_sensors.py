"""Sensors of monitoring: alerts, the training that follows what was found, and snapshots that appear."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg

from housing_assets.alerts.book import AlertBookConflict
from housing_assets.alerts.resource import AlertsResource
from housing_assets.jobs import data_job, training_job
from housing_assets.partitions import SNAPSHOTS, latest_snapshot
from housing_assets.recent_reports import recent_reports
from housing_assets.resources import SourceResource, StorageResource
from housing_assets.retraining import (
    BECAUSE_TAG,
    CAUSES_TAG,
    LOOK_BACK,
    Retraining,
    causes_of,
    decide,
)
from housing_assets.sources.published import Published, is_listable, published

ALERT_SECONDS = 60
RETRAIN_SECONDS = 60
SNAPSHOT_SECONDS = 30


@dg.sensor(
    name="raise_alerts",
    minimum_interval_seconds=ALERT_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Every minute: opens one alert for each cause that the newest drift and performance reports "
        "find, closes it when they do not find it any more, and tells the log and the channels that are set."
    ),
)
def raise_alerts(context: dg.SensorEvaluationContext, alerts: AlertsResource) -> dg.SkipReason:
    """Look, and say what is open and what was not delivered."""
    try:
        look = alerts.watch(datetime.now(UTC))
    except AlertBookConflict as error:
        return dg.SkipReason(str(error))
    failed = [outcome for outcome in look.delivered if outcome.problem is not None]
    for outcome in failed:
        context.log.error("alerts were not delivered by %s: %s", outcome.channel, outcome.problem)
    if look.problems:
        # After everything else was done: what can be read has been looked at.
        raise dg.Failure("; ".join(look.problems))
    said = (
        [f"{len(look.opened)} open: " + ", ".join(alert.cause for alert in look.opened)]
        if look.opened
        else []
    )
    said += [f"not delivered by {outcome.channel} ({outcome.problem})" for outcome in failed]
    return dg.SkipReason("; ".join(said) or "no alert is open")


@dg.sensor(
    job=training_job,
    name="retrain_on_findings",
    minimum_interval_seconds=RETRAIN_SECONDS,
    description=(
        "When the newest drift or performance report finds something critical that a training would help: "
        "requests one on the newest snapshot, at most once a day, and once a week for one cause. The "
        "promotion gate decides what comes of it."
    ),
)
def retrain_on_findings(
    context: dg.SensorEvaluationContext, storage: StorageResource, source: SourceResource
) -> dg.RunRequest | dg.SkipReason:
    """Decide, and say why not."""
    now = datetime.now(UTC)
    newest = recent_reports(storage.store(), now.date(), 1)
    problems = [problem for found in newest for problem in found.problems]
    if problems:
        raise dg.Failure("; ".join(problems))
    causes = causes_of(newest)
    if not causes:
        return dg.SkipReason("the newest reports find nothing critical that a training would help")
    decision = decide(causes, trainings(context.instance, now), now)
    if isinstance(decision, str):
        return dg.SkipReason(decision)
    snapshot = newest_snapshot(source)
    if snapshot is None:
        return dg.SkipReason(
            f"no snapshot is published at {source.location} yet: there is nothing to train on"
        )
    return dg.RunRequest(
        run_key=decision.run_key,
        partition_key=snapshot,
        tags={CAUSES_TAG: json.dumps(decision.causes), BECAUSE_TAG: decision.because},
    )


def trainings(instance: dg.DagsterInstance, now: datetime) -> list[Retraining]:
    """Trainings that are under way, and those that findings have led to within `LOOK_BACK`."""
    recent = instance.get_run_records(
        dg.RunsFilter(job_name=training_job.name, created_after=now - LOOK_BACK)
    )
    return [
        Retraining(
            run_id=record.dagster_run.run_id,
            causes=tuple(json.loads(record.dagster_run.tags.get(CAUSES_TAG, "[]"))),
            requested_at=record.create_timestamp.replace(tzinfo=record.create_timestamp.tzinfo or UTC),
            is_over=record.dagster_run.is_finished,
            has_failed=record.dagster_run.is_failure_or_canceled,
        )
        for record in recent
    ]


def newest_snapshot(source: SourceResource) -> str | None:
    """The newest snapshot that can be trained on; where that cannot be seen, the newest there is."""
    if source.location is None or not is_listable(source.location):
        return latest_snapshot()
    return max(published(source.location, SNAPSHOTS.get_partition_keys(), {}), default=None)


@dg.sensor(
    jobs=[training_job, data_job],
    name="train_on_new_snapshot",
    minimum_interval_seconds=SNAPSHOT_SECONDS,
    description=(
        "When a snapshot appears at HOUSING_SOURCE_URI (a folder or a bucket), or is published again with "
        "other content: the newest is trained on, once; of one that comes late only the data assets are "
        "made. What it replaces is kept."
    ),
)
def train_on_new_snapshot(
    context: dg.SensorEvaluationContext, source: SourceResource
) -> dg.SensorResult | dg.SkipReason:
    """Compare what is published with what was published at the last look."""
    location = source.location
    if location is None or not is_listable(location):
        return dg.SkipReason(
            f"new snapshots cannot be seen at {location or 'the packaged table'}: set HOUSING_SOURCE_URI to "
            "a folder or gs:// location with {snapshot} in it, or turn on the schedule weekly_training"
        )
    known = read_cursor(context.cursor, location)
    found = published(location, SNAPSHOTS.get_partition_keys(), known or {})
    seen = {**(known or {}), **found}
    cursor = write_cursor(location, seen)
    if not seen:
        reason = f"no snapshot is published at {location} yet"
        return dg.SensorResult(skip_reason=reason, cursor=cursor)
    newest = max(seen)
    if known is None:
        # Older ones were there before this sensor was: a backfill takes them, if anyone wants them.
        chosen = [newest]
    else:
        chosen = [key for key in sorted(found) if key not in known or known[key].digest != found[key].digest]
    if not chosen:
        reason = f"nothing new at {location} since the last look; the newest is {newest}"
        return dg.SensorResult(skip_reason=reason, cursor=cursor)
    requests = [snapshot_request(key, found[key], is_newest=key == newest) for key in chosen]
    return dg.SensorResult(run_requests=requests, cursor=cursor)


def snapshot_request(snapshot: str, content: Published, *, is_newest: bool) -> dg.RunRequest:
    """One run for one content of a snapshot."""
    return dg.RunRequest(
        run_key=f"{snapshot}-{content.digest}",
        # A model of old rows must not compete with one of newer ones.
        job_name=training_job.name if is_newest else data_job.name,
        partition_key=snapshot,
        tags={"housing/source_digest": content.digest},
    )


def read_cursor(cursor: str | None, location: str) -> dict[str, Published] | None:
    """What was published at this location at the last look; none before the first one."""
    if cursor is None:
        return None
    content = json.loads(cursor)
    if content["location"] != location:
        return None
    return {key: Published(*state_and_digest) for key, state_and_digest in content["snapshots"].items()}


def write_cursor(location: str, snapshots: Mapping[str, Published]) -> str:
    """The cursor of the next look."""
    states = {key: [found.state, found.digest] for key, found in sorted(snapshots.items())}
    return json.dumps({"location": location, "snapshots": states})


MONITORING_SENSORS = [raise_alerts, retrain_on_findings, train_on_new_snapshot]
