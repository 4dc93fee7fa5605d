"""Runs whose process is gone: found by the process id in their own events, and reported as failed.

A run worker that is killed cannot say so. Without this, its run would stay STARTED for ever and, under a
concurrency limit, block the queue.
"""

from collections.abc import Iterator

import dagster as dg
import psutil

# The worker starts before it writes its first event, so a younger process has only inherited its number.
CLOCK_SLACK_SECONDS = 1.0


def fail_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Report each orphaned run of this machine as failed (canceled, if that was asked); returns ids."""
    failed = []
    for run in orphaned_runs(instance):
        message = "The run's process is gone (killed, or the machine restarted); nothing it stored is torn."
        if run.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, message)
        else:
            instance.report_run_failed(run, message)
        failed.append(run.run_id)
    return failed


def orphaned_runs(instance: dg.DagsterInstance) -> Iterator[dg.DagsterRun]:
    """Unfinished runs whose worker process no longer exists; none where runs are pods."""
    if not isinstance(instance.run_launcher, dg.DefaultRunLauncher):
        return
    unfinished = [
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=unfinished)):
        worker = worker_process(instance, run.run_id)
        if worker is None or is_alive(*worker):
            continue
        # Asked again now that nothing can change it: the worker may have finished after the first question.
        current = instance.get_run_by_id(run.run_id)
        if current is not None and current.status in unfinished:
            yield current


def worker_process(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float] | None:
    """Process id of a run's worker, and when it said so; None while it has said nothing."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        pid = event.engine_event_data.metadata.get("pid") if event is not None else None
        if pid is not None:
            return int(str(pid.value)), entry.timestamp
    return None


def is_alive(pid: int, seen_at: float) -> bool:
    """Whether the process that had this id at that time still runs."""
    try:
        process = psutil.Process(pid)
        return bool(
            process.status() != psutil.STATUS_ZOMBIE
            and process.create_time() <= seen_at + CLOCK_SLACK_SECONDS
        )
    except psutil.NoSuchProcess:
        return False
