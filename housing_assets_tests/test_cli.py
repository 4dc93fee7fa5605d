"""The `housing` command: help worth reading, exit codes, and errors that say what to do."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from typer.testing import CliRunner

from housing_assets.cli import app
from housing_assets.demo import DemoError, running_service
from housing_assets.settings import Settings
from housing_assets_tests.command_line import SMALL_BUDGET, clean_environment, housing
from housing_assets_tests.conftest import free_port

COMMANDS = ("demo", "train", "serve", "up", "down", "status")


@pytest.fixture(autouse=True)
def empty_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    for name in ("DAGSTER_HOME", "LOCAL_MODEL_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOUSING_HOME", str(tmp_path / "home"))
    # Values that the commands set for their children end with the test.
    monkeypatch.setattr(os, "environ", os.environ.copy())


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    return result.exit_code, result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    code, output = invoke(command, "--help")
    assert code == 0
    assert f"housing {command}" in output


def test_help_lists_every_command() -> None:
    code, output = invoke("--help")
    assert code == 0
    assert all(command in output for command in COMMANDS)


def test_incomplete_settings_exit_2_with_every_missing_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSING_DEPLOYMENT", "gcp")
    code, output = invoke("train")
    assert code == 2
    for name in ("GCP_PROJECT_ID", "GCS_BUCKET_NAME", "MLFLOW_TRACKING_URI"):
        assert f"{name} is not set" in output


def test_a_day_that_is_no_snapshot_is_refused() -> None:
    code, output = invoke("train", "--snapshot", "2026-11-23")
    assert code == 2
    assert "'2026-11-23' is no snapshot: give a Sunday from 2025-01-05 to" in output


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "is not a readable YAML file"),
        ("- a list", "must hold a mapping"),
        ("a: [", "is not a readable"),
    ],
)
def test_a_bad_run_configuration_is_named(tmp_path: Path, content: str | None, expected: str) -> None:
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_text(content)
    code, output = invoke("train", "--config", str(path))
    assert code == 2
    assert expected in output


def test_a_failed_training_exits_1_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSING_SOURCE_URI", str(tmp_path / "absent.csv"))
    code, output = invoke("train", "--config", str(SMALL_BUDGET))
    assert code == 1
    assert "training failed" in output
    assert "absent.csv" in output


def test_an_unknown_option_of_an_asset_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("ops: {sweep_result: {config: {trials: 3}}}")
    code, output = invoke("train", "--config", str(path))
    assert code == 2
    assert "trials" in output


def test_nothing_runs_before_up() -> None:
    assert invoke("status")[0] == 1
    code, output = invoke("down")
    assert (code, output.strip()) == (0, "nothing was running")


def test_serve_answers_and_says_that_it_has_no_model_yet(tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "housing_assets", "serve"],
        env=clean_environment(tmp_path / "home", PORT=str(port)),
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert process.poll() is None
            try:
                assert requests.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        assert requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=2).status_code == 503
    finally:
        process.terminate()
        # uvicorn finishes what is in flight, then lets the signal end it.
        assert process.wait(timeout=30) in {0, -signal.SIGTERM}


def test_a_service_that_ends_at_once_fails_the_demo_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    monkeypatch.setenv("HOUSING_MODEL_POLL_SECONDS", "never")
    with pytest.raises(DemoError, match="HOUSING_MODEL_POLL_SECONDS"), running_service(settings, "1"):
        pass


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = housing("--help", home=tmp_path)
    assert done.returncode == 0
    assert "Usage" in done.stdout
