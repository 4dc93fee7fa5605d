"""`housing up`, `status` and `down` with real processes: what starts, what restarts, and what is left."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from housing_assets.supervision import remnants
from housing_assets_tests.running_stack import Stack, alive, wait_for

NAMES = {"mlflow", "dagster-webserver", "dagster-daemon", "api", "webapp"}


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Stack]:
    """A stack of its own that is not started yet; its path holds what configuration files choke on."""
    folder = tmp_path / "50% of & more"
    folder.mkdir()
    stack = Stack(folder)
    yield stack
    stack.housing("down")


def test_everything_answers_and_the_api_is_not_ready_without_a_model(stack: Stack) -> None:
    assert stack.answers_at_start == {
        "mlflow": 200,
        "webserver": 200,
        "api": 200,
        "api ready": 503,
        "web app": 200,
    }


def test_status_shows_every_service_running(stack: Stack) -> None:
    shown = stack.housing("status")
    assert shown.returncode == 0, shown.stderr
    assert dict(line.split() for line in shown.stdout.splitlines()) == dict.fromkeys(NAMES, "RUNNING")


def test_a_second_start_says_that_they_run_already(stack: Stack) -> None:
    before = stack.pid("api")
    again = stack.housing("up")
    assert again.returncode == 1
    assert "the services run already: make down stops them" in again.stderr
    assert stack.pid("api") == before


def test_a_killed_service_is_started_again(stack: Stack) -> None:
    killed = stack.pid("api")
    os.kill(killed, signal.SIGKILL)
    wait_for("another process of the api", lambda: stack.pid("api") not in (0, killed), 30)
    wait_for("its answer", lambda: answers(stack), 30)


def answers(stack: Stack) -> bool:
    """Whether the API's port accepts a connection."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", stack.port)) == 0


def test_a_taken_port_is_named_with_its_setting_before_anything_starts(other: Stack) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", other.dagster_port))
        taken.listen()
        refused = other.housing("up")
    assert refused.returncode == 1
    assert f"port {other.dagster_port} of dagster-webserver is in use" in refused.stderr
    assert "set DAGSTER_PORT to a free one" in refused.stderr
    assert not (other.home / "services").exists()
    assert remnants(other.settings) == []


def test_a_service_that_cannot_start_is_shown_with_the_end_of_its_log(other: Stack) -> None:
    (other.home / "mlflow").mkdir(parents=True)
    (other.home / "mlflow" / "mlflow.db").write_bytes(b"this is no database, and long enough to be read" * 99)
    failed = other.housing("up")
    assert failed.returncode == 1
    assert "mlflow ended while it started; the end of" in failed.stderr
    assert str(other.home / "services" / "mlflow.log") in failed.stderr
    assert "file is not a database" in failed.stderr
    assert remnants(other.settings) == []
    assert other.housing("status").returncode == 1


def test_down_ends_every_process_even_those_of_a_killed_daemon(other: Stack) -> None:
    started = other.housing("up")
    assert started.returncode == 0, started.stderr
    daemon = other.pid("dagster-daemon")
    processes = other.processes()
    left_behind = [child.pid for child in psutil.Process(daemon).children()]
    os.kill(daemon, signal.SIGKILL)
    wait_for("another daemon", lambda: other.pid("dagster-daemon") not in (0, daemon), 60)
    assert [pid for pid in left_behind if alive(pid)], "the killed daemon left no code server behind"
    processes += other.processes()

    stopped = other.housing("down")
    assert (stopped.returncode, stopped.stdout.strip()) == (0, "stopped")
    assert len({process.pid for process in processes}) >= 9
    assert [process.pid for process in processes if alive(process.pid)] == []
    assert other.housing("down").stdout.strip() == "nothing was running"
    assert other.housing("status").returncode == 1
