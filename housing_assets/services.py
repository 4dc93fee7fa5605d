"""The services of `make up`, run by supervisord: MLflow, Dagster webserver and daemon, and the API.

supervisord restarts what dies and stops whole process groups; this module writes its configuration, waits
until every service answers, and stops it.
"""

import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable, Mapping
from configparser import RawConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from supervisor.xmlrpc import SupervisorTransport
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from housing_assets.instance import prepare_instance
from housing_assets.settings import Settings

START_TIMEOUT_SECONDS = 180.0
STOP_TIMEOUT_SECONDS = 60.0
LOOPBACK = "127.0.0.1"


class ServiceError(RuntimeError):
    """A service does not start or stop; the message names it and its log."""


@dataclass(frozen=True)
class Service:
    """One program: its command, and the URL that answers when it is up (none: running is enough)."""

    name: str
    command: tuple[str, ...]
    port: int | None = None
    port_setting: str | None = None
    health_path: str = "/"

    @property
    def url(self) -> str | None:
        """Where people find it."""
        return None if self.port is None else f"http://{LOOPBACK}:{self.port}"


def services(settings: Settings) -> list[Service]:
    """The programs of this deployment, in start order."""
    tools = Path(sys.executable).parent
    workspace = ("-w", "workspace.yaml")
    listed = [
        Service(
            "dagster-webserver",
            (str(tools / "dagster-webserver"), *workspace, "-h", LOOPBACK, "-p", str(settings.dagster_port)),
            settings.dagster_port,
            "DAGSTER_PORT",
            "/server_info",
        ),
        Service("dagster-daemon", (str(tools / "dagster-daemon"), "run", *workspace)),
        Service("api", (sys.executable, "-m", "housing_serving"), settings.port, "PORT", "/health"),
    ]
    return [mlflow_service(settings), *listed] if serves_mlflow(settings) else listed


def serves_mlflow(settings: Settings) -> bool:
    """Whether this machine is to run the tracking server: no other one is configured."""
    if settings.mlflow_tracking_uri is None:
        return True
    address = urlsplit(settings.mlflow_tracking_uri)
    return address.hostname in (LOOPBACK, "localhost") and address.port == settings.mlflow_port


def mlflow_service(settings: Settings) -> Service:
    """The tracking server: SQLite behind it, artifacts on the storage root."""
    database = (settings.home / "mlflow" / "mlflow.db").resolve()
    database.parent.mkdir(parents=True, exist_ok=True)
    command = (
        *(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(settings.mlflow_port)),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{database}"),
        *("--artifacts-destination", f"{settings.storage_root}/mlflow"),
    )
    return Service("mlflow", command, settings.mlflow_port, "MLFLOW_PORT", "/health")


def up(settings: Settings, report: Callable[[str, str], None]) -> list[Service]:
    """Start every service and wait until all of them answer.

    Args:
        settings: the deployment.
        report: called with a service's name and what it now does.

    Raises:
        ServiceError: they run already, a port is taken, or a service does not come up.
    """
    if is_up(settings):
        raise ServiceError("the services run already: make down stops them")
    wanted = services(settings)
    for service in wanted:
        refuse_taken_port(service)
    prepare_instance(settings)
    start_supervisor(settings, wanted)
    for service in wanted:
        report(service.name, "starting")
        wait_until_up(settings, service)
        report(service.name, service.url or "running")
    return wanted


def down(settings: Settings) -> bool:
    """Stop every service and wait until the last has ended; False when none ran."""
    if not is_up(settings):
        return False
    supervisor(settings).supervisor.shutdown()
    waiting = retry(
        stop=stop_after_delay(STOP_TIMEOUT_SECONDS), wait=wait_fixed(0.2), retry=retry_if_result(bool)
    )
    waiting(is_up)(settings)
    return True


def is_up(settings: Settings) -> bool:
    """Whether a supervisor of this `HOUSING_HOME` answers."""
    try:
        supervisor(settings).supervisor.getState()
    except (OSError, xmlrpc.client.Error):
        return False
    return True


