"""The service as operators run it: a process of its own on a free port, with a small bundle."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from housing_assets_tests.conftest import free_port
from housing_assets_tests.serving.bundles import bundle_files, write_files
from housing_serving.settings import ServingSettings

START_SECONDS = 60.0
END_SECONDS = 30.0


@dataclass(frozen=True)
class RunningService:
    """A service that answers.

    Attributes:
        url: where, without a slash at the end.
        log: the file with everything it printed.
        pid: of the process that was started; with several workers, of their parent.
    """

    url: str
    log: Path
    pid: int


@contextmanager
def running_service(folder: Path, **variables: str) -> Iterator[RunningService]:
    """A service that is ready; `variables` are added to an environment without any setting of it."""
    port = free_port()
    log = folder / "service.log"
    inherited = {
        name: value for name, value in os.environ.items() if name.lower() not in ServingSettings.model_fields
    }
    bundle = write_files(folder / "bundle", bundle_files(kind="compiled", version=3, explained=True))
    settings = {
        "PORT": str(port),
        "LOCAL_MODEL_PATH": str(bundle),
        "HOUSING_HOME": str(folder / "home"),
        "HOUSING_DRAIN_SECONDS": "0",
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "housing_serving"],
            env=inherited | settings | variables,
            cwd=folder,
            stdout=output,
            stderr=output,
        )
        try:
            service = RunningService(f"http://127.0.0.1:{port}", log, process.pid)
            _wait_until_ready(service, process)
            yield service
            process.terminate()
            process.wait(END_SECONDS)
        finally:
            process.kill()
            process.wait()


def _wait_until_ready(service: RunningService, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_ready(service.url):
        assert process.poll() is None, f"the service ended: {service.log.read_text()}"
        assert time.monotonic() < deadline, f"the service is not ready: {service.log.read_text()}"
        time.sleep(0.05)


def _is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/health/ready", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False
