"""Folder, disk, ports and processes of this machine."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import requests

from housing_assets.doctor.findings import Finding, error, or_ok, warning
from housing_assets.services import is_up
from housing_assets.settings import Settings
from housing_assets.supervision import LOOPBACK, remnants

# A training writes some 100 MB; a machine without a gigabyte stops in all kinds of places.
LEAST_FREE_BYTES = 1_000_000_000
FEW_FREE_BYTES = 5_000_000_000
ANSWER_SECONDS = 2.0


def check_home(settings: Settings) -> Iterator[Finding]:
    """Whether state can be written below HOUSING_HOME."""
    home = settings.home.resolve()
    mend = "set HOUSING_HOME to a folder that this user may write to"
    wrong = []
    try:
        with tempfile.TemporaryFile(dir=_existing(home)):
            pass
    except OSError as problem:
        wrong.append(error("home", f"HOUSING_HOME {home} cannot be written: {problem.strerror}", mend))
    yield from or_ok("home", wrong, str(home))


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Whether there is room for what a training writes."""
    place = _existing(settings.home.resolve())
    free = shutil.disk_usage(place).free
    text = f"{free / 1e9:.1f} GB are free at {place}"
    mend = "delete what is not needed (old runs lie below HOUSING_HOME), or set HOUSING_HOME to a larger disk"
    few = []
    if free < LEAST_FREE_BYTES:
        few.append(error("disk", text, mend))
    elif free < FEW_FREE_BYTES:
        few.append(warning("disk", text, mend))
    yield from or_ok("disk", few, text)


def _existing(path: Path) -> Path:
    """The folder itself, or the one in which it would be made."""
    return next(place for place in (path, *path.parents) if place.exists())


def check_ports(settings: Settings) -> Iterator[Finding]:
    """Whether the services' ports differ, and are free unless the services use them."""
    yield from or_ok("ports", _wrong_ports(settings), "all differ, and are free or ours")


def _wrong_ports(settings: Settings) -> Iterator[Finding]:
    ports = {
        "PORT": settings.port,
        "DAGSTER_PORT": settings.dagster_port,
        "MLFLOW_PORT": settings.mlflow_port,
        "WEBAPP_PORT": settings.webapp_port,
        "HOUSING_EXPORTER_PORT": settings.exporter_port,
    }
    for port in sorted(set(ports.values())):
        names = [name for name, value in ports.items() if value == port]
        if len(names) > 1:
            yield error("ports", f"{' and '.join(names)} are both {port}", f"set {names[-1]} to another port")
        elif not is_up(settings) and _taken(port) and not _is_ours(port):
            mend = f"stop what uses it, or set {names[0]} to a free one"
            yield error("ports", f"port {port} ({names[0]}) is in use", mend)


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def _is_ours(port: int) -> bool:
    """Whether a prediction service, or an exporter, that somebody has started alone answers there."""
    for path, sign in (("/health", '"model_loaded"'), ("/metrics", "housing_")):
        try:
            answer = requests.get(f"http://{LOOPBACK}:{port}{path}", timeout=ANSWER_SECONDS)
        except requests.RequestException:
            return False
        if answer.ok and sign in answer.text:
            return True
    return False


def check_processes(settings: Settings) -> Iterator[Finding]:
    """Whether processes of an earlier start are left, which nothing watches any more."""
    left = [] if is_up(settings) else remnants(settings)
    wrong = []
    if left:
        ids = ", ".join(str(process.pid) for process in left)
        wrong.append(
            error("processes", f"processes of an earlier `housing up` are left: {ids}", "housing down")
        )
    yield from or_ok("processes", wrong, "nothing is left of an earlier start")