def states(settings: Settings) -> dict[str, str]:
    """Each service's state as supervisord names it (RUNNING, STARTING, BACKOFF, FATAL …)."""
    listed = cast(list[dict[str, Any]], supervisor(settings).supervisor.getAllProcessInfo())
    return {str(info["name"]): str(info["statename"]) for info in listed}


def supervisor(settings: Settings) -> xmlrpc.client.ServerProxy:
    """The running supervisor's control interface."""
    transport = SupervisorTransport(None, None, f"unix://{control_socket(settings)}")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)


def control_socket(settings: Settings) -> Path:
    """Socket of the supervisor; in the temporary folder, since socket paths must stay short."""
    digest = hashlib.sha256(str(settings.home.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"housing-{os.getuid()}-{digest}.sock"


def refuse_taken_port(service: Service) -> None:
    """Fail before anything starts when a port is in use."""
    if service.port is None:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, service.port))
        except OSError as error:
            raise ServiceError(
                f"port {service.port} of {service.name} is in use: stop what uses it, or set "
                f"{service.port_setting} to a free one"
            ) from error


def start_supervisor(settings: Settings, wanted: list[Service]) -> None:
    """Write supervisord's configuration and start it in the background."""
    folder = settings.home.resolve() / "services"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "supervisord.conf"
    with path.open("w", encoding="utf-8") as file:
        supervisor_config(settings, wanted, folder).write(file)
    command = [str(Path(sys.executable).parent / "supervisord"), "-c", str(path)]
    started = subprocess.run(command, env=environment(settings), capture_output=True, text=True, check=False)  # noqa: S603
    if started.returncode != 0:
        raise ServiceError(f"supervisord did not start: {started.stderr.strip() or started.stdout.strip()}")


def supervisor_config(settings: Settings, wanted: list[Service], folder: Path) -> RawConfigParser:
    """supervisord's configuration: one program per service, restarted when it dies."""
    config = RawConfigParser()
    control = str(control_socket(settings))
    config["unix_http_server"] = {"file": control, "chmod": "0700"}
    config["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    config["supervisord"] = {
        "logfile": str(folder / "supervisord.log"),
        "pidfile": str(folder / "supervisord.pid"),
        "childlogdir": str(folder),
        "directory": str(Path.cwd()),
    }
    for service in wanted:
        config[f"program:{service.name}"] = {
            "command": " ".join(service.command).replace("%", "%%"),
            "autorestart": "true",
            "stopasgroup": "true",
            "killasgroup": "true",
            "stopwaitsecs": "15",
            "redirect_stderr": "true",
            "stdout_logfile": str(log_file(settings, service.name)),
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "2",
        }
    return config


def environment(settings: Settings) -> Mapping[str, str]:
    """What the services see: this environment, absolute folders, and the tracking server's address."""
    tracking = settings.mlflow_tracking_uri or f"http://{LOOPBACK}:{settings.mlflow_port}"
    return {
        **os.environ,
        "DAGSTER_HOME": str(settings.dagster_home),
        "HOUSING_HOME": str(settings.home.resolve()),
        "MLFLOW_TRACKING_URI": tracking,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
    }


def log_file(settings: Settings, name: str) -> Path:
    """Where a service's output goes."""
    return settings.home.resolve() / "services" / f"{name}.log"


def wait_until_up(settings: Settings, service: Service) -> None:
    """Return once the service runs and answers.

    Raises:
        ServiceError: it gave up, or did not answer in time; the message shows the end of its log.
    """
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        state = states(settings).get(service.name)
        if state == "FATAL":
            break
        if state == "RUNNING" and answers(service):
            return
        time.sleep(0.2)
    log = log_file(settings, service.name)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else "(no output)"
    raise ServiceError(f"{service.name} did not come up; the end of {log}:\n{tail}")


def answers(service: Service) -> bool:
    """Whether the service's health page answers with 200."""
    if service.url is None:
        return True
    try:
        return requests.get(service.url + service.health_path, timeout=2).ok
    except requests.RequestException:
        return False
