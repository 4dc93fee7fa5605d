"""supervisord as the parent of the services: its configuration, its control, and what it loses sight of.

supervisord restarts what dies and stops whole process groups. Every process that it starts carries a mark in
its environment, so that what a killed service left behind (a code server, a run's process) is found too.
"""

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import xmlrpc.client
from collections.abc import Mapping
from configparser import RawConfigParser
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
from supervisor.xmlrpc import SupervisorTransport
from tenacity import RetryError, retry, retry_if_result, stop_after_delay, wait_fixed

from housing_assets.settings import Settings

LOOPBACK = "127.0.0.1"
STOP_TIMEOUT_SECONDS = 60.0
# How long a process that supervisord no longer knows gets to end after SIGTERM, before SIGKILL.
REMNANT_TIMEOUT_SECONDS = 10.0
MARK = "HOUSING_SERVICES"


class ServiceError(RuntimeError):
    """A service does not start or stop; the message names it and its log."""


@dataclass(frozen=True)
class Service:
    """One program: its command, and the URL that answers when it is up (none: it sends heartbeats)."""

    name: str
    command: tuple[str, ...]
    port: int | None = None
    port_setting: str | None = None
    health_path: str = "/"
    # Variables that no other service sees.
    variables: tuple[str, ...] = ()

    @property
    def url(self) -> str | None:
        """Where people find it."""
        return None if self.port is None else f"http://{LOOPBACK}:{self.port}"


def start_supervisor(settings: Settings, wanted: list[Service]) -> None:
    """Write supervisord's configuration and start it in the background."""
    folder = settings.home.resolve() / "services"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "supervisord.conf"
    with path.open("w", encoding="utf-8") as file:
        supervisor_config(settings, wanted, folder).write(file)
    command = [str(Path(sys.executable).parent / "supervisord"), "-c", str(path)]
    started = subprocess.run(  # noqa: S603
        command, env=shared_environment(settings, wanted), capture_output=True, text=True, check=False
    )
    if started.returncode != 0:
        raise ServiceError(f"supervisord did not start: {started.stderr.strip() or started.stdout.strip()}")


def supervisor_config(settings: Settings, wanted: list[Service], folder: Path) -> RawConfigParser:
    """supervisord's configuration: one program per service, restarted when it dies."""
    config = RawConfigParser()
    config["unix_http_server"] = {"file": literal(control_socket(settings)), "chmod": "0700"}
    config["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    config["supervisord"] = {
        "logfile": literal(folder / "supervisord.log"),
        "pidfile": literal(folder / "supervisord.pid"),
        "childlogdir": literal(folder),
        # Relative paths in settings keep the meaning that they have for the `housing` command.
        "directory": literal(Path.cwd()),
    }
    for service in wanted:
        own = {name: os.environ[name] for name in service.variables if name in os.environ}
        config[f"program:{service.name}"] = {
            "environment": ",".join(f"{name}={literal(shlex.quote(value))}" for name, value in own.items()),
            "command": literal(shlex.join(service.command)),
            "autorestart": "true",
            "stopasgroup": "true",
            "killasgroup": "true",
            "stopwaitsecs": "20",
            "redirect_stderr": "true",
            # supervisord expands this one value twice.
            "stdout_logfile": literal(literal(log_file(settings, service.name))),
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "2",
        }
    return config


def shared_environment(settings: Settings, wanted: list[Service]) -> Mapping[str, str]:
    """What all services see: without what is one service's own, such as WEB_CONCURRENCY."""
    own = {name for service in wanted for name in service.variables}
    return {name: value for name, value in environment(settings).items() if name not in own}


def literal(value: Path | str) -> str:
    """A value as supervisord's configuration spells it: it expands `%(name)s`."""
    return str(value).replace("%", "%%")


def environment(settings: Settings) -> Mapping[str, str]:
    """What the services see: this environment, absolute folders, and the tracking server's address."""
    tracking = settings.mlflow_tracking_uri or f"http://{LOOPBACK}:{settings.mlflow_port}"
    return {
        **os.environ,
        "DAGSTER_HOME": str(settings.dagster_home),
        "HOUSING_HOME": str(settings.home.resolve()),
        MARK: mark(settings),
        "MLFLOW_TRACKING_URI": tracking,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
    }


def log_file(settings: Settings, name: str) -> Path:
    """Where a service's output goes."""
    return settings.home.resolve() / "services" / f"{name}.log"


def stop_supervisor(settings: Settings) -> None:
    """Ask supervisord to stop its services and itself, and wait until it has.

    Raises:
        ServiceError: it does not end.
    """
    with supervisor(settings) as control:
        control.supervisor.shutdown()
    waiting = retry(
        stop=stop_after_delay(STOP_TIMEOUT_SECONDS), wait=wait_fixed(0.2), retry=retry_if_result(bool)
    )
    try:
        waiting(is_up)(settings)
    except RetryError as error:
        log = settings.home.resolve() / "services" / "supervisord.log"
        raise ServiceError(
            f"supervisord has not stopped within {STOP_TIMEOUT_SECONDS:.0f} s, see {log}"
        ) from error


def is_up(settings: Settings) -> bool:
    """Whether a supervisor of this `HOUSING_HOME` answers."""
    try:
        with supervisor(settings) as control:
            control.supervisor.getState()
    except (OSError, xmlrpc.client.Error):
        return False
    return True


def states(settings: Settings) -> dict[str, str]:
    """Each service's state as supervisord names it (RUNNING, STARTING, BACKOFF, FATAL …)."""
    return {name: str(info["statename"]) for name, info in process_infos(settings).items()}


def process_infos(settings: Settings) -> dict[str, dict[str, Any]]:
    """What supervisord knows of each service: `statename`, `pid`, `start` (epoch seconds) and more."""
    with supervisor(settings) as control:
        listed = cast(list[dict[str, Any]], control.supervisor.getAllProcessInfo())
    return {str(info["name"]): info for info in listed}


def supervisor(settings: Settings) -> xmlrpc.client.ServerProxy:
    """The running supervisor's control interface."""
    transport = SupervisorTransport(None, None, f"unix://{control_socket(settings)}")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)


def control_socket(settings: Settings) -> Path:
    """Socket of the supervisor; in the temporary folder, since socket paths must stay short."""
    return Path(tempfile.gettempdir()) / f"housing-{os.getuid()}-{mark(settings)}.sock"


def remnants(settings: Settings) -> list[psutil.Process]:
    """Processes that carry the mark of this `HOUSING_HOME`, whoever is their parent by now."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARK) == mark(settings)
        except (psutil.Error, OSError):
            continue
        # This process carries it too when a service's own environment was used to start it.
        if marked and process.pid != os.getpid():
            found.append(process)
    return found


def end_remnants(settings: Settings) -> bool:
    """Stop what is left: SIGTERM, then SIGKILL; False when nothing was."""
    left = remnants(settings)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(left, timeout=REMNANT_TIMEOUT_SECONDS)
    # Asked again, since a process can have started another one in between.
    survivors = remnants(settings)
    for process in survivors:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(survivors, timeout=REMNANT_TIMEOUT_SECONDS)
    return bool(left)


def mark(settings: Settings) -> str:
    """Value of the environment variable by which processes of this `HOUSING_HOME` are known."""
    return hashlib.sha256(str(settings.home.resolve()).encode()).hexdigest()[:16]
