"""Metrics: what is counted, in which series, and that several processes add up even when one is killed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from housing_assets_tests.serving.bundles import bundle_files, random_columns
from housing_serving.answers import Answer, AnswerBatch, AnswerColumns
from housing_serving.bundle import Bundle, Predictions
from housing_serving.features import NUMERIC_FEATURES
from housing_serving.metrics import FEATURE_BOUNDS, UNMATCHED, BulkHistogram, Metrics
from housing_serving.model_slot import SourceStatus
from housing_serving.sources import LoadedModel

CREATED_AT = datetime(2025, 1, 5, 2, 0, tzinfo=UTC)


def series(text: str, prefix: str = "housing_") -> dict[str, float]:
    """The samples of an exposition by name and labels, as Prometheus reads them."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            name = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert name not in found, f"{name} is there twice"
            found[name] = sample.value
    return {name.removeprefix(prefix): value for name, value in found.items()}


def exposed(metrics: Metrics) -> dict[str, float]:
    body, content_type = metrics.exposition()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    return series(body.decode())


def loaded(version: int, source: str = "local") -> LoadedModel:
    bundle = Bundle.from_files(bundle_files(version=version, created_at=CREATED_AT), origin="test")
    return LoadedModel(bundle, source, f"/models/{version}")


def answer(rows: int, **changes: Any) -> Answer:
    fields: dict[str, Any] = {
        "request_id": "a",
        "answered_at": 1_767_225_600.0,
        "latency_seconds": 0.001,
        "model_version": "3",
        "level": 0.9,
        "columns": random_columns(rows),
        "predictions": Predictions(np.full(rows, 2e5), np.full(rows, 1e5), np.full(rows, 3e5)),
    }
    return Answer(**(fields | changes))


def batch_of(*answers: Answer) -> AnswerBatch:
    columns = AnswerColumns()
    for one in answers:
        columns.add(one)
    return columns.batch()


def test_requests_are_counted_by_method_route_and_status() -> None:
    metrics = Metrics()
    for status, seconds in ((200, 0.0004), (200, 0.004), (422, 0.0001)):
        metrics.request_started()
        metrics.request_finished("POST", "/api/v1/predict", status, seconds)
    metrics.request_started()

    found = exposed(metrics)

    assert found["requests_total{method=POST,route=/api/v1/predict,status=200}"] == 2
    assert found["requests_total{method=POST,route=/api/v1/predict,status=422}"] == 1
    assert found["requests_in_flight"] == 1
    assert found["request_duration_seconds_bucket{le=0.0002,route=/api/v1/predict}"] == 1
    assert found["request_duration_seconds_bucket{le=0.0005,route=/api/v1/predict}"] == 2
    assert found["request_duration_seconds_bucket{le=0.005,route=/api/v1/predict}"] == 3
    assert found["request_duration_seconds_count{route=/api/v1/predict}"] == 3
    assert found["request_duration_seconds_sum{route=/api/v1/predict}"] == pytest.approx(0.0045)


def test_methods_that_clients_make_up_are_one_series() -> None:
    metrics = Metrics()
    for number in range(50):
        metrics.request_started()
        metrics.request_finished(f"HACK{number}", UNMATCHED, 405, 0.001)

    found = exposed(metrics)

    assert [name for name in found if name.startswith("requests_total")] == [
        "requests_total{method=other,route=unmatched,status=405}"
    ]
    assert found["requests_total{method=other,route=unmatched,status=405}"] == 50


def test_predictions_are_counted_by_version() -> None:
    metrics = Metrics()
    for version, count in (("3", 1), ("3", 100), ("4", 1)):
        metrics.predicted(version, count)
    found = exposed(metrics)
    assert found["predictions_total{model_version=3}"] == 101
    assert found["predictions_total{model_version=4}"] == 1


def test_distributions_of_what_was_asked_and_answered() -> None:
    metrics = Metrics()
    columns = random_columns(3)
    columns |= {
        "total_bedrooms": np.array([np.nan, 100.0, 101.0]),
        "median_income": np.array([1.0, 1.01, 99.0]),
        "ocean_proximity": np.array(["INLAND", "NEAR BAY", "INLAND"], dtype=object),
    }
    prices = np.array([50_000.0, 50_001.0, 2e6])

    metrics.observe_answers(
        batch_of(answer(3, columns=columns, predictions=Predictions(prices, prices, prices)))
    )

    found = exposed(metrics)
    assert found["feature_total_bedrooms_null_total"] == 1
    assert [
        found[f"feature_total_bedrooms_bucket{{le={bound}}}"] for bound in ("30.0", "100.0", "200.0")
    ] == [*(0, 1, 2)]
    assert found["feature_total_bedrooms_sum"] == 201
    assert [
        found[f"feature_median_income_bucket{{le={bound}}}"] for bound in ("1.0", "1.5", "15.0", "+Inf")
    ] == [*(1, 2, 2, 3)]
    assert found["feature_ocean_proximity_total{category=INLAND}"] == 2
    assert found["feature_ocean_proximity_total{category=NEAR BAY}"] == 1
    assert [found[f"predicted_price_dollars_bucket{{le={bound}}}"] for bound in ("50000.0", "75000.0")] == [
        1,
        2,
    ]
    assert found["predicted_price_dollars_count"] == 3
    for name in NUMERIC_FEATURES:
        assert found[f"feature_{name}_count"] == 3 - (name == "total_bedrooms")


