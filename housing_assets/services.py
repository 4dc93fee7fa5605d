"""The services of `make up`, run by supervisord: MLflow, Dagster webserver and daemon, and the API.

supervisord restarts what dies and stops whole process groups; this module writes its configuration, waits
until every service answers, and stops it. Every process it starts carries a mark in its environment, so that
what a killed service left behind (a code server, a run's process) is found and stopped too.
"""

import hashlib
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable, Mapping
from configparser import RawConfigParser
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import psutil
import requests
import yaml
from supervisor.xmlrpc import SupervisorTransport
from tenacity import RetryError, retry, retry_if_result, stop_after_delay, wait_fixed

from housing_assets.instance import create_databases, prepare_instance
from housing_assets.settings import Settings

START_TIMEOUT_SECONDS = 180.0
STOP_TIMEOUT_SECONDS = 60.0
# How long what supervisord no longer knows gets to end after SIGTERM, before SIGKILL.
REMNANT_TIMEOUT_SECONDS = 10.0
LOOPBACK = "127.0.0.1"
MARK = "HOUSING_SERVICES"
LOG_LINES = 15
DAEMON_HEALTH = "{instance {daemonHealth {allDaemonStatuses {daemonType required lastHeartbeatTime}}}}"
CODE_HEALTH = """{workspaceOrError {... on Workspace {locationEntries {
  loadStatus locationOrLoadError {... on PythonError {message}}}}}}"""


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

    @property
    def url(self) -> str | None:
        """Where people find it."""
        return None if self.port is None else f"http://{LOOPBACK}:{self.port}"


def services(settings: Settings) -> list[Service]:
    """The programs of this deployment, in start order."""
    tools = Path(sys.executable).parent
    workspace = ("-w", str(workspace_file(settings)))
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


def workspace_file(settings: Settings) -> Path:
    """Where Dagster reads which code to load; in the instance's folder, so that any folder can be current."""
    return settings.dagster_home / "workspace.yaml"


def write_workspace(settings: Settings) -> None:
    """Name the code by module, under the location name that `workspace.yaml` of the checkout uses."""
    module = {"module_name": "housing_assets.definitions", "location_name": "housing"}
    content = yaml.safe_dump({"load_from": [{"python_module": module}]})
    workspace_file(settings).write_text(f"# Written by `housing up`.\n{content}", encoding="utf-8")


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
    """Start every service and wait until all of them answer; when one does not, stop the others again.

    Args:
        settings: the deployment.
        report: called with a service's name and what it now does.

    Raises:
        ServiceError: they run already, a port is taken, or a service does not come up.
    """
    if is_up(settings):
        raise ServiceError("the services run already: make down stops them")
    if remnants(settings):
        raise ServiceError("processes of an earlier start are left: make down stops them")
    wanted = services(settings)
    for service in wanted:
        refuse_taken_port(service)
    prepare_instance(settings)
    write_workspace(settings)
    create_databases()
    start_supervisor(settings, wanted)
    try:
        for service in wanted:
            report(service.name, "starting")
            wait_until_up(settings, service)
            report(service.name, service.url or "running")
    except BaseException:
        down(settings)
        raise
    return wanted


def down(settings: Settings) -> bool:
    """Stop every service and wait until the last process has ended; False when none ran.

    Raises:
        ServiceError: supervisord does not end.
    """
    was_up = is_up(settings)
    if was_up:
        supervisor(settings).supervisor.shutdown()
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
    return end_remnants(settings) or was_up


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


def is_up(settings: Settings) -> bool:
    """Whether a supervisor of this `HOUSING_HOME` answers."""
    try:
        supervisor(settings).supervisor.getState()
    except (OSError, xmlrpc.client.Error):
        return False
    return True


def states(settings: Settings) -> dict[str, str]:
    """Each service's state as supervisord names it (RUNNING, STARTING, BACKOFF, FATAL …)."""
    return {name: str(info["statename"]) for name, info in process_infos(settings).items()}


