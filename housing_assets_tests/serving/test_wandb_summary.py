"""Aggregates in W&B: right, sent by the real client, and never in the way of the service.

The server is a stand-in that knows just enough of the protocol; it tests our use of the client, not W&B.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pydantic import SecretStr

from housing_assets_tests.conftest import free_port
from housing_assets_tests.scripted_http import answer, scripted_server
from housing_assets_tests.serving.bundles import random_columns
from housing_assets_tests.serving.test_metrics import batch_of
from housing_assets_tests.serving.test_prediction_log import answered, keys, rows_in, settings
from housing_assets_tests.wandb_stand_in import WandbStandIn
from housing_serving.bundle import Predictions
from housing_serving.metrics import Metrics
from housing_serving.prediction_log import PredictionLog
from housing_serving.settings import ServingSettings
from housing_serving.wandb_summary import VersionSummary, WandbSummary, open_wandb_summary

DEADLINE_SECONDS = 60.0
KEY = "k" * 40


@pytest.fixture(autouse=True)
def no_wandb_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


def with_key(home: Path, **changes: Any) -> ServingSettings:
    return settings(home, wandb_api_key=SecretStr(KEY), wandb_project="housing", **changes)


def wait_for(what: str, true: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"
        time.sleep(0.02)


def client_of(pid: int) -> psutil.Process:
    """The process of W&B's client that a process has started."""
    [client] = [
        child
        for child in psutil.Process(pid).children()
        if "housing_serving.wandb_process" in child.cmdline()
    ]
    return client


# The aggregates


def test_aggregates_of_a_version() -> None:
    summary = VersionSummary()
    summary.add(np.array([100.0, 400.0]), np.array([0.001]))
    summary.add(np.array([250.0]), np.array([0.003]))
    values = summary.values()
    assert values.pop("latency_ms_p50") == pytest.approx(1, rel=0.025)
    assert values.pop("latency_ms_p99") == pytest.approx(3, rel=0.025)
    assert values == {
        "predictions": 3,
        "requests": 2,
        "price_mean": 250.0,
        "price_min": 100.0,
        "price_max": 400.0,
        "latency_ms_mean": 2.0,
    }


def test_quantiles_are_those_of_the_latencies() -> None:
    latencies = np.random.default_rng(3).gamma(2.0, 0.004, 50_000)
    summary = VersionSummary()
    summary.add(np.ones(1), np.append(latencies, [0.0, 1e9]))
    values = summary.values()
    assert values["latency_ms_p50"] == pytest.approx(1e3 * np.quantile(latencies, 0.5), rel=0.03)
    assert values["latency_ms_p99"] == pytest.approx(1e3 * np.quantile(latencies, 0.99), rel=0.03)


def test_a_request_counts_once_and_its_instances_each(tmp_path: Path) -> None:
    summary = WandbSummary(with_key(tmp_path), KEY)
    answers = [answered("a", 5, latency_seconds=0.5), answered("b", 1), answered("c", 2, model_version="4")]
    summary.add(batch_of(*answers))
    found = {version: sums.values() for version, sums in summary._versions.items()}
    assert {version: (sums["predictions"], sums["requests"]) for version, sums in found.items()} == {
        "3": (6, 2),
        "4": (2, 1),
    }


# Without a key, without a client


def test_without_a_key_nothing_is_started(tmp_path: Path) -> None:
    assert open_wandb_summary(settings(tmp_path)) is None


