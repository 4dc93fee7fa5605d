"""The service as operators run it: a real process, a real port, signals; and what importing it pulls in."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import requests

from housing_assets_tests.serving.bundles import INSTANCE, bundle_files, write_files

START_SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def service(folder: Path, **variables: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A running `python -m housing_serving`; yields its URL and process."""
    port = free_port()
    with (folder / "service.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "housing_serving"],
            env=os.environ | {"PORT": str(port)} | variables,
            cwd=folder,
            stdout=log,
            stderr=log,
            text=True,
        )
        try:
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()
            process.wait()


def status_of(url: str) -> int | None:
    try:
        return requests.get(url, timeout=5).status_code
    except requests.ConnectionError:
        return None


def wait_for(url: str, status: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while (found := status_of(url)) != status:
        assert process.poll() is None, "the service ended"
        assert time.monotonic() < deadline, f"{url} answers {found}, not {status}"


def log_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "service.log").read_text().splitlines()]


def test_ready_once_a_bundle_appears_and_stopped_cleanly(tmp_path: Path) -> None:
    versions = tmp_path / "home/storage/models/housing_price_model"
    settings = {"HOUSING_HOME": str(tmp_path / "home"), "HOUSING_MODEL_POLL_SECONDS": "0.05"}
    with service(tmp_path, **settings) as (url, process):
        wait_for(f"{url}/health", 200, process)
        assert status_of(f"{url}/health/ready") == 503
        early = requests.post(f"{url}/api/v1/predict", json={"instances": [INSTANCE]}, timeout=5)
        assert (early.status_code, early.json()["error"]["code"]) == (503, "model_not_ready")

        files = bundle_files(version=1, kind="compiled")
        write_files(versions / "1", {"model.onnx": files["model.onnx"]})
        for name in ("imputer.onnx", "bundle.json"):
            (versions / "1" / name).write_bytes(files[name])

        wait_for(f"{url}/health/ready", 200, process)
        answer = requests.post(f"{url}/api/v1/predict", json={"instances": [INSTANCE]}, timeout=5)
        assert answer.json()["predictions"][0]["predicted_price"] == 300_000
        assert answer.json()["model_version"] == "1"
        assert "server" not in answer.headers

        json_type = {"Content-Type": "application/json"}
        too_large = requests.post(
            f"{url}/api/v1/predict", data=b" " * 3_000_000, headers=json_type, timeout=5
        )
        assert too_large.status_code == 413

        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) in (0, -signal.SIGTERM)
    loaded = [line for line in log_lines(tmp_path) if line["message"] == "model loaded"]
    assert [(line["model_version"], line["uri"]) for line in loaded] == [(1, f"{versions}/1")]


def test_bundle_from_a_bucket(tmp_path: Path, gcs_bucket: str) -> None:
    from google.cloud import storage  # noqa: PLC0415

    bucket = storage.Client().bucket(gcs_bucket)
    for name, data in bundle_files(version=12, kind="neighbours").items():
        bucket.blob(f"models/housing_price_model/12/{name}").upload_from_string(data)

    with service(tmp_path, HOUSING_DEPLOYMENT="gcp", GCS_BUCKET_NAME=gcs_bucket) as (url, process):
        wait_for(f"{url}/health/ready", 200, process)
        info = requests.get(f"{url}/api/v1/model/info", timeout=5).json()

    assert (info["model_version"], info["imputation"]) == ("12", "knn")
    assert (info["source"], info["uri"]) == ("gcs", f"gs://{gcs_bucket}/models/housing_price_model/12")


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        (
            {"HOUSING_DEPLOYMENT": "gcp"},
            "GCS_BUCKET_NAME is not set: set it to an existing bucket (HOUSING_DEPLOYMENT=gcp needs it)",
        ),
        ({"PORT": "70000"}, "PORT Input should be less than or equal to 65535"),
    ],
)
def test_unusable_settings_end_the_process_with_what_to_set(
    tmp_path: Path, variables: dict[str, str], problem: str
) -> None:
    with service(tmp_path, **variables) as (_, process):
        assert process.wait(timeout=START_SECONDS) == 1

    assert (tmp_path / "service.log").read_text() == f"The service cannot start:\n  {problem}\n"


@pytest.mark.parametrize("module", ["housing_serving.__main__", "housing_serving.app"])
def test_importing_the_service_pulls_in_no_training_library(module: str) -> None:
    heavy = {"dagster", "sklearn", "pandas", "pyarrow", "mlflow", "wandb", "housing_assets"}
    heavy |= {"google.cloud.storage", "requests"}
    program = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)

    assert not heavy & set(json.loads(done.stdout))


def test_several_workers_answer_and_count_together_and_one_that_dies_is_replaced(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "bundle", bundle_files(kind="compiled", version=3))
    settings = {"LOCAL_MODEL_PATH": str(folder), "WEB_CONCURRENCY": "2", "HOUSING_DRAIN_SECONDS": "0"}
    with service(tmp_path, HOUSING_HOME=str(tmp_path / "home"), **settings) as (url, process):
        wait_for(f"{url}/health/ready", 200, process)
        workers = psutil.Process(process.pid).children()
        workers = [worker for worker in workers if "resource_tracker" not in " ".join(worker.cmdline())]
        assert len(workers) == 2

        # A connection each, so that the kernel gives both workers some.
        for _ in range(60):
            requests.post(f"{url}/api/v1/predict", json={"instances": [INSTANCE] * 2}, timeout=5)
        predicted = 'housing_predictions_total{model_version="3"}'
        assert [sample(url, predicted) for _ in range(5)] == [120.0] * 5
        both_have_a_model(url)

        workers[0].kill()
        wait_until(lambda: not workers[0].is_running() or workers[0].status() == psutil.STATUS_ZOMBIE)
        both_have_a_model(url)
        for _ in range(20):
            requests.post(f"{url}/api/v1/predict", json={"instances": [INSTANCE]}, timeout=5)
        assert sample(url, predicted) == 140.0

        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    written = [pq.read_table(path).num_rows for path in (tmp_path / "home").rglob("*.parquet")]
    # The worker that was killed could not write what it had not written yet.
    assert 20 <= sum(written) <= 140


def sample(url: str, name: str) -> float | None:
    lines = requests.get(f"{url}/metrics", timeout=5).text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " ")), None)


def both_have_a_model(url: str) -> None:
    wait_until(lambda: sample(url, "housing_models_loaded") == 2.0)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
