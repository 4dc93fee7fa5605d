"""What a worker costs: the modules it loads, and its memory with a model of real size, at first and later."""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fastapi.testclient import TestClient

from benchmarks.footprint import growth, resident_while_predicting
from benchmarks.models import PUBLISHED_FOREST, exported, fitted
from benchmarks.processes import Command, Server, running
from benchmarks.rows import training_rows
from benchmarks.sides import records
from housing_assets_tests.serving.bundles import INSTANCE, bundle_files, write_files
from housing_serving import pricing
from housing_serving import service as service_module
from housing_serving.app import create_app
from housing_serving.prediction import Priced
from housing_serving.settings import ServingSettings
from housing_serving.sources import LoadedModel

# What only training needs, and what only a deployment with a bucket or a Weights & Biases key needs.
TRAINING = {"dagster", "housing_assets", "mlflow", "onnx", "pandas", "pyarrow", "scipy", "sklearn"}
ELSEWHERE = {"google.cloud.storage", "wandb"}
MEGABYTE = 1e6
RESIDENT_MEGABYTES = 200
BATCH = 1_000
PREDICTIONS = 1_000_000
DEADLINE_SECONDS = 60.0
# A hundred bytes that every request leaves behind would be less than noise; twenty that every prediction
# leaves behind are this much over the last four fifths.
GROWTH_MEGABYTES = 16


def service(model: Path, home: Path, **variables: str) -> Command:
    """The service with its defaults on a bundle."""
    settings = {"PORT": "{port}", "LOCAL_MODEL_PATH": str(model), "HOUSING_HOME": str(home)}
    return Command([sys.executable, "-m", "housing_serving"], settings | variables)


def imported(log: Path) -> set[str]:
    """The modules that a process with PYTHONPROFILEIMPORTTIME imported, by what it wrote."""
    lines = log.read_text().splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


def test_a_life_of_the_service_imports_nothing_that_only_training_needs(tmp_path: Path) -> None:
    model = write_files(tmp_path / "bundle", bundle_files(kind="compiled", explained=True))
    command = service(model, tmp_path / "home", PYTHONPROFILEIMPORTTIME="1")
    with running(command, tmp_path) as server:
        for path in ("/api/v1/model/info", "/health/deep", "/metrics", "/openapi.json", "/docs"):
            assert requests.get(server.url(path), timeout=30).status_code == 200
        body = {"instances": [INSTANCE, {**INSTANCE, "total_bedrooms": None}]}
        for path in ("/api/v1/predict", "/api/v1/explain"):
            assert requests.post(server.url(path), json=body, timeout=30).status_code == 200
        assert requests.post(server.url("/api/v1/predict"), json={}, timeout=30).status_code == 422
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=60)
    # The prediction log was written too, at the latest when the process ended.
    assert list((tmp_path / "home").rglob("*.parquet"))

    modules = imported(server.log)
    assert {"housing_serving.routes", "housing_serving.prediction_log", "onnxruntime"} <= modules
    assert not {module.partition(".")[0] for module in modules} & TRAINING
    assert not modules & ELSEWHERE


@pytest.fixture
def bodies() -> list[bytes]:
    """Requests for a thousand block groups each, all different."""
    known = records(training_rows())
    return [
        json.dumps({"instances": known[start : start + BATCH]}).encode()
        for start in range(0, len(known) - BATCH, BATCH)
    ]


@pytest.fixture
def real_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The service on a forest as large as the published one, fitted on all training rows."""
    # As people run it: what measures coverage takes memory too.
    for name in [name for name in os.environ if name.startswith("COVERAGE")]:
        monkeypatch.delenv(name)
    rows = training_rows()
    model = write_files(tmp_path / "bundle", exported(fitted(rows, "RandomForest", PUBLISHED_FOREST), rows))
    with running(service(model, tmp_path / "home"), tmp_path) as server:
        yield server


def test_memory_is_small_and_flat_over_a_million_predictions(real_size: Server, bodies: list[bytes]) -> None:
    samples = resident_while_predicting(real_size, bodies, BATCH, PREDICTIONS)

    assert max(samples) / MEGABYTE < RESIDENT_MEGABYTES
    assert growth(samples) / MEGABYTE < GROWTH_MEGABYTES


def test_memory_is_given_back_once_nothing_large_is_in_work_any_more(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_work, go_on, given_back = threading.Event(), threading.Event(), threading.Semaphore(0)
    monkeypatch.setattr(service_module, "TIDY_SECONDS", 0.01)
    monkeypatch.setattr(service_module, "return_free_memory", given_back.release)
    parse_and_price = pricing._parse_and_price

    def first_waits(body: bytes, model: LoadedModel) -> tuple[Priced, bytes]:
        if not in_work.is_set():
            in_work.set()
            assert go_on.wait(DEADLINE_SECONDS)
        return parse_and_price(body, model)

    monkeypatch.setattr(pricing, "_parse_and_price", first_waits)
    large = {"instances": [INSTANCE] * BATCH}
    with TestClient(create_app(ServingSettings(local_model_path=bundle_folder))) as client:
        first = threading.Thread(target=client.post, args=("/api/v1/predict",), kwargs={"json": large})
        first.start()
        assert in_work.wait(DEADLINE_SECONDS)
        assert client.post("/api/v1/predict", json=large).status_code == 200
        # Twice for one that was answered, and no more while the other is in work.
        assert all(given_back.acquire(timeout=DEADLINE_SECONDS) for _ in range(2))
        assert not given_back.acquire(timeout=0.2)
        go_on.set()
        assert all(given_back.acquire(timeout=DEADLINE_SECONDS) for _ in range(2))
        first.join(DEADLINE_SECONDS)
