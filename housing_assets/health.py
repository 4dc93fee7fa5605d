"""Whether a service that `make up` has started does its work, asked from outside as people would."""

from typing import Any, cast

import requests

from housing_assets.settings import Settings
from housing_assets.supervision import LOOPBACK, Service, ServiceError

DAEMON_HEALTH = "{instance {daemonHealth {allDaemonStatuses {daemonType required lastHeartbeatTime}}}}"
CODE_HEALTH = """{workspaceOrError {... on Workspace {locationEntries {
  loadStatus locationOrLoadError {... on PythonError {message}}}}}}"""


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
