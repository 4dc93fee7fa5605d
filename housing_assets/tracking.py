"""Tracking of steps in MLflow and W&B: the resource that assets use.

A step opens with the asset's body and closes when its object has been stored, so a finished run in either
tracker means a stored result. The MLflow parent closes with the process that executed the last step; the
run-status sensors close what a killed process left behind.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import PrivateAttr

from housing_assets import wandb_runs
from housing_assets.metadata import report_metadata
from housing_assets.ml.report import StepReport
from housing_assets.mlflow_runs import MlflowRuns
from housing_assets.resources import StorageResource
from housing_assets.storage import StorageUnavailable, StoredObject

if TYPE_CHECKING:
    from wandb import Run

# The body of an asset and the IO manager that stores its output meet here: Dagster gives each of them its own
# copy of a resource, and one process executes one step at a time.
_OPEN: dict[tuple[str, str], "TrackedStep"] = {}


@dataclass
class TrackedStep:
    """One step in both trackers."""

    mlflow: MlflowRuns
    mlflow_run_id: str
    wandb: "Run"
    artifact_type: str
    pending: set[str]
    links: dict[str, Any] = field(default_factory=dict)
    reported: dict[str, Any] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, Any]:
        """What was reported, as Dagster metadata, and links to both runs below it."""
        return {**self.reported, **self.links}

    def log(self, report: StepReport) -> None:
        """Send a report to both trackers and keep it as Dagster metadata."""
        self.mlflow.log(self.mlflow_run_id, report)
        wandb_runs.log_report(self.wandb, report)
        self.reported |= report_metadata(report)

    def stored(self, asset: str, stored: StoredObject) -> None:
        """Refer both runs to the stored object of one asset; the last of them ends the step."""
        wandb_runs.log_reference(self.wandb, asset, self.artifact_type, stored)
        self.mlflow.tag(self.mlflow_run_id, {f"{asset}.uri": stored.uri, f"{asset}.sha256": stored.sha256})
        self.pending.discard(asset)
        if not self.pending:
            self.close(failed=False)

    def close(self, *, failed: bool) -> None:
        """End both runs."""
        self.wandb.finish(exit_code=int(failed))
        self.mlflow.end(self.mlflow_run_id, "FAILED" if failed else "FINISHED")


class TrackingResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """MLflow (one parent per Dagster run, one child per step) and W&B (one run per step)."""

    storage: dg.ResourceDependency[StorageResource]
    mlflow_tracking_uri: str
    mlflow_experiment: str
    wandb_project: str
    wandb_entity: str | None = None
    wandb_online: bool = False
    wandb_folder: str

    _runs: MlflowRuns | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["TrackingResource"]:
        """Close, at the end of this process's steps, what they opened."""
        yield self
        run = context.run
        if run is None or self._runs is None:
            return
        for asset in [asset for run_id, asset in _OPEN if run_id == run.run_id]:
            finish_step(run.run_id, asset, None)
        if context.instance is not None:
            self.runs.close_parent(run.run_id, status_so_far(context.instance, run.run_id))

    @property
    def runs(self) -> MlflowRuns:
        """The MLflow runs, connected at first use."""
        if self._runs is None:
            self._runs = MlflowRuns(self.mlflow_tracking_uri, self.mlflow_experiment, self.storage.store())
        return self._runs

    @contextmanager
    def step(
        self, context: dg.AssetExecutionContext, *, job_type: str, artifact_type: str
    ) -> Iterator[TrackedStep]:
        """Track one asset's step; it stays open until `finish_step`, which the IO manager calls.

        Raises:
            dagster.Failure: for every error that a retry cannot mend, with its message.
        """
        step = self._open(context, job_type, artifact_type)
        try:
            yield step
        except BaseException as error:
            finish_step(context.run.run_id, min(step.pending), None)
            raise final(error) from error

    def _open(self, context: dg.AssetExecutionContext, job_type: str, artifact_type: str) -> TrackedStep:
        assets = {key.to_user_string() for key in context.selected_asset_keys}
        name, run_id, snapshot = " and ".join(sorted(assets)), context.run.run_id, context.partition_key
        tags = {"snapshot": snapshot, "step": name}
        try:
            parent = self.runs.parent(run_id, f"{context.job_name} {snapshot}", {"snapshot": snapshot})
            child = self.runs.start_child(parent, name, tags)
        except Exception as error:
            raise final(error) from error
        try:
            run = self._start_wandb(name, run_id, snapshot, job_type)
        except BaseException as error:
            self.runs.end(child, "FAILED")
            raise final(error) from error
        step = TrackedStep(self.runs, child, run, artifact_type, assets)
        url = self.runs.url(child)
        if url is not None:
            step.links["mlflow_run"] = dg.MetadataValue.url(url)
        if self.wandb_online and run.url:
            step.links["wandb_run"] = dg.MetadataValue.url(run.url)
        else:
            # What `wandb sync` uploads later; the run's own folder is that of its files.
            step.links["wandb_run"] = dg.MetadataValue.path(Path(run.dir).parent)
        _OPEN.update({(run_id, asset): step for asset in assets})
        return step

    def _start_wandb(self, name: str, run_id: str, snapshot: str, job_type: str) -> "Run":
        return wandb_runs.start_run(
            project=self.wandb_project,
            entity=self.wandb_entity,
            online=self.wandb_online,
            folder=Path(self.wandb_folder),
            name=f"{name}_{snapshot}",
            group=run_id,
            job_type=job_type,
            tags=[f"snapshot-{snapshot}"],
        )


def finish_step(run_id: str, asset: str, stored: StoredObject | None) -> None:
    """Tell an asset's open step, if one is tracked, what was stored; nothing stored means that it failed."""
    step = _OPEN.pop((run_id, asset), None)
    if step is None:
        return
    if stored is not None:
        step.stored(asset, stored)
        return
    for other in step.pending - {asset}:
        _OPEN.pop((run_id, other), None)
    step.close(failed=True)


def final(error: BaseException) -> BaseException:
    """The error as Dagster should treat it: transient storage trouble is retried, the rest is not."""
    if isinstance(error, StorageUnavailable | dg.Failure) or not isinstance(error, Exception):
        return error
    return dg.Failure(description=f"{type(error).__name__}: {error}", allow_retries=False)


def status_so_far(instance: dg.DagsterInstance, run_id: str) -> str:
    """`FAILED` once any step of the run has failed, else `FINISHED`."""
    failures = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return "FAILED" if failures else "FINISHED"