def process_infos(settings: Settings) -> dict[str, dict[str, Any]]:
    """What supervisord knows of each service: `statename`, `pid`, `start` (epoch seconds) and more."""
    listed = cast(list[dict[str, Any]], supervisor(settings).supervisor.getAllProcessInfo())
    return {str(info["name"]): info for info in listed}


def supervisor(settings: Settings) -> xmlrpc.client.ServerProxy:
    """The running supervisor's control interface."""
    transport = SupervisorTransport(None, None, f"unix://{control_socket(settings)}")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)


def control_socket(settings: Settings) -> Path:
    """Socket of the supervisor; in the temporary folder, since socket paths must stay short."""
    return Path(tempfile.gettempdir()) / f"housing-{os.getuid()}-{mark(settings)}.sock"


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
        config[f"program:{service.name}"] = {
            "command": literal(shlex.join(service.command)),
            "autorestart": "true",
            "stopasgroup": "true",
            "killasgroup": "true",
            "stopwaitsecs": "15",
            "redirect_stderr": "true",
            "stdout_logfile": literal(log_file(settings, service.name)),
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "2",
        }
    return config


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


def wait_until_up(settings: Settings, service: Service) -> None:
    """Return once the service runs and answers.

    Raises:
        ServiceError: it ended, or did not answer in time; the message shows the end of its log.
    """
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    first_start = None
    while time.monotonic() < deadline:
        info = process_infos(settings)[service.name]
        first_start = first_start or info["start"]
        # supervisord would start it again and again; what ends before it has ever answered is not worth that.
        if info["statename"] in ("BACKOFF", "EXITED", "FATAL") or info["start"] != first_start:
            raise ServiceError(f"{service.name} ended while it started; {log_tail(settings, service)}")
        if info["statename"] == "RUNNING" and answers(settings, service, info["start"]):
            return
        time.sleep(0.2)
    raise ServiceError(
        f"{service.name} did not answer within {START_TIMEOUT_SECONDS:.0f} s; {log_tail(settings, service)}"
    )


def log_tail(settings: Settings, service: Service) -> str:
    """The end of a service's log, and where it is."""
    log = log_file(settings, service.name)
    lines = log.read_text(errors="replace").splitlines() if log.exists() else ["(no output)"]
    return f"the end of {log}:\n" + "\n".join(lines[-LOG_LINES:])


def answers(settings: Settings, service: Service, started: float) -> bool:
    """Whether the service does its work: the page answers, the code is loaded, heartbeats have been sent."""
    try:
        if service.url is None:
            return sends_heartbeats(settings, started)
        if not requests.get(service.url + service.health_path, timeout=2).ok:
            return False
        return service.port != settings.dagster_port or has_loaded_code(settings)
    except requests.RequestException:
        return False


def sends_heartbeats(settings: Settings, since: float) -> bool:
    """Whether every part of the daemon that this instance needs is alive, as the webserver sees it."""
    found = ask_webserver(settings, DAEMON_HEALTH)["instance"]["daemonHealth"]["allDaemonStatuses"]
    return all((daemon["lastHeartbeatTime"] or 0) >= since for daemon in found if daemon["required"])


def has_loaded_code(settings: Settings) -> bool:
    """Whether the webserver shows the graph.

    Raises:
        ServiceError: the code does not load; the message shows why.
    """
    [location] = ask_webserver(settings, CODE_HEALTH)["workspaceOrError"]["locationEntries"]
    if location["loadStatus"] != "LOADED":
        return False
    problem = location["locationOrLoadError"].get("message")
    if problem:
        raise ServiceError(f"Dagster cannot load the graph: {problem.strip()}")
    return True


def ask_webserver(settings: Settings, query: str) -> dict[str, Any]:
    """What the webserver's GraphQL API answers."""
    url = f"http://{LOOPBACK}:{settings.dagster_port}/graphql"
    response = requests.post(url, json={"query": query}, timeout=10)
    response.raise_for_status()
    return cast(dict[str, Any], response.json()["data"])
