"""The services of `make up`: MLflow, Dagster webserver and daemon, the API and, if installed, the web app.

Which programs they are with this deployment's settings, and how they start and stop together.
"""

import socket
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from housing_assets.health import answers
from housing_assets.instance import create_databases, prepare_instance
from housing_assets.mlflow_runs import create_database
from housing_assets.settings import Settings
from housing_assets.supervision import (
    LOOPBACK,
    Service,
    ServiceError,
    end_remnants,
    is_up,
    log_file,
    process_infos,
    remnants,
    start_supervisor,
    states,
    stop_supervisor,
)

__all__ = ["Service", "ServiceError", "down", "is_up", "services", "states", "up"]

START_TIMEOUT_SECONDS = 180.0
LOG_LINES = 15


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
        Service(
            "api",
            (sys.executable, "-m", "housing_serving"),
            settings.port,
            "PORT",
            "/health",
            # Dagster's web server would take it as its own, and end.
            variables=("WEB_CONCURRENCY",),
        ),
    ]
    if find_spec("streamlit") is not None:
        listed.append(webapp_service(settings))
    return [mlflow_service(settings), *listed] if serves_mlflow(settings) else listed


def webapp_service(settings: Settings) -> Service:
    """The web app, which asks the API of this deployment unless HOUSING_API_URL names another."""
    command = (sys.executable, "-m", "housing_serving.webapp")
    return Service("webapp", command, settings.webapp_port, "WEBAPP_PORT", "/_stcore/health")


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
    """The tracking server: SQLite behind it, artifacts on the storage root.

    New experiments get the storage root itself as their place, not the server's address, so that runs which
    open the SQLite file directly find the same artifacts.
    """
    root = settings.storage_root
    artifacts = f"{root if '://' in root else Path(root).as_uri()}/mlflow"
    command = (
        *(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(settings.mlflow_port)),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{settings.mlflow_database}"),
        *("--default-artifact-root", artifacts, "--artifacts-destination", artifacts),
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
    if serves_mlflow(settings):
        create_database(settings.mlflow_database)
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
        stop_supervisor(settings)
    return end_remnants(settings) or was_up


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
