"""Materializing a part of the graph: exactly the selected assets and their checks run."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from housing_assets_tests.running_stack import LOCATION, Stack
from housing_assets_tests.stack.conftest import SNAPSHOTS, DisturbedBackfill

# Nothing later has been trained on all rows for it.
SNAPSHOT = SNAPSHOTS[0]
SELECTED = ("sweep_result", "registered_model")
STEPS = {
    "sweep_result",
    "sweep_result_best_params_are_complete",
    "registered_model",
    "registered_model_metrics_clear_the_floor",
    "registered_model_bundle_matches_the_pipeline",
    "registered_model_model_behaves_sensibly",
}
LAUNCH = """mutation ($params: ExecutionParams!) {launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}
  ... on RunConfigValidationInvalid {errors {message}}}}"""
MATERIALIZED = """query ($id: ID!) {runOrError(runId: $id) {... on Run {
  assetMaterializations {assetKey {path} partition}}}}"""


@pytest.fixture
def selected_config(run_config: dict[str, Any]) -> dict[str, Any]:
    """The small budgets of the selected assets."""
    return {"ops": {name: run_config["ops"][name] for name in SELECTED}}


def materialized(stack: Stack, run_id: str) -> list[tuple[str, str]]:
    """Asset and partition of every materialization of a run, in order."""
    found = stack.graphql(MATERIALIZED, id=run_id)["runOrError"]["assetMaterializations"]
    return sorted((event["assetKey"]["path"][0], event["partition"]) for event in found)


def test_the_uis_own_call_runs_the_selected_assets_alone(
    stack: Stack, backfill: DisturbedBackfill, selected_config: dict[str, Any]
) -> None:
    params = {
        "selector": {
            **LOCATION,
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": [name]} for name in SELECTED],
        },
        "mode": "default",
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": SNAPSHOT}]},
        "runConfigData": selected_config,
    }
    launched = stack.graphql(LAUNCH, params=params)["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run = stack.wait_for_end(launched["run"]["runId"], 180)
    assert run["steps"] == dict.fromkeys(STEPS, "SUCCESS")
    assert materialized(stack, run["runId"]) == [("registered_model", SNAPSHOT), ("sweep_result", SNAPSHOT)]


def test_the_command_line_runs_the_selected_assets_alone(
    stack: Stack, backfill: DisturbedBackfill, selected_config: dict[str, Any]
) -> None:
    before = set(stack.runs())
    command = [
        *(str(Path(sys.executable).parent / "dagster"), "asset", "materialize"),
        *("-m", "housing_assets.definitions", "--select", "sweep_result+", "--partition", SNAPSHOT),
        *("--config-json", json.dumps(selected_config)),
    ]
    done = stack.run(command)
    assert done.returncode == 0, done.stderr[-3000:]
    # The sensor may deploy what another run has registered.
    new = set(stack.runs()) - before
    [run_id] = [each for each in new if stack.runs()[each]["tags"].get("housing/kind") != "deployment"]
    assert stack.runs()[run_id]["steps"] == dict.fromkeys(STEPS, "SUCCESS")
    assert materialized(stack, run_id) == [("registered_model", SNAPSHOT), ("sweep_result", SNAPSHOT)]
