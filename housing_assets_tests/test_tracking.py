"""Tracking: one MLflow parent per Dagster run and one child per step, right under every executor."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from housing_assets.deployments import build_resources
from housing_assets.instance import prepare_instance
from housing_assets.mlflow_runs import MlflowRuns, TrackingUnavailable
from housing_assets.orphans import fail_orphans
from housing_assets.sensors import close_tracking
from housing_assets.settings import Settings
from housing_assets.storage import open_store
from housing_assets_tests.scripted_http import answer, scripted_server

SNAPSHOT = "2026-11-22"


def prepared(home: Path, patch: pytest.MonkeyPatch) -> Settings:
    """Settings and instance of a home of its own, also for the processes that a test starts."""
    for field in Settings.model_fields.values():
        patch.delenv(str(field.validation_alias), raising=False)
    patch.setenv("HOUSING_HOME", str(home))
    patch.setenv("DAGSTER_HOME", str(home / "dagster"))
    settings = Settings.load()
    prepare_instance(settings)
    return settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    return prepared(tmp_path / "home", monkeypatch)


@pytest.fixture(scope="module", params=["in_process", "multiprocess"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A home in which the tiny graph was materialized once, by either executor."""
    with pytest.MonkeyPatch.context() as patch:
        settings = prepared(tmp_path_factory.mktemp("finished"), patch)
        done = materialize(request.param)
        assert done.returncode == 0, done.stderr
        yield settings


def materialize(executor: str, fail: str = "") -> "subprocess.CompletedProcess[str]":
    """Materialize the tiny graph with Dagster's own command line."""
    command = ["-m", "dagster", "asset", "materialize", "--select", "*", "--partition", SNAPSHOT]
    return subprocess.run(
        [sys.executable, *command, "-m", "housing_assets_tests.tiny_graph"],
        env={**os.environ, "HOUSING_EXECUTOR": executor, "TINY_FAIL": fail},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def all_runs(settings: Settings) -> list[Any]:
    """All MLflow runs of the experiment."""
    runs = MlflowRuns(settings.tracking_uri, settings.mlflow_experiment, open_store(settings.storage_root))
    return list(runs.client.search_runs([runs.experiment_id]))


def mlflow_runs(settings: Settings) -> dict[str, Any]:
    """All MLflow runs by name; no step may have two."""
    found = {run.info.run_name: run for run in all_runs(settings)}
    assert len(found) == len(all_runs(settings)), "a step has two runs"
    return found


def parent_of(runs: Iterable[Any]) -> Any:
    """The one run without a parent."""
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return parent


def test_a_run_has_one_finished_parent_and_a_child_per_step(finished: Settings) -> None:
    runs = mlflow_runs(finished)
    parent = parent_of(runs.values())
    assert len(runs) == 3
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for name in ("first", "second"):
        assert runs[name].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert runs["first"].data.metrics == {"rows": 2.0}
    assert runs["first"].data.params == {"colour": "blue"}
    stored = Path(runs["first"].data.tags["first.uri"])
    assert stored == finished.home.resolve() / "storage" / "tiny" / SNAPSHOT / "first.parquet"
    assert stored.exists()


@pytest.mark.parametrize("executor", ["in_process", "multiprocess"])
def test_a_failed_run_has_a_failed_parent_and_a_failed_child(settings: Settings, executor: str) -> None:
    done = materialize(executor, fail="body")
    assert done.returncode != 0
    assert "row 7 is wrong" in done.stderr + done.stdout
    runs = mlflow_runs(settings)
    statuses = {name: run.info.status for name, run in runs.items()}
    assert parent_of(runs.values()).info.status == "FAILED"
    assert (statuses["first"], statuses["second"]) == ("FINISHED", "FAILED")


def test_bad_data_is_not_retried(settings: Settings) -> None:
    materialize("in_process", fail="body")
    with dg.DagsterInstance.get() as instance:
        [run] = instance.get_runs()
        retries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)
        assert list(retries) == []


