"""Dagster on PostgreSQL: what is written down, and a backfill whose daemon is killed twice.

`HOUSING_POSTGRES_PARTITIONS` sets how many partitions are backfilled, up to 20.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
import yaml

from housing_assets.containers import backend_store_uri
from housing_assets.instance import create_databases, prepare_instance, with_driver
from housing_assets.mlflow_runs import mlflow_client
from housing_assets.settings import Settings
from housing_assets_tests.counted_graph import PARTITIONS
from housing_assets_tests.postgres_server import PASSWORD, postgres_server
from housing_assets_tests.running_stack import wait_for

WANTED = PARTITIONS[: int(os.environ.get("HOUSING_POSTGRES_PARTITIONS", "4"))]
LAUNCH = """mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}"""
SECONDS = 900.0
PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def home(tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The instance's folder as the commands of the product prepare it."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for field in Settings.model_fields.values():
        os.environ.pop(str(field.validation_alias), None)
    os.environ |= {
        "DAGSTER_POSTGRES_URL": postgres,
        "HOUSING_HOME": str(tmp_path / "home"),
        "COUNTED_FOLDER": str(tmp_path),
    }
    monkeypatch.chdir(tmp_path)
    settings = Settings.load()
    assert PASSWORD not in repr(settings)
    folder = prepare_instance(settings)
    create_databases()
    return folder


@pytest.fixture
def workspace(home: Path) -> Path:
    module = {"module_name": "housing_assets_tests.counted_graph", "location_name": "counted"}
    path = home / "workspace.yaml"
    path.write_text(yaml.safe_dump({"load_from": [{"python_module": module}]}))
    return path


def test_the_driver_is_dagsters_unless_another_is_named() -> None:
    assert with_driver("postgresql://u:p%40@h:1/d") == "postgresql+psycopg2://u:p%40@h:1/d"
    assert with_driver("postgresql+psycopg://u@h/d") == "postgresql+psycopg://u@h/d"


class Daemon:
    """A Dagster daemon that is started again each time it has been killed."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [str(PROGRAMS / "dagster-daemon"), "run", "-w", str(self._workspace)]
        with (self._workspace.parent / "daemon.log").open("ab") as log:
            return subprocess.Popen(command, env=os.environ, stdout=log, stderr=log, start_new_session=True)

    def kill_and_start_again(self) -> None:
        """SIGKILL the daemon alone: runs that it launched go on."""
        self._process.kill()
        self._process.wait()
        self._process = self._start()

    def stop(self) -> None:
        """SIGTERM it, and wait for its end."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


@pytest.fixture
def daemon(workspace: Path) -> Iterator[Daemon]:
    daemon = Daemon(workspace)
    try:
        yield daemon
    finally:
        daemon.stop()


def launch_backfill(workspace: Path) -> str:
    params = {
        "assetSelection": [{"path": ["counted"]}],
        "partitionNames": list(WANTED),
        "title": "All of them",
    }
    answer = workspace.parent / "answer.json"
    command = [
        *(str(PROGRAMS / "dagster-graphql"), "-w", str(workspace), "-o", str(answer)),
        *("-t", LAUNCH, "-v", json.dumps({"params": params})),
    ]
    subprocess.run(command, check=True, env=os.environ)
    launched = json.loads(answer.read_text())["data"]["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return str(launched["backfillId"])


def test_the_password_is_on_no_disk_and_no_sqlite_file_is_made(home: Path) -> None:
    files = [path for path in home.rglob("*") if path.is_file()]
    assert home / "dagster.yaml" in files
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
    assert [path for path in files if path.suffix == ".db"] == []
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"


def test_mlflow_keeps_its_records_in_a_database_of_its_own(
    tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(psycopg2.connect(postgres)) as connection:
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE mlflow")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", f"{postgres.rpartition('/')[0]}/mlflow")
    monkeypatch.chdir(tmp_path)
    client = mlflow_client(backend_store_uri(Settings.load()))
    experiment = client.create_experiment("prices")
    client.set_terminated(client.create_run(experiment).info.run_id)
    assert [run.info.status for run in client.search_runs([experiment])] == ["FINISHED"]


@pytest.mark.timeout(3 * SECONDS)
def test_a_backfill_whose_daemon_is_killed_twice_does_every_partition_once(
    workspace: Path, daemon: Daemon, tmp_path: Path
) -> None:
    backfill_id = launch_backfill(workspace)

    def made() -> int:
        return sum((tmp_path / partition).exists() for partition in WANTED)

    for part in (1, 2):
        wait_for(f"part {part} of the backfill", lambda part=part: made() >= part * len(WANTED) // 4, SECONDS)
        daemon.kill_and_start_again()
    with dg.DagsterInstance.get() as instance:

        def status() -> str:
            found = instance.get_backfill(backfill_id)
            assert found is not None
            return str(found.status.value)

        wait_for("the end of the backfill", lambda: status().startswith("COMPLETED"), SECONDS)
        assert status() == "COMPLETED_SUCCESS"
        runs = instance.get_runs()
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    by_partition = Counter(run.tags["dagster/partition"] for run in runs)
    assert by_partition == dict.fromkeys(WANTED, 1)
    ids = {run.tags["dagster/partition"]: f"{run.run_id}\n" for run in runs}
    assert {partition: (tmp_path / partition).read_text() for partition in WANTED} == ids
