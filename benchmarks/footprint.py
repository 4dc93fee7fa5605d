"""What the service needs: memory over many predictions, and its environment on disk."""

import http
import http.client
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring import MeasurementRefused
from benchmarks.processes import HOST, Server

REPOSITORY = Path(__file__).parent.parent
PREDICT = "/api/v1/predict"
HEADERS = {"Content-Type": "application/json"}
SAMPLES = 50
# By then caches, buffers and the allocator have reached their size.
WARM_FRACTION = 0.2
LOCK = REPOSITORY / "requirements.lock"


def resident_while_predicting(
    server: Server, bodies: Sequence[bytes], size: int, predictions: int
) -> list[int]:
    """Resident bytes, sampled evenly over many predictions on one connection.

    Args:
        server: The service.
        bodies: Asked for in turn.
        size: Instances in each body.
        predictions: How many prices to ask for.

    Raises:
        MeasurementRefused: a request was not answered with that many prices.
    """
    requests = max(1, predictions // size)
    every = max(1, requests // SAMPLES)
    connection = http.client.HTTPConnection(HOST, server.port, timeout=60)
    samples = []
    try:
        for number in range(requests):
            connection.request("POST", PREDICT, bodies[number % len(bodies)], HEADERS)
            response = connection.getresponse()
            content = response.read()
            if response.status != http.HTTPStatus.OK or content.count(b'"predicted_price"') != size:
                raise MeasurementRefused(f"request {number}: status {response.status}, {content[:200]!r}")
            if (number + 1) % every == 0:
                samples.append(server.resident_bytes())
    finally:
        connection.close()
    return samples


def growth(samples: Sequence[int]) -> int:
    """By how many bytes memory grew after the first fifth of the run, to its highest later sample."""
    warm = round(WARM_FRACTION * len(samples))
    return max(samples[warm:]) - max(samples[: warm + 1])


def environment_bytes() -> int:
    """Disk space of a new environment with the service and its locked dependencies, and nothing else.

    Raises:
        MeasurementRefused: it cannot be made.
    """
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        # The versions without their hashes: pip wants hashes for all or none, and this project has none.
        pinned = [line.removesuffix("\\") for line in LOCK.read_text().splitlines() if "--hash" not in line]
        constraints.write_text("\n".join(pinned))
        environment = Path(folder) / "environment"
        # Installed from outside: pip would be a tenth of the environment, and serves nothing.
        _run(sys.executable, "-m", "venv", "--without-pip", str(environment))
        pip = (sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"))
        _run(*pip, "install", "--quiet", "--constraint", str(constraints), f"{REPOSITORY}[serving]")
        files = (path for path in environment.rglob("*") if path.is_file() and not path.is_symlink())
        return sum(path.stat().st_blocks * 512 for path in files)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MeasurementRefused(f"{' '.join(command[:4])} failed:\n{done.stderr[-2_000:]}")
