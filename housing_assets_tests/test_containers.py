"""`housing run` and `housing probe`: the parts of the system as containers run them."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from housing_assets.containers import backend_store_uri, command, problem, workspace
from housing_assets.containers_cli import Part
from housing_assets.model_card import git_commit
from housing_assets.settings import Settings
from housing_assets_tests.command_line import clean_environment, housing
from housing_assets_tests.conftest import free_port

START_SECONDS = 240


@contextmanager
def part(name: str, home: Path, port: int) -> Iterator["subprocess.Popen[str]"]:
    """A part in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "housing_assets", "run", name],
        env=clean_environment(home, PORT=str(port)),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def settings(home: Path, monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in {"HOUSING_HOME": str(home), "HOST": "0.0.0.0", **values}.items():
        monkeypatch.setenv(name, value)
    return Settings()


def test_the_code_server_is_well_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    asked = settings(tmp_path, monkeypatch, HOST="127.0.0.1", PORT=str(port))
    with part("code", tmp_path, port) as process:
        deadline = time.monotonic() + START_SECONDS
        while problem(Part.CODE, asked) is not None:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    said = problem(Part.CODE, asked)
    assert said is not None
    assert "Unable to connect to gRPC server" in said


def test_a_probe_says_what_is_wrong(tmp_path: Path) -> None:
    port = free_port()
    probed = housing("probe", "mlflow", home=tmp_path, PORT=str(port))
    assert probed.returncode == 1
    assert f"http://127.0.0.1:{port}/health: " in probed.stderr


def test_a_daemon_that_never_ran_is_not_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = settings(tmp_path, monkeypatch)
    asked.dagster_home.mkdir(parents=True)
    assert problem(Part.DAEMON, asked) is not None


def test_webserver_and_daemon_ask_the_code_server_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = yaml.safe_load(workspace(settings(tmp_path, monkeypatch)))
    assert alone["load_from"][0]["python_module"]["module_name"] == "housing_assets.definitions"
    apart = yaml.safe_load(workspace(settings(tmp_path, monkeypatch, HOUSING_CODE_SERVER="code:4000")))
    assert apart["load_from"] == [{"grpc_server": {"host": "code", "port": 4000, "location_name": "housing"}}]


def test_an_image_knows_the_commit_it_was_built_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_COMMIT", "0123abc")
    assert git_commit() == "0123abc"


def test_secrets_are_on_no_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "postgresql://housing:hunter22@db/mlflow"  # pragma: allowlist secret
    asked = settings(tmp_path, monkeypatch, MLFLOW_BACKEND_STORE_URI=uri)
    assert (
        backend_store_uri(asked) == "postgresql+psycopg2://housing:hunter22@db/mlflow"
    )  # pragma: allowlist secret
    assert not any("hunter22" in " ".join(command(name, asked)) for name in Part)
    assert Path(command(Part.MLFLOW, asked)[0]).name == "mlflow"
