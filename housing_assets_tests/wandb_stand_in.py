"""A stand-in for W&B: knows just enough of the protocol for the real client to log runs and run sweeps.

It tests our use of the client, not W&B: what a real server would choose and stop is up to that server.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import yaml

from housing_assets_tests.scripted_http import ScriptedHandler, ScriptedServer

ENTITY, PROJECT = {"id": "e", "name": "team"}, {"id": "p"}


def operation_of(message: dict[str, Any]) -> str:
    """The name of a GraphQL operation, which one half of the client gives only in the text of the query."""
    named = re.match(r"\s*(?:query|mutation)\s+(\w+)", message["query"])
    return str(message.get("operationName") or (named and named[1]))


@dataclass
class KeptRun:
    """What the client has told about one run."""

    fields: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class WandbStandIn:
    """Takes runs, and keeps what was logged, by run id."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.runs: dict[str, KeptRun] = {}
        server.afterwards = self.play

    def play(self, handler: ScriptedHandler, body: bytes) -> None:
        if handler.path == "/graphql":
            message = json.loads(body)
            reply: object = {"data": self.answer(operation_of(message), message.get("variables") or {})}
        else:
            reply = {}
            if handler.path.endswith("/file_stream"):
                self._file_stream(handler.path.split("/")[-2], json.loads(body))
        handler.reply(200, [("Content-Type", "application/json")], json.dumps(reply).encode())

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of one GraphQL operation."""
        if operation == "UpsertBucket":
            run = self.runs.setdefault(variables["name"], KeptRun())
            run.fields |= {name: value for name, value in variables.items() if value is not None}
            if variables.get("config"):
                config = json.loads(variables["config"])
                run.config = {name: entry["value"] for name, entry in config.items()}
            project = {**PROJECT, "name": variables["project"], "entity": ENTITY}
            bucket = {"id": "b", "name": variables["name"], "displayName": self.name_of(variables["name"])}
            bucket |= {"project": project, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "CreateRunFiles":
            urls = [{"name": name, "uploadUrl": f"{self.server.url}/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": urls}}
        return {}

    def name_of(self, run_id: str) -> str:
        """What the server calls a run."""
        return f"brisk-sweep-{list(self.runs).index(run_id) + 1}"

    def _file_stream(self, run_id: str, message: dict[str, Any]) -> None:
        files = message.get("files", {})
        for line in files.get("wandb-summary.json", {}).get("content", []):
            self.runs[run_id].summary |= json.loads(line)
        self.runs[run_id].history += map(json.loads, files.get("wandb-history.jsonl", {}).get("content", []))


class SweepStandIn(WandbStandIn):
    """Takes one sweep: hands out given settings in turn, and stops some of their runs after a first step.

    Attributes:
        agents: how many have registered.
        sweep: the configuration of the sweep, once it is created.
        prior_runs: ids of the runs that it was given.
        stopped: ids of the runs that the agent was told to stop.

    Args:
        server: Where it answers.
        settings: The settings of the runs `run0`, `run1`, …
        stop: Ids of the runs to stop.
    """

    SWEEP_ID = "5weep001"

    def __init__(
        self, server: ScriptedServer, settings: list[dict[str, Any]], stop: Collection[str] = ()
    ) -> None:
        super().__init__(server)
        self._settings = settings
        self._stop = stop
        self._handed_out: list[str] = []
        self.agents = 0
        self.sweep: dict[str, Any] = {}
        self.prior_runs: list[str] = []
        self.stopped: list[str] = []

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        if operation == "Viewer":
            return {"viewer": {"id": "u", "entity": ENTITY["name"], "teams": {"edges": []}}}
        if operation == "UpsertSweep":
            self.sweep = yaml.safe_load(variables["config"])
            filters = json.loads(variables["priorRunsFilters"] or '{"$or": []}')
            self.prior_runs = [one["name"] for one in filters["$or"]]
            project = {**PROJECT, "name": variables["projectName"], "entity": ENTITY}
            created = {"sweep": {"name": self.SWEEP_ID, "project": project}, "configValidationWarnings": []}
            return {"upsertSweep": created}
        if operation == "CreateAgent":
            self.agents += 1
            return {"createAgent": {"agent": {"id": f"a{self.agents}"}}}
        if operation == "Heartbeat":
            commands = self._commands(list(json.loads(variables["runState"])))
            return {"agentHeartbeat": {"agent": {"id": variables["id"]}, "commands": json.dumps(commands)}}
        return super().answer(operation, variables)

    def _commands(self, running: list[str]) -> list[dict[str, Any]]:
        for run_id in running:
            begun = run_id in self.runs and self.runs[run_id].history
            if run_id in self._stop and run_id not in self.stopped and begun:
                self.stopped.append(run_id)
                return [{"type": "stop", "run_id": run_id}]
        if running or len(self._handed_out) == len(self._settings):
            return []
        setting = self._settings[len(self._handed_out)]
        run_id = f"run{len(self._handed_out)}"
        self._handed_out.append(run_id)
        args = {name: {"value": value} for name, value in setting.items()}
        return [{"type": "run", "run_id": run_id, "args": args}]
