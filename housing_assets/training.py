"""Run a job from the command line, and tell progress while it runs."""

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from housing_assets.definitions import (
    deployment_job_definition,
    monitoring_job_definition,
    training_job_definition,
)

QUIET_CONSOLE = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
INVOCATION_TAG = "housing/invocation"
POLL_SECONDS = 0.3


@dataclass
class Outcome:
    """What a run has told.

    Attributes:
        run_id: the Dagster run.
        success: whether every step and check passed.
        seconds: duration of every finished step, in order.
        metadata: numbers and texts of every stored asset.
        failures: messages of failed steps.
    """

    run_id: str = ""
    success: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    metadata: dict[str, dict[str, object]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


class Follower:
    """Reads a run's events as they come and passes on what a person wants to see.

    Args:
        instance: where the run is recorded.
        invocation: tag value by which the run is found.
        on_step: called with every finished asset step and its seconds.
        on_message: called with what the running step logs.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        invocation: str,
        on_step: Callable[[str, float], None],
        on_message: Callable[[str], None],
    ) -> None:
        self.outcome = Outcome()
        self._instance = instance
        self._filter = dg.RunsFilter(tags={INVOCATION_TAG: invocation})
        self._on_step = on_step
        self._on_message = on_message
        self._cursor: str | None = None
        self._checks: dict[str, str] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        self._thread.join()
        self._read()

    def _follow(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            self._read()

    def _read(self) -> None:
        if not self.outcome.run_id:
            runs = self._instance.get_runs(filters=self._filter, limit=1)
            if not runs:
                return
            self.outcome.run_id = runs[0].run_id
        connection = self._instance.get_records_for_run(self.outcome.run_id, self._cursor)
        self._cursor = connection.cursor
        for record in connection.records:
            self._handle(record.event_log_entry)

    def _handle(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            self._on_message(entry.user_message)
        elif event.is_step_start and event.step_key:
            self._on_message(event.step_key)
        elif event.is_step_success and event.step_key:
            seconds = event.step_success_data.duration_ms / 1000
            self.outcome.seconds[event.step_key] = seconds
            self._on_step(self._checks.get(event.step_key, event.step_key), seconds)
        elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION and event.step_key:
            evaluation = event.asset_check_evaluation_data
            if event.step_key.endswith(evaluation.check_name):
                self._checks[event.step_key] = f"  {evaluation.check_name}"
        elif event.is_step_materialization:
            materialization = event.step_materialization_data.materialization
            values: dict[str, object] = {
                name: value.value for name, value in materialization.metadata.items()
            }
            self.outcome.metadata[materialization.asset_key.to_user_string()] = values
        elif event.is_step_failure:
            self.outcome.failures.append(failure_message(event))
        elif event.is_failure and not self.outcome.failures:
            self.outcome.failures.append(event.message or "the run failed before its first step")


def failure_message(event: dg.DagsterEvent) -> str:
    """What failed and why, without the stack."""
    data = event.step_failure_data
    described = data.user_failure_data.description if data.user_failure_data else None
    return f"{event.step_key}: {described or (data.error.message.strip() if data.error else event.message)}"


def train(
    instance: dg.DagsterInstance,
    snapshot: str,
    run_config: Mapping[str, Any],
    *,
    on_step: Callable[[str, float], None],
    on_message: Callable[[str], None],
) -> Outcome:
    """Execute `training_job` for one snapshot with the configured executor, and return what it told.

    Args:
        instance: where the run is recorded.
        snapshot: partition key.
        run_config: configuration of the assets, as in the launchpad of the Dagster UI.
        on_step: called with every finished step and its seconds.
        on_message: called with what the running step logs.
    """
    tags = {"dagster/partition": snapshot}
    return _execute(instance, training_job_definition, run_config, tags, on_step, on_message)


def deploy(
    instance: dg.DagsterInstance, version: int | None, *, on_message: Callable[[str], None]
) -> Outcome:
    """Execute `deployment_job`, and return what it told.

    Args:
        instance: where the run is recorded.
        version: of the registered model; None is the one behind `staging`.
        on_message: called with what the running step logs.
    """
    config = {} if version is None else {"model_version": version}
    run_config = {"ops": {"api_deployment": {"config": config}}}
    return _execute(instance, deployment_job_definition, run_config, {}, lambda *_: None, on_message)


def monitor(instance: dg.DagsterInstance, day: str, *, on_message: Callable[[str], None]) -> Outcome:
    """Execute `monitoring_job` for one UTC day, and return what it told.

    Args:
        instance: where the run is recorded.
        day: partition key.
        on_message: called with what the running step logs.
    """
    tags = {"dagster/partition": day}
    return _execute(instance, monitoring_job_definition, {}, tags, lambda *_: None, on_message)


def _execute(
    instance: dg.DagsterInstance,
    job: Callable[[], dg.JobDefinition],
    run_config: Mapping[str, Any],
    tags: Mapping[str, str],
    on_step: Callable[[str, float], None],
    on_message: Callable[[str], None],
) -> Outcome:
    invocation = uuid.uuid4().hex
    with Follower(instance, invocation, on_step, on_message) as follower:
        result = dg.execute_job(
            dg.reconstructable(job),
            instance=instance,
            run_config={**QUIET_CONSOLE, **run_config},
            tags={**tags, INVOCATION_TAG: invocation},
        )
        success = result.success
    follower.outcome.success = success
    return follower.outcome
