"""Schedules: when the graph runs by itself."""

from datetime import timedelta

import dagster as dg

from housing_assets.jobs import monitoring_job, training_job
from housing_assets.partitions import DAYS, SNAPSHOTS


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


@dg.schedule(
    job=monitoring_job,
    cron_schedule="30 0 * * *",
    execution_timezone="UTC",
    description="Every day at 00:30 UTC, when all of the day before is stored: looks at that day.",
)
def daily_monitoring(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request one run for the day that has ended; the run key makes a repeated tick harmless."""
    day = (context.scheduled_execution_time - timedelta(days=1)).strftime(DAYS.fmt)
    if not DAYS.has_partition_key(day):
        return dg.SkipReason(f"{day} is before the first day of monitoring, {DAYS.get_first_partition_key()}")
    return dg.RunRequest(run_key=day, partition_key=day)
