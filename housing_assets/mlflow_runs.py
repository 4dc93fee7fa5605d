"""MLflow runs of the graph: one parent per Dagster run, one child per step.

The parent of a Dagster run is elected by an exclusive object in the storage root, so steps that start at the
same time in several processes, or on several machines, still share one parent.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housing_assets.ml.report import StepReport
from housing_assets.storage import LocalStore, ObjectConflict, ObjectMissing, ObjectStore

if TYPE_CHECKING:
    from mlflow import MlflowClient

DAGSTER_RUN_TAG = "dagster.run_id"
SQLITE = "sqlite:///"
MAX_PARAM_LENGTH = 6000


class TrackingUnavailable(RuntimeError):
    """The tracking server does not answer; the message names it and what to do."""


def mlflow_client(tracking_uri: str) -> "MlflowClient":
    """A client whose calls give up after seconds, not minutes, when the server is down."""
    set_defaults()
    if tracking_uri.startswith(SQLITE):
        create_database(Path(tracking_uri.removeprefix(SQLITE)))
    from mlflow import MlflowClient  # noqa: PLC0415  (seconds to import)

    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def set_defaults() -> None:
    """What MLflow reads from the environment when it is imported; what people have set stays."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


def create_database(path: Path) -> None:
    """Create MLflow's SQLite file with its tables, unless there is one: completely or not at all.

    MLflow reaches its tables by dozens of migrations, each of several transactions. A process killed amid
    them would leave a file that no later start can use, so they run on a file that nobody else sees.
    """
    if path.exists():
        return
    set_defaults()
    from mlflow.db import upgrade  # noqa: PLC0415  (seconds to import)

    with tempfile.TemporaryDirectory(prefix="mlflow-") as folder:
        unseen = Path(folder) / path.name
        upgrade.callback(f"{SQLITE}{unseen}")
        try:
            LocalStore(path.parent).write(path.name, unseen.read_bytes(), if_absent=True)
        except ObjectConflict:
            return  # Another process was faster; its file is as complete.


class MlflowRuns:
    """Parent and child runs in one experiment.

    Raises:
        TrackingUnavailable: from every method, when the server does not answer.
    """

    def __init__(self, tracking_uri: str, experiment: str, store: ObjectStore) -> None:
        self._uri = tracking_uri
        self._experiment = experiment
        self._store = store
        try:
            self.client = mlflow_client(tracking_uri)
            self.experiment_id = self._find_or_create_experiment()
        except Exception as error:
            if is_unreachable(error):
                raise TrackingUnavailable(
                    f"MLflow at {tracking_uri} does not answer: start it (make up starts one), "
                    "or set MLFLOW_TRACKING_URI to a server that runs"
                ) from error
            raise

    def _find_or_create_experiment(self) -> str:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        found = self.client.get_experiment_by_name(self._experiment)
        if found is None:
            # A server decides where its artifacts go; a store opened directly keeps them in the storage root.
            location = None if self._uri.startswith("http") else artifact_location(self._store)
            try:
                return str(self.client.create_experiment(self._experiment, artifact_location=location))
            except MlflowException:
                found = self.client.get_experiment_by_name(self._experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def parent(self, dagster_run_id: str, name: str, tags: dict[str, str]) -> str:
        """The parent run's id, created at the first call of whichever process comes first."""
        claim = f"tracking/mlflow-parents/{dagster_run_id}.json"
        try:
            return str(json.loads(self._store.read(claim))["mlflow_run_id"])
        except ObjectMissing:
            pass
        run = self.client.create_run(
            self.experiment_id, run_name=name, tags={DAGSTER_RUN_TAG: dagster_run_id, **tags}
        )
        run_id = str(run.info.run_id)
        try:
            self._store.write(claim, json.dumps({"mlflow_run_id": run_id}).encode(), if_absent=True)
        except ObjectConflict:
            self.client.delete_run(run_id)
            return str(json.loads(self._store.read(claim))["mlflow_run_id"])
        return run_id

    def start_child(self, parent_id: str, name: str, tags: dict[str, str]) -> str:
        """A running child of the parent; the parent counts as running again."""
        self.client.update_run(parent_id, status="RUNNING")
        run = self.client.create_run(
            self.experiment_id, run_name=name, tags={"mlflow.parentRunId": parent_id, **tags}
        )
        return str(run.info.run_id)

    def log(self, run_id: str, report: StepReport) -> None:
        """Parameters, metrics, tables, figures and texts of one step."""
        from mlflow.entities import Metric, Param  # noqa: PLC0415
        from mlflow.utils.time import get_current_time_millis  # noqa: PLC0415

        now = get_current_time_millis()
        self.client.log_batch(
            run_id,
            metrics=[Metric(key, float(value), now, 0) for key, value in report.metrics.items()],
            params=[Param(key, str(value)[:MAX_PARAM_LENGTH]) for key, value in report.params.items()],
        )
        with tempfile.TemporaryDirectory(prefix="housing-report-") as folder:
            for path, content in report_files(report).items():
                target = Path(folder) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            if report_files(report):
                self.client.log_artifacts(run_id, folder)

    def tag(self, run_id: str, tags: dict[str, str]) -> None:
        """Set searchable tags."""
        for key, value in tags.items():
            self.client.set_tag(run_id, key, value)

    def end(self, run_id: str, status: str) -> None:
        """Close a run with `FINISHED`, `FAILED` or `KILLED`."""
        self.client.set_terminated(run_id, status=status)

    def close_parent(self, dagster_run_id: str, status: str) -> list[str]:
        """Close the parent of a Dagster run, and children that a killed process left running."""
        parents = self._search(f"tags.`{DAGSTER_RUN_TAG}` = '{dagster_run_id}'")
        closed = []
        for parent in parents:
            children = self._search(f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
            for run in [child for child in children if child.info.status == "RUNNING"] + [parent]:
                if run.info.status != status:
                    self.client.set_terminated(run.info.run_id, status=status)
                    closed.append(str(run.info.run_id))
        return closed

    def _search(self, query: str) -> list[Any]:
        return list(self.client.search_runs([self.experiment_id], filter_string=query, max_results=200))

    def url(self, run_id: str) -> str | None:
        """The run's page, where a server shows one."""
        if not self._uri.startswith("http"):
            return None
        return f"{self._uri.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{run_id}"


def artifact_location(store: ObjectStore) -> str:
    """Where artifacts of a directly opened store go: below the storage root."""
    uri = store.uri("mlflow")
    return uri if "://" in uri else Path(uri).resolve().as_uri()


def report_files(report: StepReport) -> dict[str, bytes]:
    """The report's figures, tables and texts as files of an artifact folder."""
    files = {f"plots/{name}.png": png for name, png in report.figures.items()}
    files |= {
        f"tables/{name}.csv": table.to_csv(index=False).encode() for name, table in report.tables.items()
    }
    return files | {name: text.encode() for name, text in report.texts.items()}


def is_unreachable(error: BaseException) -> bool:
    """Whether an MLflow error means that nobody answered (rather than that the answer was no)."""
    text = str(error)
    return any(mark in text for mark in ("API request to", "Max retries exceeded", "Connection refused"))
