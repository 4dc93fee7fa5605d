"""From the first drifted request to the new version that answers, with nobody doing anything in between.

The new version is trained with the default budget on the whole packaged table, which takes minutes:
`HOUSING_DRIFT_TO_RELEASE=1` runs it.
"""

import os
from typing import Any

import pandas as pd
import pytest
import requests

from housing_assets.retraining import CAUSES_TAG
from housing_assets_tests.monitoring.days import resampled
from housing_assets_tests.running_stack import LOCATION, Stack, wait_for
from housing_assets_tests.stack.released import PREDICT, PROCESSES, deployed, serving

START = """mutation ($selector: SensorSelector!) {startSensor(sensorSelector: $selector) {
  __typename ... on PythonError {message}}}"""
REQUESTS, ROWS = 100, 1_000

pytestmark = pytest.mark.skipif(
    os.environ.get("HOUSING_DRIFT_TO_RELEASE") != "1", reason="HOUSING_DRIFT_TO_RELEASE=1 runs it: minutes"
)


def start(stack: Stack, sensor: str) -> None:
    """Turn a sensor on, as one does once and for all."""
    started = stack.graphql(START, selector={**LOCATION, "sensorName": sensor})["startSensor"]
    assert started["__typename"] == "Sensor", started


def ask(stack: Stack, rows: pd.DataFrame) -> str:
    """Ask for the prices of some rows; returns the version that answered."""
    features = rows.astype(object)
    body: dict[str, Any] = {"instances": features.where(features.notna(), None).to_dict("records")}
    answer = requests.post(f"http://127.0.0.1:{stack.port}{PREDICT}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model_version"])


def test_drift_leads_to_a_training_and_that_to_a_release(stack: Stack, better: int) -> None:
    wait_for("the version before", lambda: serving(stack) == {str(better): PROCESSES}, 120)
    for sensor in ("monitor_running_day", "retrain_on_findings"):
        start(stack, sensor)

    # Far more than there was before, so that the day's incomes have drifted whatever else was asked for.
    for seed in range(REQUESTS):
        rows = resampled(ROWS, seed)
        assert ask(stack, rows.assign(median_income=rows["median_income"] * 1.5)) == str(better)

    training = wait_for("a training that findings have led to", lambda: training_of(stack), 400)
    assert "drift:median_income" in training["tags"][CAUSES_TAG]
    assert stack.wait_for_end(training["runId"], 600)["status"] == "SUCCESS"
    version = better + 1
    wait_for("every process with the new version", lambda: serving(stack) == {str(version): PROCESSES}, 180)
    assert ask(stack, resampled(ROWS, 0)) == str(version)
    wait_for("the end of its deployment", lambda: deployed(stack)[-1] == version, 60)


def training_of(stack: Stack) -> dict[str, Any] | None:
    """The run that findings have led to."""
    return next((run for run in stack.runs().values() if CAUSES_TAG in run["tags"]), None)
