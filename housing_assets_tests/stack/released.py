"""What was released in a running stack, asked of those who know: registry, record, processes, runs."""

import itertools
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

from housing_assets.sources import packaged_source, parse
from housing_assets_tests.running_stack import LOCATION, Stack
from housing_serving.features import RAW_FEATURES

MODEL = "housing_price_model"
LAUNCH = """mutation ($params: ExecutionParams!) {launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}
  ... on RunConfigValidationInvalid {errors {message}}}}"""
EVENTS = """query ($keys: [AssetKeyInput!]!) {assetNodes(assetKeys: $keys) {assetMaterializations(limit: 20) {
  runId metadataEntries {label ... on IntMetadataEntry {intValue} ... on TextMetadataEntry {text}}}}}"""
PREDICT = "/api/v1/predict"
PROCESSES = 4
OPEN = ("NOT_STARTED", "QUEUED", "STARTING", "STARTED", "CANCELING")


@contextmanager
def callers(stack: Stack, *, tolerant: bool = False) -> Iterator[None]:
    """Somebody asks for prices all over California, all the time, and every answer must be one.

    With `tolerant`, a connection that breaks is opened again.
    """
    over = threading.Event()
    failures: list[str] = []
    rows = parse(packaged_source())[list(RAW_FEATURES)].dropna().sample(500, random_state=0)
    bodies = itertools.cycle([{"instances": [row]} for row in rows.to_dict("records")])
    taking = threading.Lock()

    def call() -> None:
        with requests.Session() as session:
            while not over.is_set():
                with taking:
                    body = next(bodies)
                try:
                    answer = session.post(f"http://127.0.0.1:{stack.port}{PREDICT}", json=body, timeout=30)
                except requests.ConnectionError as error:
                    if not tolerant:
                        failures.append(str(error))
                else:
                    if answer.status_code != 200:
                        failures.append(answer.text)
                over.wait(0.005)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert failures == []


def launch(stack: Stack, job: str, config: dict[str, Any], tags: dict[str, str]) -> str:
    """Launch a run as the UI does; returns its id."""
    params = {
        "selector": {**LOCATION, "jobName": job},
        "runConfigData": config,
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
    }
    launched = stack.graphql(LAUNCH, params=params)["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return str(launched["run"]["runId"])


def registered_by(stack: Stack, run_id: str) -> int | None:
    """The version whose materialization a run has reported."""
    [node] = stack.graphql(EVENTS, keys=[{"path": ["registered_model"]}])["assetNodes"]
    for event in node["assetMaterializations"]:
        entries = {entry["label"]: entry for entry in event["metadataEntries"]}
        if event["runId"] == run_id:
            assert entries["promotion"]["text"] == "promote", entries["promotion_reason"]["text"]
            return int(entries["model_version"]["intValue"])
    return None


def deployed(stack: Stack) -> list[int]:
    """The versions whose deployment has succeeded, in order."""
    return [
        int(run["tags"]["housing/model_version"])
        for run in stack.runs().values()
        if "housing/model_version" in run["tags"] and run["status"] == "SUCCESS"
    ]


def serving(stack: Stack) -> dict[str, int]:
    """Processes by the version that they serve."""
    text = requests.get(f"http://127.0.0.1:{stack.port}/metrics", timeout=10).text
    found = re.findall(r"^housing_models_serving{(.*)} (\d+)", text, re.MULTILINE)
    versions: Counter[str] = Counter()
    for labels, count in found:
        version = re.search(r'model_version="(\d+)"', labels)
        if version and 'track="stable"' in labels and int(count):
            versions[version[1]] += int(count)
    return dict(versions)


def release_of(stack: Stack) -> dict[str, Any]:
    """The release record."""
    record: dict[str, Any] = json.loads(
        (stack.home / "storage" / "releases" / "housing-price-api.json").read_bytes()
    )
    return record


def aliased(stack: Stack, alias: str) -> int:
    """The version behind an alias."""
    return int(stack.mlflow_client().get_model_version_by_alias(MODEL, alias).version)


def all_versions(stack: Stack) -> list[Any]:
    """Every registered version."""
    return list(stack.mlflow_client().search_model_versions(f"name='{MODEL}'"))


def story(stack: Stack) -> str:
    """The latest runs with what their steps said last, and the release's history."""
    lines = []
    for run_id, run in list(stack.runs().items())[-6:]:
        version = run["tags"].get("housing/model_version", "-")
        lines.append(f"run {run_id} of version {version}, after {run['parentRunId']}: {run['status']}")
        lines.extend(f"    {message}" for message in stack.messages(run_id)[-12:])
    record = stack.home / "storage" / "releases" / "housing-price-api.json"
    lines.append(record.read_text() if record.exists() else "nothing is released")
    return "\n".join(lines)
