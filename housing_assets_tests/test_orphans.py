"""Runs of killed processes are found and reported; living ones are left alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from housing_assets.orphans import fail_orphans, is_alive

TIMEOUT_SECONDS = 60.0


@dg.op
def wait_for_release() -> None:
    """Runs until the file named in the environment exists."""
    while not Path(os.environ["RELEASE_FILE"]).exists():
        time.sleep(0.05)


@dg.job
def waiting_job() -> None:
    """One step that ends only when it is told to."""
    wait_for_release()


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("RELEASE_FILE", str(tmp_path / "release"))
    with dg.DagsterInstance.get() as opened:
        yield opened
    # A killed worker leaves its step's process behind; let that one end.
    (tmp_path / "release").touch()


def start_run(instance: dg.DagsterInstance) -> tuple["subprocess.Popen[bytes]", str]:
    """Execute `waiting_job` in a process of its own, and return when its step runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster", "job", "execute", "-m", __name__, "-j", "waiting_job"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        for run in instance.get_runs():
            if instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START):
                return process, run.run_id
        assert process.poll() is None, "the run ended before its step began"
        time.sleep(0.1)
    raise AssertionError("the run did not start")


def test_a_killed_run_is_failed_and_a_living_one_is_left_alone(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    process, run_id = start_run(instance)
    assert fail_orphans(instance) == []

    process.send_signal(signal.SIGKILL)
    process.wait()
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.STARTED
    assert fail_orphans(instance) == [run_id]
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.FAILURE
    assert fail_orphans(instance) == []


def test_a_killed_run_that_was_being_canceled_ends_canceled(instance: dg.DagsterInstance) -> None:
    process, run_id = start_run(instance)
    instance.report_run_canceling(instance.get_run_by_id(run_id))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert fail_orphans(instance) == [run_id]
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.CANCELED


def test_a_run_that_ends_while_it_is_looked_at_keeps_its_outcome(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, run_id = start_run(instance)
    seen_running = instance.get_runs()
    (tmp_path / "release").touch()
    process.wait()
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.SUCCESS

    monkeypatch.setattr(instance, "get_runs", lambda **_: seen_running)
    assert fail_orphans(instance) == []
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.SUCCESS


def test_a_later_process_with_the_same_number_does_not_count() -> None:
    assert is_alive(os.getpid(), time.time())
    assert not is_alive(os.getpid(), seen_at=0.0)