def test_the_sensor_closes_what_a_killed_process_left_open(settings: Settings) -> None:
    materialize("in_process", fail="crash")
    assert mlflow_runs(settings)["second"].info.status == "RUNNING"

    from housing_assets_tests.tiny_graph import defs  # noqa: PLC0415

    with dg.DagsterInstance.get() as instance:
        [run_id] = fail_orphans(instance)
        run = instance.get_run_by_id(run_id)
        event = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)[0].dagster_event
        with dg.build_run_status_sensor_context(
            "close_tracking_on_failure", event, instance, run, resources=defs().resources
        ) as context:
            close_tracking(dg.DagsterRunStatus.FAILURE)(context)
    statuses = {name: run.info.status for name, run in mlflow_runs(settings).items()}
    assert (statuses["first"], statuses["second"]) == ("FINISHED", "FAILED")
    assert parent_of(all_runs(settings)).info.status == "FAILED"


def test_wandb_runs_are_offline_with_references_and_checksums(finished: Settings) -> None:
    folders = sorted((finished.home / "wandb" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    content = b"".join(path.read_bytes() for path in folders[0].glob("*.wandb"))
    stored = finished.home.resolve() / "storage" / "tiny" / SNAPSHOT / "first.parquet"
    assert stored.as_uri().encode() in content
    digest = base64.b64encode(hashlib.md5(stored.read_bytes()).digest())
    assert digest in content


def test_racing_processes_agree_on_one_parent(settings: Settings) -> None:
    code = (
        "from housing_assets.settings import Settings\n"
        "from housing_assets.mlflow_runs import MlflowRuns\n"
        "from housing_assets.storage import open_store\n"
        "s = Settings.load()\n"
        "runs = MlflowRuns(s.tracking_uri, s.mlflow_experiment, open_store(s.storage_root))\n"
        "print(runs.parent('dagster-run', 'name', {}))\n"
    )
    mlflow_runs(settings)
    racers = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    answers = {racer.communicate(timeout=120)[0].strip() for racer in racers}
    assert len(answers) == 1
    assert [run.info.run_id for run in mlflow_runs(settings).values()] == list(answers)


def test_a_dead_tracking_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with pytest.raises(TrackingUnavailable, match=r"MLflow at http://127.0.0.1:9 does not answer"):
        MlflowRuns("http://127.0.0.1:9", "housing-price", open_store(str(tmp_path)))


def test_dagster_wandb_imports_with_the_locked_wandb() -> None:
    import dagster_wandb  # noqa: PLC0415

    assert dagster_wandb.wandb_resource is not None


def test_the_parent_claim_is_readable(finished: Settings) -> None:
    store = open_store(finished.storage_root)
    [claim] = store.list("tracking/mlflow-parents/")
    parent = json.loads(store.read(claim))["mlflow_run_id"]
    assert parent == parent_of(all_runs(finished)).info.run_id


ONLINE_RUN = """
from pathlib import Path
from housing_assets.wandb_runs import WandbUnavailable, start_run
try:
    start_run(project="housing", entity=None, online=True, folder=Path("."), name="raw_housing",
              group="run", job_type="download_data", tags=[])
except WandbUnavailable as error:
    print(error)
"""


def test_with_a_key_the_client_goes_online_and_a_refusal_is_explained(tmp_path: Path) -> None:
    # In a process of its own: wandb keeps the first server that a process talks to.
    with scripted_server() as server:
        server.afterwards = answer(401)
        done = subprocess.run(
            [sys.executable, "-c", ONLINE_RUN],
            cwd=tmp_path,
            env={**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert f"W&B at {server.url} did not take a run for project housing" in done.stdout, done.stderr
        assert "check WANDB_API_KEY" in done.stdout
        assert "POST /graphql" in server.requests


def test_the_key_decides_between_online_and_offline(settings: Settings) -> None:
    with_key = settings.model_copy(update={"wandb_api_key": SecretStr("k" * 40)})
    assert build_resources(settings)["tracking"].wandb_online is False
    tracking = build_resources(with_key)["tracking"]
    assert tracking.wandb_online is True
    # The key stays in the environment: a resource's configuration is shown in the UI.
    assert "k" * 40 not in repr(tracking)
