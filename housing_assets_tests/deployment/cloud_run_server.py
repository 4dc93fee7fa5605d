"""A stand-in for Google Cloud: the methods of the Cloud Run Admin and Monitoring APIs that a deployment uses.

It is strict where the real one is (etags, names of revisions, sums of percents, who may call) and slow where
the real one is (long-running operations). What it cannot show is Google's own behaviour beyond that.
"""

import copy
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import RLock, Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests

PROJECT, REGION, SERVICE = "housing-test", "us-central1", "housing-price-api"
PARENT = f"projects/{PROJECT}/locations/{REGION}"
PATH = f"{PARENT}/services/{SERVICE}"
SERVICE_TYPE = "type.googleapis.com/google.cloud.run.v2.Service"
SUCCEEDED, RECONCILING, FAILED = "CONDITION_SUCCEEDED", "CONDITION_RECONCILING", "CONDITION_FAILED"
STATUSES = {400: 3, 403: 7, 404: 5, 409: 10, 412: 9, 429: 8, 503: 14}

Json = dict[str, Any]


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass
class Fault:
    """What goes wrong with the next requests whose method and path match.

    Attributes:
        pattern: Searched in "METHOD /path".
        status: What is answered; 0 lets the request pass.
        times: How often.
        message: Google's.
        after: Whether the request is carried out nevertheless, and only its answer is lost.
        meanwhile: Called before the request is handled, as if somebody else were faster.
    """

    pattern: str
    status: int
    times: int = 1
    message: str = "scripted"
    after: bool = False
    meanwhile: Callable[[], None] = lambda: None


