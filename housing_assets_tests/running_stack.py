"""A running stack for tests: what `housing up` starts, on free ports, used as people use it.

Runs are started and watched through the webserver's GraphQL API, as the Dagster UI does.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
import requests

from housing_assets.settings import Settings
from housing_assets.supervision import process_infos

if TYPE_CHECKING:
    from mlflow import MlflowClient

POLL_SECONDS = 0.3
LOCATION = {"repositoryLocationName": "housing", "repositoryName": "__repository__"}
RUNS = """query {runsOrError(limit: 100) {... on Runs {results {
  runId status parentRunId tags {key value} stepStats {stepKey status}}}}}"""
BACKFILL = """query ($id: String!) {partitionBackfillOrError(backfillId: $id) {... on PartitionBackfill {
  status error {message} runs(limit: 50) {runId status}
  assetBackfillData {assetBackfillStatuses {... on AssetPartitionsStatusCounts {
    assetKey {path} numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed}}}}}}"""

Found = TypeVar("Found")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def wait_for(what: str, look: Callable[[], Found | None], seconds: float) -> Found:
    """What `look` returns as soon as that is truthy."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Stack:
    """The services of one `HOUSING_HOME`, started by `housing up` from a folder that is not the checkout."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.port, self.dagster_port, self.mlflow_port, self.webapp_port = free_ports(4)
        ours = {
            "HOUSING_HOME": str(self.home),
            "PORT": str(self.port),
            "DAGSTER_PORT": str(self.dagster_port),
            "MLFLOW_PORT": str(self.mlflow_port),
            "WEBAPP_PORT": str(self.webapp_port),
            **settings,
        }
        known = {str(field.validation_alias) for field in Settings.model_fields.values()}
        # Measuring coverage makes every process a third slower, and a killed one loses it anyway.
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in known and not name.startswith("COVERAGE")
        }
        self.environment = {**inherited, "DAGSTER_HOME": str(self.home / "dagster"), **ours}
        self.settings = Settings.model_validate(ours)
        self.answers_at_start: dict[str, int] = {}

    def housing(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the `housing` command."""
        return self.run([str(Path(sys.executable).parent / "housing"), *arguments])

    def run(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command in the stack's environment."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )

    def answers(self) -> dict[str, int]:
        """Status codes of the pages that tell how the services are."""
        pages = {
            "mlflow": f"{self.mlflow_port}/health",
            "webserver": f"{self.dagster_port}/server_info",
            "api": f"{self.port}/health",
            "api ready": f"{self.port}/health/ready",
            "web app": f"{self.webapp_port}/_stcore/health",
        }
        return {
            name: requests.get(f"http://127.0.0.1:{page}", timeout=10).status_code
            for name, page in pages.items()
        }

    def processes(self) -> list[psutil.Process]:
        """supervisord, every service, and everything that they have started."""
        top = psutil.Process(int((self.home / "services" / "supervisord.pid").read_text()))
        return [top, *top.children(recursive=True)]

    def pid(self, service: str) -> int:
        """Process id of a running service; 0 while it does not run."""
        info = process_infos(self.settings)[service]
        return int(info["pid"]) if info["statename"] == "RUNNING" else 0

    def graphql(self, query: str, **variables: object) -> dict[str, Any]:
        """The data that the webserver answers with."""
        response = requests.post(
            f"http://127.0.0.1:{self.dagster_port}/graphql",
            json={"query": query, "variables": variables},
            timeout=60,
        )
        body = response.json()
        assert "errors" not in body, body["errors"]
        data: dict[str, Any] = body["data"]
        return data

    def runs(self) -> dict[str, dict[str, Any]]:
        """Every Dagster run by id, the oldest first."""
        results = self.graphql(RUNS)["runsOrError"]["results"]
        for run in results:
            run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
            run["steps"] = {step["stepKey"]: step["status"] for step in run["stepStats"]}
        return {run["runId"]: run for run in reversed(results)}

    def wait_for_end(self, run_id: str, seconds: float) -> dict[str, Any]:
        """A run, once it has ended."""
        ends = ("SUCCESS", "FAILURE", "CANCELED")
        return wait_for(
            f"the end of run {run_id}",
            lambda: next((run for run in [self.runs()[run_id]] if run["status"] in ends), None),
            seconds,
        )

    def mlflow_client(self) -> "MlflowClient":
        """A client of the tracking server."""
        from mlflow import MlflowClient  # noqa: PLC0415  (seconds to import)

        return MlflowClient(f"http://127.0.0.1:{self.mlflow_port}")

    def backfill(self, backfill_id: str) -> dict[str, Any]:
        """A backfill's status, runs and partition counts."""
        found: dict[str, Any] = self.graphql(BACKFILL, id=backfill_id)["partitionBackfillOrError"]
        return found

    def run_worker(self, run_id: str) -> int:
        """Process id of the worker that executes a run; 0 while it has not said it."""
        query = """query ($id: ID!) {logsForRun(runId: $id) {... on EventConnection {events {
          ... on EngineEvent {metadataEntries {label ... on TextMetadataEntry {text}}}}}}}"""
        for event in self.graphql(query, id=run_id)["logsForRun"]["events"]:
            for entry in event.get("metadataEntries", []):
                if entry["label"] == "pid":
                    return int(entry["text"])
        return 0

    def messages(self, run_id: str) -> list[str]:
        """What a run's events say, the oldest first."""
        query = """query ($id: ID!) {logsForRun(runId: $id) {... on EventConnection {events {
          ... on MessageEvent {timestamp message}}}}}"""
        events = self.graphql(query, id=run_id)["logsForRun"]["events"]
        return [f"{int(event['timestamp']) / 1000:.1f} {event['message'][:400]}" for event in events if event]
