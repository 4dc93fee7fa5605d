"""The parts of the system that run in containers of their own: what each executes, how its health is asked.

Each runs in the foreground, in place of the `housing` command, so that signals reach it. It listens on HOST
and PORT, and writes nowhere but under HOUSING_HOME and the folder for temporary files.
"""

import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import yaml

from housing_assets.containers_cli import Part
from housing_assets.instance import create_databases, prepare_instance, with_driver
from housing_assets.mlflow_runs import SQLITE, create_database
from housing_assets.services import workspace_file
from housing_assets.settings import POSTGRES_VARIABLE, Settings
from housing_assets.supervision import LOOPBACK

PROBE_SECONDS = 5.0
LOCATION = "housing"
MODULE = "housing_assets.definitions"


# What answers 200 while the part is well, of those that answer HTTP.
HEALTH_PATHS = {Part.WEBSERVER: "/server_info", Part.MLFLOW: "/health"}


def run(part: Part, settings: Settings) -> None:
    """Become the part; this process is its program then."""
    if part is Part.MLFLOW:
        os.environ["MLFLOW_BACKEND_STORE_URI"] = backend_store_uri(settings)
    else:
        prepare_instance(settings)
        create_databases()
    if part in (Part.WEBSERVER, Part.DAEMON):
        workspace_file(settings).write_text(workspace(settings), encoding="utf-8")
    program = command(part, settings)
    # A shell's background job ignores Ctrl-C, and Dagster's programs then ignore SIGTERM as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Of the programs, Dagster's web server would take it as its own.
    os.environ.pop("WEB_CONCURRENCY", None)
    os.execv(program[0], program)  # noqa: S606


def command(part: Part, settings: Settings) -> list[str]:
    """The part's program and its arguments; secrets are in its environment alone."""
    tools = Path(sys.executable).parent
    address = ["--host", settings.host, "--port", str(settings.port)]
    graph = ["--workspace", str(workspace_file(settings))]
    match part:
        case Part.WEBSERVER:
            return [str(tools / "dagster-webserver"), *graph, *address]
        case Part.DAEMON:
            return [str(tools / "dagster-daemon"), "run", *graph]
        case Part.CODE:
            module = ["--module-name", MODULE, "--location-name", LOCATION]
            return [str(tools / "dagster"), "api", "grpc", *address, *module]
        case Part.MLFLOW:
            root = settings.storage_root
            artifacts = f"{root if '://' in root else Path(root).as_uri()}/mlflow"
            places = ["--default-artifact-root", artifacts, "--artifacts-destination", artifacts]
            return [str(tools / "mlflow"), "server", *address, "--workers", "1", *places]


def workspace(settings: Settings) -> str:
    """Where webserver and daemon find the graph: at the code server, or in the package beside them."""
    location: dict[str, dict[str, str | int]]
    if settings.code_server is None:
        location = {"python_module": {"module_name": MODULE, "location_name": LOCATION}}
    else:
        host, _, port = settings.code_server.rpartition(":")
        location = {"grpc_server": {"host": host, "port": int(port), "location_name": LOCATION}}
    return f"# Written by `housing run`.\n{yaml.safe_dump({'load_from': [location]})}"


def backend_store_uri(settings: Settings) -> str:
    """Where MLflow keeps its records."""
    if settings.mlflow_backend_store_uri is not None:
        return with_driver(settings.mlflow_backend_store_uri.get_secret_value())
    create_database(settings.mlflow_database)
    return f"{SQLITE}{settings.mlflow_database}"


def problem(part: Part, settings: Settings) -> str | None:
    """What is wrong with the part in this container; None when it is well."""
    if part in HEALTH_PATHS:
        return _http_problem(f"http://{LOOPBACK}:{settings.port}{HEALTH_PATHS[part]}")
    tools = Path(sys.executable).parent
    checks = {
        Part.DAEMON: [str(tools / "dagster-daemon"), "liveness-check"],
        Part.CODE: [str(tools / "dagster"), "api", "grpc-health-check", "--port", str(settings.port)],
    }
    environment = {**os.environ, "DAGSTER_HOME": str(settings.dagster_home)}
    if settings.dagster_postgres_url is not None:
        environment[POSTGRES_VARIABLE] = with_driver(settings.dagster_postgres_url.get_secret_value())
    asked = subprocess.run(checks[part], env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if asked.returncode == 0:
        return None
    said = (asked.stderr.strip() or asked.stdout.strip()).splitlines()
    return f"{shlex.join(checks[part][-3:])}: {said[-1] if said else f'exit code {asked.returncode}'}"


def _http_problem(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS):  # noqa: S310
            return None
    except OSError as error:
        return f"{url}: {error}"
