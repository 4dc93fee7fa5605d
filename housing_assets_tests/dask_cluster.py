"""A real Dask cluster for tests: a scheduler and worker processes, started as people start them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from distributed import Client

from housing_assets.engines import DaskEngine
from housing_assets_tests.conftest import free_port

START_SECONDS = 60.0


class DaskCluster:
    """A scheduler on a free port, and workers of one thread each; what they say is in `folder`."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._folder = folder
        self.port = free_port()
        self.processes = [
            self._start(
                "scheduler", "scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"
            )
        ]
        for number in range(workers):
            self.add_worker(number)

    @property
    def address(self) -> str:
        """As `HOUSING_COMPUTE` names it."""
        return f"dask://127.0.0.1:{self.port}"

    @property
    def workers(self) -> list["subprocess.Popen[bytes]"]:
        """The worker processes, in the order of their start."""
        return self.processes[1:]

    def add_worker(self, number: int) -> None:
        """Start one more worker; it has no nanny, so nobody starts it again."""
        place = ("--host", "127.0.0.1", "--local-directory", str(self._folder), "--no-dashboard")
        scheduler = f"tcp://127.0.0.1:{self.port}"
        self.processes.append(
            self._start(f"worker-{number}", "worker", scheduler, "--no-nanny", "--nthreads", "1", *place)
        )

    def wait_until_ready(self) -> None:
        """Until the scheduler answers and every worker has reported."""
        with Client(f"tcp://127.0.0.1:{self.port}", timeout=START_SECONDS, set_as_default=False) as client:
            if self.workers:
                client.wait_for_workers(len(self.workers), timeout=START_SECONDS)

    def stop(self) -> None:
        """SIGKILL all processes: they keep nothing."""
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
            process.wait()

    def _start(self, name: str, *arguments: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen([sys.executable, "-m", "dask", *arguments], stdout=log, stderr=log)


@contextmanager
def dask_cluster(folder: Path, workers: int = 2) -> Iterator[DaskCluster]:
    """A cluster whose workers have all reported."""
    cluster = DaskCluster(folder, workers)
    try:
        cluster.wait_until_ready()
        yield cluster
    finally:
        cluster.stop()


def killing(victims: Path, fatal: Collection[str], work: Any, item: Any) -> Any:
    """Do a piece of work; whoever is first at a fatal one is killed once it is done, before it is told."""
    result = work(item)
    name = work.func.__name__
    if name in fatal:
        try:
            (victims / name).touch(exist_ok=False)
        except FileExistsError:
            return result
        os.kill(os.getpid(), signal.SIGKILL)
    return result


class KillingEngine(DaskEngine):
    """A cluster that loses a worker amid each kind of fatal work; a file in `victims` says that it has."""

    def __init__(self, cluster: DaskCluster, victims: Path, fatal: Collection[str]) -> None:
        super().__init__(f"127.0.0.1:{cluster.port}")
        self._victims, self._fatal = victims, fatal

    def map(self, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """As any cluster does."""
        return super().map(partial(killing, self._victims, self._fatal, work), items)