def test_the_age_of_the_model_is_unknown_until_there_is_one() -> None:
    metrics = Metrics()
    before = exposed(metrics)
    assert np.isnan(before["model_created_timestamp_seconds"])
    assert before["models_loaded"] == 0
    metrics.model_changed(loaded(3))
    after = exposed(metrics)
    assert after["model_created_timestamp_seconds"] == CREATED_AT.timestamp()
    assert after["model_loaded_timestamp_seconds"] > CREATED_AT.timestamp()
    assert after["models_loaded"] == 1


def test_only_the_current_model_is_one() -> None:
    metrics = Metrics()
    metrics.model_changed(loaded(3))
    metrics.model_changed(loaded(4, "mlflow"))
    metrics.model_changed(loaded(4, "mlflow"))
    found = exposed(metrics)
    assert {name: value for name, value in found.items() if name.startswith("model_info")} == {
        "model_info{algorithm=RandomForest,snapshot=2025-01-05,source=local,version=3}": 0,
        "model_info{algorithm=RandomForest,snapshot=2025-01-05,source=mlflow,version=4}": 1,
    }


def test_a_source_is_in_one_state() -> None:
    def statuses(mlflow: str) -> list[SourceStatus]:
        return [
            SourceStatus("mlflow", "http://mlflow:5000", mlflow, None, None),
            SourceStatus("local", "/models", "serving", None, None),
        ]

    metrics = Metrics()
    metrics.sources_changed(statuses("unavailable"))
    metrics.sources_changed(statuses("open"))
    found = exposed(metrics)
    states = {name for name, value in found.items() if name.startswith("source_state") and value}
    assert states == {"source_state{source=mlflow,state=open}", "source_state{source=local,state=serving}"}
    assert found["source_state{source=mlflow,state=unavailable}"] == 0


def test_the_process_itself_is_measured() -> None:
    assert exposed(Metrics())["process_resident_memory_bytes"] > 1e6


# Observing in bulk


OBSERVED = [-7.0, 0.0, 0.25, 0.5, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 1e9, -0.0]
# Sums of these are exact in any order.
BOUNDS = {"positive": (0.5, 1.0, 2.0), "negative": (-1.0, 0.0, 0.5)}


def one_by_one_and_at_once(folder: str) -> list[str]:
    """The expositions of both ways; `folder` is empty with one process."""
    texts = []
    for way in ("single", "bulk"):
        registry = CollectorRegistry()
        for name, bounds in BOUNDS.items():
            histogram = BulkHistogram(f"{way}_{name}", "Text.", ["route"], buckets=bounds, registry=registry)
            child = histogram.labels("/")
            if way == "bulk":
                child.observe_many(np.array(OBSERVED[:5]))
                child.observe_many(np.array([]))
                child.observe_many(np.array(OBSERVED[5:]))
            else:
                for amount in OBSERVED:
                    child.observe(amount)
        if folder:
            from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415

            registry = CollectorRegistry()
            MultiProcessCollector(registry, folder)
        lines = generate_latest(registry).decode().splitlines()
        texts.append("\n".join(sorted(line.replace(way, "way") for line in lines if way in line)))
    return texts


def test_many_observations_at_once_are_the_same_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prometheus_client.metrics._use_created", False)
    single, bulk = one_by_one_and_at_once("")
    assert 'way_positive_bucket{le="0.5",route="/"} 6.0' in single
    assert single == bulk


def test_many_observations_at_once_are_the_same_in_several_processes(tmp_path: Path) -> None:
    code = f"import json, {__name__} as t; print(json.dumps(t.one_by_one_and_at_once({str(tmp_path)!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        check=True,
        text=True,
    )
    single, bulk = json.loads(done.stdout)
    assert 'way_positive_bucket{le="0.5",route="/"} 6.0' in single
    assert single == bulk


