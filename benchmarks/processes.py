"""Servers as real processes: started, ready, idle again after a load, stopped."""

import http
import http.client
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.measuring import MeasurementRefused
from housing_serving.settings import ServingSettings

HOST = "127.0.0.1"
START_SECONDS = 90.0
# A server that was asked for more than it can answer works on what is left for this long at most.
IDLE_SECONDS = 180.0
POLL_SECONDS = 0.005
# Longer than the kernel's clock tick, in which processor time is counted.
QUIET_SECONDS = 0.05
TAIL_LINES = 20


@dataclass(frozen=True)
class Command:
    """How to start a server.

    Attributes:
        arguments: program and arguments; `{port}` stands for the port.
        environment: variables beside those of this process, which keeps the service's own to itself.
        ready_path: answers 200 once predictions are answered.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    ready_path: str = "/health/ready"


@dataclass(frozen=True)
class Server:
    """A running server that was ready `start_seconds` after it was started."""

    process: psutil.Popen
    port: int
    start_seconds: float
    log: Path

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"http://{HOST}:{self.port}{path}"

    def resident_bytes(self) -> int:
        """Memory that the server and its children hold now."""
        return sum(one.memory_info().rss for one in self._all())

    def insist_on_running(self) -> None:
        """Check that the process is still there.

        Raises:
            MeasurementRefused: it has ended.
        """
        if self.process.poll() is not None:
            raise MeasurementRefused(_ended(self.process, self.log))

    def wait_until_idle(self) -> None:
        """Wait until no processor time is spent any more.

        Raises:
            MeasurementRefused: it is still busy after minutes.
        """
        deadline = time.monotonic() + IDLE_SECONDS
        spent = self._processor_seconds()
        while time.monotonic() < deadline:
            time.sleep(QUIET_SECONDS)
            before, spent = spent, self._processor_seconds()
            if spent == before:
                return
        raise MeasurementRefused(f"the server is still busy after {IDLE_SECONDS:.0f} s:\n{_tail(self.log)}")

    def _processor_seconds(self) -> float:
        return sum(sum(one.cpu_times()[:2]) for one in self._all())

    def _all(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def running(command: Command, folder: Path) -> Iterator[Server]:
    """A server on a free port, from its readiness to the end of the block.

    Args:
        command: How to start it.
        folder: Its working directory, where its output goes to `server.log`.

    Raises:
        MeasurementRefused: it ends or is not ready in time.
    """
    port = _free_port()
    log = folder / "server.log"
    with log.open("ab") as output:
        started = time.perf_counter()
        process = psutil.Popen(
            [argument.format(port=port) for argument in command.arguments],
            env=_environment(command, port, folder),
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    try:
        _wait_until_ready(process, port, command.ready_path, log)
        yield Server(process, port, time.perf_counter() - started, log)
    finally:
        _stop(process)


def _environment(command: Command, port: int, folder: Path) -> dict[str, str]:
    # What is measured must not depend on which model or bucket is set up on this machine.
    ours = {name.upper() for name in ServingSettings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    own = {name: value.format(port=port) for name, value in command.environment.items()}
    # A killed server leaves its temporary files behind.
    return {**kept, "TMPDIR": str(folder), **own}


def _wait_until_ready(process: psutil.Popen, port: int, path: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_ready(port, path):
        if process.poll() is not None:
            raise MeasurementRefused(_ended(process, log))
        if time.monotonic() > deadline:
            raise MeasurementRefused(f"the server is not ready after {START_SECONDS:.0f} s:\n{_tail(log)}")
        time.sleep(POLL_SECONDS)


def _is_ready(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _ended(process: psutil.Popen, log: Path) -> str:
    return f"the server ended with status {process.returncode}:\n{_tail(log)}"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])


def _stop(process: psutil.Popen) -> None:
    # What is measured has been measured: nothing needs to be finished.
    family = [*process.children(recursive=True), process] if process.poll() is None else []
    for one in family:
        one.kill()
    psutil.wait_procs(family)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