def test_a_key_without_the_client_is_one_warning_that_names_the_extra(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the import system makes of a package that is not installed.
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert open_wandb_summary(with_key(tmp_path)) is None
    assert [record.getMessage() for record in caplog.records] == [
        "WANDB_API_KEY is set but wandb is not installed: "
        "install housing-assets[serving-wandb], or unset WANDB_API_KEY"
    ]


# With the real client, which is a process of its own


def test_aggregates_reach_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prices = np.array([100_000.0, 300_000.0])
    two = answered("a", 2, predictions=Predictions(prices, prices, prices), columns=random_columns(2))
    with scripted_server() as server:
        wandb = WandbStandIn(server)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        log = PredictionLog(with_key(tmp_path, wandb_entity="team"), Metrics())
        log.start()
        log.record(two)
        # The client has a second to import, and no reason to send before the end.
        wait_for("the run", lambda: wandb.runs)
        log.record(answered("b", 1, model_version="4"))
        log.close(DEADLINE_SECONDS)

    [run] = wandb.runs.values()
    assert (run.fields["project"], run.fields["entity"], run.fields["jobType"]) == (
        "housing",
        "team",
        "api-inference",
    )
    assert (run.config["deployment"], run.config["model_version"]) == ("local", "4")
    expected = {
        "version_3/predictions": 2,
        "version_3/requests": 1,
        "version_3/price_mean": 200_000,
        "version_3/price_min": 100_000,
        "version_3/price_max": 300_000,
        "version_3/latency_ms_mean": 1.25,
        "version_4/predictions": 1,
    }
    assert {name: run.summary[name] for name in expected} == expected
    assert len(rows_in(tmp_path)) == 3


def test_a_refused_key_is_explained_once_and_nothing_else_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with scripted_server() as server:
        server.afterwards = answer(401)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        log = PredictionLog(with_key(tmp_path), Metrics())
        log.start()
        log.record(answered("a"))
        wait_for("the refusal", lambda: server.requests)
        log.record(answered("b"))
        log.close(DEADLINE_SECONDS)
        assert "POST /graphql" in server.requests
    assert keys(rows_in(tmp_path)) == [("a", 0), ("b", 0)]
    [line] = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert line["severity"] == "WARNING"
    assert line["reason"] == (
        f"W&B at {server.url} did not take a run for project housing: check WANDB_API_KEY, WANDB_ENTITY "
        "and the network, or unset WANDB_API_KEY"
    )


def test_a_server_that_is_not_there_costs_neither_rows_nor_time_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free_port()}")
    log = PredictionLog(with_key(tmp_path), Metrics())
    log.start()
    client = client_of(os.getpid())
    log.record(answered("a"))
    # wandb's own program is running, so the client is trying to reach the server.
    wait_for("the attempt", client.children)
    children = client.children()
    wait_for("the row", lambda: log.status().written_rows == 1)
    assert log.status().healthy
    log.close(0.5)
    assert not client.is_running()
    psutil.wait_procs(children, timeout=DEADLINE_SECONDS)
    assert "W&B did not finish the run in time" in caplog.text


def test_a_client_that_dies_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = PredictionLog(with_key(tmp_path), Metrics())
    log.start()
    client = client_of(os.getpid())
    client.kill()
    client.wait()
    for number in range(3):
        log.record(answered(f"{number}"))
        wait_for("the row", lambda n=number: log.status().written_rows == n + 1)
    wait_for("the warning", lambda: caplog.records)
    log.close(DEADLINE_SECONDS)
    assert [record.getMessage() for record in caplog.records] == ["aggregates for W&B are lost"]


def test_the_client_ends_with_a_service_that_is_killed(tmp_path: Path) -> None:
    code = (
        f"import pathlib, time, {__name__} as tests\n"
        "from housing_serving.metrics import Metrics\n"
        "from housing_serving.prediction_log import PredictionLog\n"
        f"log = PredictionLog(tests.with_key(pathlib.Path({str(tmp_path)!r})), Metrics())\n"
        "log.start()\n"
        "print('started', flush=True)\n"
        "time.sleep(600)\n"
    )
    service = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert service.stdout is not None
    assert service.stdout.readline() == b"started\n"
    client = client_of(service.pid)
    service.kill()
    service.communicate()
    _, running = psutil.wait_procs([client], timeout=DEADLINE_SECONDS)
    assert [process for process in running if process.status() != psutil.STATUS_ZOMBIE] == []