def test_a_number_that_is_none_falls_in_no_bucket() -> None:
    histogram = BulkHistogram("h", "Text.", buckets=(1.0,), registry=None)
    histogram.observe_many(np.array([np.nan, 0.5]))
    assert [bucket.get() for bucket in histogram._buckets] == [1.0, 0.0]


def test_bounds_are_where_the_features_can_be() -> None:
    assert set(FEATURE_BOUNDS) == set(NUMERIC_FEATURES)


# Several processes


WORKER = """
import json, sys
import {module} as tests
from housing_serving.metrics import Metrics

metrics = Metrics()
print("ready", flush=True)
for line in sys.stdin:
    command, *arguments = json.loads(line)
    if command == "answer":
        metrics.request_started()
        metrics.request_finished("POST", "/api/v1/predict", 200, 0.0004)
        metrics.predicted("3", 10)
        metrics.observe_answers(tests.batch_of(tests.answer(10)))
    elif command == "load":
        metrics.model_changed(tests.loaded(*arguments))
    elif command == "expose":
        print(json.dumps(metrics.exposition()[0].decode()), flush=True)
        continue
    else:
        getattr(metrics, command)(*arguments)
    print("done", flush=True)
"""


class Worker:
    """A process with metrics of its own in a shared folder; does as it is told."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER.format(module=__name__)],
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> None:
        assert self._line() == "ready"

    def do(self, command: str, *arguments: object) -> None:
        self._send(command, *arguments)
        assert self._line() == "done"

    def exposition(self) -> dict[str, float]:
        self._send("expose")
        return series(json.loads(self._line()))

    def _send(self, *message: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0


@contextmanager
def workers(folder: Path, count: int) -> Iterator[list[Worker]]:
    started = [Worker(folder) for _ in range(count)]
    try:
        for worker in started:
            worker.wait_until_ready()
        yield started
    finally:
        for worker in started:
            worker.kill()


def test_processes_add_up_and_a_killed_one_leaves_what_it_counted(tmp_path: Path) -> None:
    # What a process leaves that is killed before its first entry.
    (tmp_path / "counter_1.db").touch()
    with workers(tmp_path, 3) as (first, second, third):
        for worker, answers in ((first, 1), (second, 2), (third, 3)):
            for _ in range(answers):
                worker.do("answer")
            worker.do("request_started")
            worker.do("log_buffered", 5)
            worker.do("log_dropped", "buffer_full", 2)
            worker.do("load", 3)

        together = first.exposition()
        third.kill()
        after_kill = first.exposition()
        second.do("close")
        second.end()
        after_end = first.exposition()

    counted = {
        "requests_total{method=POST,route=/api/v1/predict,status=200}": 6,
        "request_duration_seconds_bucket{le=0.0005,route=/api/v1/predict}": 6,
        "predictions_total{model_version=3}": 60,
        "feature_latitude_count": 60,
        "predicted_price_dollars_bucket{le=200000.0}": 60,
        "prediction_log_dropped_rows_total{reason=buffer_full}": 6,
        "model_info{algorithm=RandomForest,snapshot=2025-01-05,source=local,version=3}": 1,
        "model_created_timestamp_seconds": CREATED_AT.timestamp(),
    }
    for found, alive in ((together, 3), (after_kill, 2), (after_end, 1)):
        assert {name: found[name] for name in counted} == counted
        assert found["requests_in_flight"] == alive
        assert found["models_loaded"] == alive
        assert found["prediction_log_buffered_rows"] == 5 * alive


def test_before_a_model_is_loaded_its_age_is_not_shown(tmp_path: Path) -> None:
    with workers(tmp_path, 1) as (worker,):
        assert "model_created_timestamp_seconds" not in worker.exposition()


TAKES_OVER = """
import os, pathlib
import {module} as tests
from housing_serving.metrics import Metrics
for left in pathlib.Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("*.db"):
    left.rename(left.with_name(left.name.rpartition("_")[0] + f"_{{os.getpid()}}.db"))
found = tests.exposed(Metrics())
print(found["requests_in_flight"], found["prediction_log_written_rows_total"])
"""


def test_a_process_with_the_same_id_goes_on_counting_but_not_with_the_gauges(tmp_path: Path) -> None:
    with workers(tmp_path, 1) as (worker,):
        worker.do("request_started")
        worker.do("log_written", 4)
    done = subprocess.run(
        [sys.executable, "-c", TAKES_OVER.format(module=__name__)],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.split() == ["0.0", "4.0"]


def test_a_folder_named_too_late_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with pytest.raises(
        RuntimeError, match="set PROMETHEUS_MULTIPROC_DIR before prometheus_client is imported"
    ):
        Metrics()
