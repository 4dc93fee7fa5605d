"""Schedules: when the graph runs by itself."""

import dagster as dg

from housing_assets.jobs import training_job
from housing_assets.partitions import SNAPSHOTS


@dg.schedule(
    job=training_job,
    cron_schedule="0 2 * * 0",
    execution_timezone="UTC",
    description="Every Sunday at 02:00 UTC: trains on the snapshot of that Sunday.",
)
def weekly_training(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request one run for the newest snapshot; the run key makes a repeated tick harmless."""
    snapshot = context.scheduled_execution_time.strftime(SNAPSHOTS.fmt)
    if not SNAPSHOTS.has_partition_key(snapshot):
        return dg.SkipReason(f"{snapshot} is no snapshot: snapshots are taken on Sundays since 2025-01-05")
    return dg.RunRequest(run_key=snapshot, partition_key=snapshot)