@dataclass
class CloudRun:
    """Services, revisions and operations as they are, and what is to go wrong.

    Attributes:
        run: Starts the container of a revision with these variables; returns where it answers.
        polls: How often an operation has to be asked for before it is done.
        never_ready: What is wrong with revisions, by what their names contain.
        stuck: Revisions that nothing is ever said about, by what their names contain.
        unroutable: Traffic cannot be led to these revisions any more.
    """

    run: Callable[[Mapping[str, str]], str]
    polls: int = 1
    never_ready: dict[str, str] = field(default_factory=dict)
    stuck: set[str] = field(default_factory=set)
    unroutable: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    services: dict[str, Json] = field(default_factory=dict)
    revisions: dict[str, Json] = field(default_factory=dict)
    operations: dict[str, Json] = field(default_factory=dict)
    policies: dict[str, Json] = field(default_factory=dict)
    series: list[Json] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)
    # Revisions that answer nothing but errors, by what their names contain.
    broken: set[str] = field(default_factory=set)
    url: str = ""
    lock: Any = field(default_factory=RLock)

    def answer(self, method: str, target: str, body: Json) -> Json:
        url = urlsplit(target)
        query, line = dict(parse_qsl(url.query)), f"{method} {url.path}"
        with self.lock:
            self.requests.append(f"{line}?{url.query}" if url.query else line)
            fault = next((item for item in self.faults if item.times and re.search(item.pattern, line)), None)
            if fault is not None:
                fault.times -= 1
                fault.meanwhile()
                if fault.status and not fault.after:
                    raise Refused(fault.status, fault.message)
            answer = self._route(method, url.path.lstrip("/"), query, body)
            if fault is not None and fault.after:
                raise Refused(fault.status, fault.message)
            return copy.deepcopy(answer)

    def _route(self, method: str, path: str, query: Mapping[str, str], body: Json) -> Json:  # noqa: PLR0911
        if path == f"v3/projects/{PROJECT}/timeSeries":
            return self._time_series(query)
        name = path.removeprefix("v2/")
        if not name.startswith(PARENT):
            raise Refused(404, "Requested entity was not found.")
        if "/operations/" in name:
            return self._operation(name)
        if name == f"{PARENT}/services" and method == "POST":
            return self._create(f"{PARENT}/services/{query['serviceId']}", body)
        if name.endswith((":getIamPolicy", ":setIamPolicy")):
            service, _, verb = name.partition(":")
            return self._policy(service, body["policy"] if verb == "setIamPolicy" else None)
        if name.endswith("/revisions"):
            return {"revisions": [item for item in self.revisions.values() if item["name"].startswith(name)]}
        if "/revisions/" in name:
            return self._found(self.revisions, name)
        if method == "PATCH":
            return self._patch(name, query, body)
        self._advance()
        return self._found(self.services, name)

    @staticmethod
    def _found(kind: Mapping[str, Json], name: str) -> Json:
        if name not in kind:
            raise Refused(404, f"Resource '{name}' was not found")
        return kind[name]

    def _create(self, name: str, body: Json) -> Json:
        if name in self.services:
            raise Refused(409, f"Resource '{name}' already exists.")
        service = {**body, "name": name, "uri": f"{self.url}/run/{SERVICE}"}
        self._check(service)
        self.services[name] = service
        self._make_revision(service)
        return self._begin(service)

    def _patch(self, name: str, query: Mapping[str, str], body: Json) -> Json:
        service = self._found(self.services, name)
        if body.get("etag") not in {None, "", service["etag"]}:
            raise Refused(409, f"Conflict for resource '{SERVICE}': version '{body['etag']}' was specified")
        fields = query["updateMask"].split(",") if "updateMask" in query else list(body)
        changed = {**service, **{key: body.get(key) for key in fields}}
        self._check(changed)
        if changed["template"] != service["template"]:
            self._make_revision(changed)
        service.update(changed)
        return self._begin(service)

    def _check(self, service: Json) -> None:
        targets = service["traffic"]
        if sum(target.get("percent", 0) for target in targets) != 100:
            raise Refused(400, "Traffic percentages must add up to 100")
        tags = [target["tag"] for target in targets if target.get("tag")]
        if len(tags) != len(set(tags)):
            raise Refused(400, "a tag is used twice")
        made = {service["template"].get("revision")} | {name.rpartition("/")[2] for name in self.revisions}
        for target in targets:
            if target.get("revision") and target["revision"] not in made:
                raise Refused(400, f"Revision '{target['revision']}' was not found")
        if sum(map(len, (service.get("annotations") or {}).values())) > 256 * 1024:
            raise Refused(400, "annotations are too long")

    def _make_revision(self, service: Json) -> None:
        template = service["template"]
        name = f"{service['name']}/revisions/{template['revision']}"
        if name in self.revisions:
            raise Refused(409, f"Revision named '{name}' with different configuration already exists.")
        self.revisions[name] = {
            **template,
            "name": name,
            "createTime": (datetime.now(UTC) + timedelta(milliseconds=len(self.revisions))).isoformat(),
            "conditions": [{"type": "Ready", "state": RECONCILING}],
        }

    def _begin(self, service: Json) -> Json:
        service["etag"] = secrets.token_hex(4)
        service["reconciling"] = True
        name = f"{PARENT}/operations/{secrets.token_hex(4)}"
        self.operations[name] = {"name": name, "done": False}
        self.operations[name]["_left"] = self.polls
        self.operations[name]["_service"] = service["name"]
        return self._shown(self.operations[name])

    def _operation(self, name: str) -> Json:
        operation = self._found(self.operations, name)
        if not operation["done"]:
            self._advance()
        return self._shown(operation)

    @staticmethod
    def _shown(operation: Json) -> Json:
        return {key: value for key, value in operation.items() if not key.startswith("_")}

    def _advance(self) -> None:
        for operation in [item for item in self.operations.values() if not item["done"]]:
            operation["_left"] -= 1
            if operation["_left"] <= 0:
                self._finish(operation, self.services[operation["_service"]])

    def _finish(self, operation: Json, service: Json) -> None:
        latest = f"{service['name']}/revisions/{service['template']['revision']}"
        revision = self.revisions[latest]
        for name in self.revisions:
            self._start(service, name)
        ready = revision["conditions"][0]
        if ready["state"] == RECONCILING:
            if not self._is_target(service, latest):
                self._settle(operation, service, "the latest revision is not ready")
            return
        problem = f"Revision is not ready: {ready['message']}" if ready["state"] == FAILED else ""
        self._settle(operation, service, problem)

    def _start(self, service: Json, name: str) -> None:
        ready = self.revisions[name]["conditions"][0]
        if ready["state"] != RECONCILING or any(part in name for part in self.stuck):
            return
        wrong = next((text for part, text in self.never_ready.items() if part in name), None)
        ready.update({"state": FAILED, "message": wrong} if wrong else {"state": SUCCEEDED})
        if not wrong:
            service["latestReadyRevision"] = name

    @staticmethod
    def _is_target(service: Json, revision: str) -> bool:
        return any(revision.endswith(f"/{target['revision']}") for target in service["traffic"])

    def _settle(self, operation: Json, service: Json, problem: str) -> None:
        for target in service["traffic"]:
            revision = self.revisions[f"{service['name']}/revisions/{target['revision']}"]
            if revision["conditions"][0]["state"] == FAILED or target["revision"] in self.unroutable:
                problem = problem or f"Revision '{target['revision']}' cannot serve traffic."
                break
        else:
            service["trafficStatuses"] = [self._status(service, target) for target in service["traffic"]]
        service["reconciling"] = False
        service["terminalCondition"] = {"type": "Ready", "state": FAILED if problem else SUCCEEDED}
        service["terminalCondition"]["message"] = problem
        operation["done"] = True
        if problem:
            operation["error"] = {"code": 9, "message": problem}
        else:
            operation["response"] = {"@type": SERVICE_TYPE, **copy.deepcopy(service)}

    def _status(self, service: Json, target: Json) -> Json:
        name = target["revision"]
        if not target.get("tag"):
            return dict(target)
        if name not in self.urls:
            container = self.revisions[f"{service['name']}/revisions/{name}"]["containers"][0]
            self.urls[name] = self.run({item["name"]: item["value"] for item in container["env"]})
        return {**target, "uri": self.urls[name]}

    def _policy(self, service: str, wanted: Json | None) -> Json:
        policy = self.policies.setdefault(service, {"etag": secrets.token_hex(4), "bindings": []})
        if wanted is None:
            return policy
        if wanted.get("etag") != policy["etag"]:
            raise Refused(409, "There were concurrent policy changes.")
        self.policies[service] = {**wanted, "etag": secrets.token_hex(4)}
        return self.policies[service]

    def _time_series(self, query: Mapping[str, str]) -> Json:
        text, found = query["filter"], []
        for item in self.series:
            labels = item["metric"]["labels"]
            points = [
                point
                for point in item["points"]
                if query["interval.startTime"] < point["interval"]["endTime"] <= query["interval.endTime"]
            ]
            if f'"{item["metric"]["type"]}"' not in text or not points:
                continue
            if f'"{SERVICE}"' in text and labels["response_code_class"] != "4xx":
                found.append({**item, "points": points})
        # One a page, so that pages are turned.
        page = int(query.get("pageToken", 0))
        more = {"nextPageToken": str(page + 1)} if page + 1 < len(found) else {}
        return {"timeSeries": found[page : page + 1], **more}

    def measured(self, metric: str, revision: str, code: str, value: Json) -> None:
        """Let Cloud Monitoring know a point of a metric."""
        resource = {"service_name": SERVICE, "location": REGION, "revision_name": revision}
        ended = datetime.now(UTC).isoformat()
        self.series.append(
            {
                "metric": {"type": metric, "labels": {"response_code_class": code}},
                "resource": {"type": "cloud_run_revision", "labels": resource},
                "points": [{"interval": {"endTime": ended}, "value": value}],
            }
        )

    def forward(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """What the service answers: the revision that most of its traffic goes to."""
        with self.lock:
            shares = self.shares()
            revision = max(shares, key=lambda name: shares[name])
            url = self.urls[revision]
        if any(part in revision for part in self.broken):
            return 503, b"Service Unavailable"
        headers = {"Content-Type": "application/json"}
        answer = requests.request(method, f"{url}{path}", data=body, headers=headers, timeout=30)
        return answer.status_code, answer.content

    def shares(self) -> dict[str, int]:
        """Percent of the traffic by revision."""
        rows = self.services[PATH]["trafficStatuses"]
        return {row["revision"]: row["percent"] for row in rows if row.get("percent")}

    def tags(self) -> dict[str, str]:
        """Revisions by tag."""
        return {row["tag"]: row["revision"] for row in self.services[PATH]["traffic"] if row.get("tag")}


class _Handler(BaseHTTPRequestHandler):
    cloud: CloudRun
    protocol_version = "HTTP/1.1"

    def _play(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        service = f"/run/{SERVICE}"
        if self.path.startswith(service):
            self._send(*self.cloud.forward(self.command, self.path.removeprefix(service), data))
            return
        try:
            status, answer = 200, self.cloud.answer(self.command, self.path, json.loads(data or b"{}"))
        except Refused as error:
            status = error.status
            answer = {"error": {"code": status, "message": str(error), "status": str(STATUSES[status])}}
        self._send(status, json.dumps(answer).encode())

    def _send(self, status: int, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PATCH = _play

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""


@contextmanager
def cloud_run_server(run: Callable[[Mapping[str, str]], str]) -> Iterator[CloudRun]:
    """A running stand-in on a free port."""
    cloud = CloudRun(run)
    handler = type("Handler", (_Handler,), {"cloud": cloud})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    cloud.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        server.server_close()
