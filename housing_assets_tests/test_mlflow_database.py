"""MLflow's SQLite file is there with all of its tables, or not at all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from housing_assets.mlflow_runs import create_database, mlflow_client
from housing_assets_tests.command_line import REPOSITORY, clean_environment

CREATE = """
import pathlib, sys
from housing_assets.mlflow_runs import create_database
create_database(pathlib.Path(sys.argv[1]))
"""
POLL_SECONDS = 0.001


def start_creating(database: Path, temporary: Path) -> "subprocess.Popen[bytes]":
    temporary.mkdir(exist_ok=True)
    environment = {
        k: v for k, v in clean_environment(database.parent).items() if not k.startswith("COVERAGE")
    }
    return subprocess.Popen(
        [sys.executable, "-c", CREATE, str(database)],
        cwd=REPOSITORY,
        env={**environment, "TMPDIR": str(temporary)},
        start_new_session=True,
    )


def is_usable(database: Path) -> bool:
    return bool(mlflow_client(f"sqlite:///{database}").search_experiments())


def test_a_process_killed_amid_the_migrations_leaves_no_database(tmp_path: Path) -> None:
    database, temporary = tmp_path / "mlflow" / "mlflow.db", tmp_path / "temporary"
    process = start_creating(database, temporary)
    while not any(file.stat().st_size for file in temporary.glob("mlflow-*/mlflow.db")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(POLL_SECONDS)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not database.exists()

    create_database(database)
    assert is_usable(database)


def test_processes_that_create_it_at_the_same_time_share_one(tmp_path: Path) -> None:
    database = tmp_path / "mlflow" / "mlflow.db"
    processes = [start_creating(database, tmp_path / "temporary") for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert is_usable(database)
    assert [file.name for file in database.parent.iterdir()] == ["mlflow.db"]


def test_one_that_is_there_is_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.write_bytes(b"somebody's")
    create_database(database)
    assert database.read_bytes() == b"somebody's"
