"""The prediction log: every row once and whole, bounded and counted, whatever the disk or the bucket does."""

import io
import json
import logging
import random
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from housing_assets_tests import conftest
from housing_assets_tests.conftest import GcsServer
from housing_assets_tests.scripted_http import ScriptedHandler, answer, lose_answer, scripted_server
from housing_assets_tests.serving.bundles import columns_of, random_columns
from housing_assets_tests.serving.test_metrics import batch_of, exposed
from housing_serving import prediction_log
from housing_serving.answers import AnswerBatch, AnswerColumns
from housing_serving.bundle import Predictions
from housing_serving.features import NUMERIC_FEATURES
from housing_serving.metrics import Metrics
from housing_serving.prediction_files import PredictionFile
from housing_serving.prediction_log import Answer, FileWriter, PredictionLog
from housing_serving.settings import ServingSettings

DEADLINE_SECONDS = 60.0
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("instance", pa.int32()),
        ("answered_at", pa.timestamp("us", tz="UTC")),
        ("latency_ms", pa.float64()),
        ("model_version", pa.string()),
        ("longitude", pa.float64()),
        ("latitude", pa.float64()),
        ("housing_median_age", pa.float64()),
        ("total_rooms", pa.float64()),
        ("total_bedrooms", pa.float64()),
        ("population", pa.float64()),
        ("households", pa.float64()),
        ("median_income", pa.float64()),
        ("ocean_proximity", pa.string()),
        ("predicted_price", pa.float64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("level", pa.float64()),
    ]
)


def answered(request_id: str, rows: int = 1, **changes: Any) -> Answer:
    price = np.arange(rows) * 1000.0 + 200_000.0
    fields: dict[str, Any] = {
        "request_id": request_id,
        "answered_at": NOON,
        "latency_seconds": 0.00125,
        "model_version": "3",
        "level": 0.9,
        "columns": random_columns(rows, seed=len(request_id) + rows),
        "predictions": Predictions(price, price - 1e5, price + 1e5),
    }
    return Answer(**(fields | changes))


def settings(home: Path, **changes: Any) -> ServingSettings:
    fields: dict[str, Any] = {"housing_home": home, "housing_prediction_log_seconds": 0.05}
    return ServingSettings(**(fields | changes))


def bucket_settings(home: Path, bucket: str) -> ServingSettings:
    return settings(home, housing_deployment="gcp", gcs_bucket_name=bucket)


@contextmanager
def running(configured: ServingSettings, **limits: int) -> Iterator[tuple[PredictionLog, Metrics]]:
    """A started log and its metrics; closed at the end, and nothing may be lost then."""
    metrics = Metrics()
    log = PredictionLog(configured, metrics, **limits)
    log.start()
    try:
        yield log, metrics
    finally:
        log.close(DEADLINE_SECONDS)
    assert log.status().buffered_rows == 0


def wait_for(what: str, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"
        time.sleep(0.01)


def files_in(home: Path) -> list[Path]:
    return sorted((home / "storage/monitoring/predictions").glob("*/*.parquet"))


def everything_in(home: Path) -> list[Path]:
    return [path for path in (home / "storage").rglob("*") if path.is_file()]


def rows_in(home: Path) -> list[dict[str, Any]]:
    """All logged rows, in the order of request and instance."""
    tables = [pq.ParquetFile(path).read() for path in files_in(home)]
    assert all(table.schema.equals(SCHEMA) for table in tables)
    rows = [row for table in tables for row in table.to_pylist()]
    return sorted(rows, key=lambda row: (row["request_id"], row["instance"]))


def keys(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(row["request_id"], row["instance"]) for row in rows]


# What is written


def test_a_row_is_what_was_asked_and_answered(tmp_path: Path) -> None:
    instance = {
        "longitude": -122.23,
        "latitude": 37.88,
        "housing_median_age": 41,
        "total_rooms": 880,
        "total_bedrooms": None,
        "population": 322,
        "households": 126,
        "median_income": 8.3252,
        "ocean_proximity": "NEAR BAY",
    }
    other = instance | {"total_bedrooms": 129, "ocean_proximity": "INLAND"}
    prices = Predictions(np.array([3e5, 1e5]), np.array([1.8e5, 0.0]), np.array([3.8e5, 1.8e5]))

    with running(settings(tmp_path)) as (log, _):
        log.record(
            Answer("6f1c", NOON + 0.123456, 0.00125, "12", 0.9, columns_of(instance, other), prices),
        )

    common = {
        "request_id": "6f1c",
        "answered_at": datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC),
        "latency_ms": 1.25,
        "model_version": "12",
        "level": 0.9,
    }
    assert rows_in(tmp_path) == [
        common | instance | {"instance": 0, "predicted_price": 3e5, "lower": 1.8e5, "upper": 3.8e5},
        common | other | {"instance": 1, "predicted_price": 1e5, "lower": 0.0, "upper": 1.8e5},
    ]


def test_every_recorded_row_is_written_once(tmp_path: Path) -> None:
    sizes = [1, 1000, 1, 7, 200, 1] * 25
    answers = [answered(f"request-{number:04}", rows) for number, rows in enumerate(sizes)]

    with running(settings(tmp_path), file_rows=5000) as (log, metrics):
        for recorded in answers:
            log.record(recorded)

    rows = rows_in(tmp_path)
    assert keys(rows) == [(a.request_id, index) for a in answers for index in range(len(a.predictions.price))]
    written = {name: np.array([row[name] for row in rows], dtype=float) for name in NUMERIC_FEATURES}
    for name in NUMERIC_FEATURES:
        np.testing.assert_array_equal(written[name], np.concatenate([a.columns[name] for a in answers]))
    assert log.status().written_rows == exposed(metrics)["prediction_log_written_rows_total"] == sum(sizes)
    assert len(files_in(tmp_path)) >= sum(sizes) // 8000
    assert sorted(everything_in(tmp_path)) == files_in(tmp_path)


def test_rows_lie_under_the_utc_day_they_were_answered_on(tmp_path: Path) -> None:
    midnight = datetime(2026, 1, 2, tzinfo=UTC).timestamp()
    with running(settings(tmp_path, housing_prediction_log_seconds=60)) as (log, _):
        log.record(answered("before", 2, answered_at=midnight - 0.001))
        log.record(answered("after", 3, answered_at=midnight))
        log.record(answered("late", 4, answered_at=midnight - 0.002))

    per_day = {path.parent.name: pq.ParquetFile(path).metadata.num_rows for path in files_in(tmp_path)}
    assert per_day == {"2026-01-01": 6, "2026-01-02": 3}
    for row in rows_in(tmp_path):
        assert row["answered_at"].day == (2 if row["request_id"] == "after" else 1)


def test_rows_are_written_while_the_service_runs(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as (log, metrics):
        log.record(answered("a", 3))
        wait_for("a file", lambda: log.status().written_rows == 3)
        assert len(rows_in(tmp_path)) == 3
        assert log.status().healthy
        assert exposed(metrics)["predicted_price_dollars_count"] == 3


def test_many_rows_are_written_before_the_interval_is_over(tmp_path: Path) -> None:
    with running(settings(tmp_path, housing_prediction_log_seconds=3600), file_rows=100) as (log, _):
        log.record(answered("a", 100))
        wait_for("a file", lambda: log.status().written_rows == 100)


def test_threads_lose_nothing(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as (log, _):
        threads = [
            threading.Thread(target=lambda n=n: [log.record(answered(f"{n}-{i}")) for i in range(500)])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(keys(rows_in(tmp_path))) == sorted((f"{n}-{i}", 0) for n in range(4) for i in range(500))


def test_two_writers_of_one_storage_never_collide(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as (first, _), running(settings(tmp_path)) as (second, _):
        for number in range(20):
            first.record(answered(f"first-{number}"))
            second.record(answered(f"second-{number}"))
            wait_for(
                "both", lambda n=number: first.status().written_rows == second.status().written_rows == n + 1
            )
    assert len(files_in(tmp_path)) == 40
    assert len(set(keys(rows_in(tmp_path)))) == 40


def test_without_a_log_the_distributions_are_still_observed(tmp_path: Path) -> None:
    with running(settings(tmp_path, housing_prediction_log=False)) as (log, metrics):
        log.record(answered("a", 5))
    assert exposed(metrics)["predicted_price_dollars_count"] == 5
    assert not (tmp_path / "storage").exists()
    status = log.status()
    assert (status.enabled, status.written_rows, status.dropped_rows) == (False, 0, 0)


def test_a_batch_has_the_instances_of_all_answers_in_their_order() -> None:
    answers = [answered(f"r{rows}", rows, level=rows / 10) for rows in (3, 1, 2)]
    batch = batch_of(*answers)
    assert len(batch) == 6
    assert batch.request_id.tolist() == ["r3", "r3", "r3", "r1", "r2", "r2"]
    assert batch.instance.tolist() == [0, 1, 2, 0, 0, 1]
    assert batch.level.tolist() == [0.3, 0.3, 0.3, 0.1, 0.2, 0.2]
    for name, values in batch.columns.items():
        expected = np.concatenate([one.columns[name] for one in answers])
        np.testing.assert_array_equal(values, expected)
    for end in ("price", "lower", "upper"):
        expected = np.concatenate([getattr(one.predictions, end) for one in answers])
        np.testing.assert_array_equal(getattr(batch, end), expected)
    part = batch.part(slice(2, 5))
    assert (part.request_id.tolist(), part.instance.tolist()) == (["r3", "r1", "r2"], [2, 0, 0])
    np.testing.assert_array_equal(part.columns["latitude"], batch.columns["latitude"][2:5])


def test_a_batch_of_no_answers_is_empty() -> None:
    batch = batch_of()
    assert len(batch) == 0
    assert list(batch.by_day()) == []


@pytest.mark.parametrize("wrong", ["longitude", "median_income", "ocean_proximity", "upper"])
def test_an_answer_with_columns_of_different_lengths_is_not_added_by_half(wrong: str) -> None:
    broken = answered("b", 2)
    if wrong == "upper":
        price = broken.predictions.price
        broken = broken._replace(predictions=Predictions(price, price, price[:1]))
    else:
        broken = broken._replace(columns={**broken.columns, wrong: broken.columns[wrong][:1]})
    columns = AnswerColumns()
    columns.add(answered("a", 2))
    with pytest.raises(ValueError, match="different lengths"):
        columns.add(broken)
    columns.add(answered("c"))
    assert len(columns) == 3
    assert columns.batch().request_id.tolist() == ["a", "a", "c"]


# Bounds


def test_what_does_not_fit_is_dropped_and_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    log = PredictionLog(settings(tmp_path), metrics, max_buffered_rows=10)
    for name, rows in (("a", 4), ("b", 6), ("c", 1), ("d", 1000)):
        log.record(answered(name, rows))
    status = log.status()
    assert (status.buffered_rows, status.dropped_rows) == (10, 1001)
    assert exposed(metrics)["prediction_log_dropped_rows_total{reason=buffer_full}"] == 1001

    log.start()
    wait_for("the rest to be written", lambda: log.status().written_rows == 10)
    log.record(answered("e", 10))
    log.close(DEADLINE_SECONDS)

    assert {row["request_id"] for row in rows_in(tmp_path)} == {"a", "b", "e"}
    assert (log.status().written_rows, log.status().dropped_rows) == (20, 1001)


def test_answers_that_wait_take_little_memory_and_are_converted_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    batch = AnswerColumns.batch

    def counted(columns: AnswerColumns) -> AnswerBatch:
        sizes.append(len(columns))
        return batch(columns)

    monkeypatch.setattr(AnswerColumns, "batch", counted)
    one, many = answered("a"), prediction_log.COLLECT_ROWS
    log = PredictionLog(settings(tmp_path), Metrics())
    tracemalloc.start()
    try:
        for number in range(3 * many - 7):
            log.record(one._replace(request_id=f"{number:036d}"))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / (3 * many) < 400
    log.record(answered("large", 20))
    log.record(answered("last"))
    log.start()
    log.close(DEADLINE_SECONDS)

    assert sizes[:4] == [many, many, many + 13, 1]
    written = keys(rows_in(tmp_path))
    assert len(set(written)) == len(written) == 3 * many + 14
    assert written[-21:] == [*(("large", number) for number in range(20)), ("last", 0)]


def test_what_comes_after_the_end_is_dropped_and_counted(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as (log, metrics):
        log.record(answered("a"))
    log.record(answered("b", 2))
    log.close(0)
    assert exposed(metrics)["prediction_log_dropped_rows_total{reason=shutdown}"] == 2
    assert keys(rows_in(tmp_path)) == [("a", 0)]


def test_a_log_that_never_started_counts_what_it_held(tmp_path: Path) -> None:
    log = PredictionLog(settings(tmp_path), Metrics())
    log.record(answered("a", 2))
    log.close(DEADLINE_SECONDS)
    assert (log.status().buffered_rows, log.status().dropped_rows) == (0, 2)


def test_answers_that_make_no_sense_cost_no_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = PredictionLog(settings(tmp_path), metrics := Metrics())
    short = random_columns(3) | {"latitude": np.array([37.0])}
    no_text = random_columns(2) | {"ocean_proximity": np.array([5, 6], dtype=object)}
    for recorded in (
        answered("a"),
        answered("no columns", 3, columns={}),
        answered("b"),
        answered("short", 3, columns=short),
        answered("no text", 2, columns=no_text),
        answered("c", 2),
    ):
        log.record(recorded)
    log.start()
    wait_for("the sound ones", lambda: log.status().written_rows == 4)
    assert not log.status().healthy
    log.close(DEADLINE_SECONDS)
    assert keys(rows_in(tmp_path)) == [("a", 0), ("b", 0), ("c", 0), ("c", 1)]
    found = exposed(metrics)
    assert found["prediction_log_dropped_rows_total{reason=broken}"] == 8
    assert found["predicted_price_dollars_count"] == 4
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["answers could not be logged", "prediction log drops rows"]


def test_a_file_that_cannot_be_made_costs_no_later_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_file = prediction_log.prediction_file
    defects = iter([ZeroDivisionError("a defect")])

    def fails_once(*arguments: Any) -> PredictionFile:
        for defect in defects:
            raise defect
        return make_file(*arguments)

    monkeypatch.setattr(prediction_log, "prediction_file", fails_once)
    with running(settings(tmp_path)) as (log, metrics):
        log.record(answered("a", 3))
        wait_for("the defect", lambda: log.status().dropped_rows == 3)
        log.record(answered("b", 2))
        wait_for("the later rows", lambda: log.status().written_rows == 2)
    assert keys(rows_in(tmp_path)) == [("b", 0), ("b", 1)]
    assert exposed(metrics)["prediction_log_dropped_rows_total{reason=broken}"] == 3
    assert "a defect" in caplog.text


def test_a_log_that_drops_is_unhealthy_until_it_was_calm_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "housing_serving")
    monkeypatch.setattr(prediction_log, "CALM_SECONDS", 0.2)
    with running(settings(tmp_path), max_buffered_rows=10) as (log, _):
        log.record(answered("too large", 11))
        wait_for("the problem", lambda: not log.status().healthy)
        assert log.status().problem == (
            "rows were dropped lately, housing_prediction_log_dropped_rows_total says why"
        )
        wait_for("calm", lambda: log.status().healthy)
    assert [record.getMessage() for record in caplog.records] == [
        "prediction log drops rows",
        "prediction log drops no more rows",
    ]


class FailsOnce:
    """A storage with a defect that shows only once."""

    uri = "nowhere"

    def __init__(self) -> None:
        self.attempts: list[PredictionFile] = []

    def prepare(self) -> None:
        pass

    def store(self, file: PredictionFile) -> None:
        self.attempts.append(file)
        if len(self.attempts) == 1:
            raise ZeroDivisionError("a defect")


def test_a_defect_of_the_storage_is_logged_and_the_file_stored_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prediction_log, "FIRST_RETRY_SECONDS", 0.05)
    storage, stored, failed = FailsOnce(), [], []
    writer = FileWriter(storage, stored.append, lambda: failed.append(1))
    file = PredictionFile("monitoring/predictions/2026-01-01/a.parquet", 3, b"rows")
    writer.start()
    writer.put(file)
    wait_for("the file", lambda: stored == [3])
    writer.close(time.monotonic() + DEADLINE_SECONDS)
    assert storage.attempts == [file, file]
    assert (failed, writer.problem) == ([1], None)
    assert "a defect" in caplog.text


# Faults of the disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(
            f"needs a small file system, mounting is not permitted: {mounted.stderr.decode().strip()}"
        )
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_costs_no_row_once_there_is_room_again(
    small_disk: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "FIRST_RETRY_SECONDS", 0.05)
    caplog.set_level(logging.INFO, "housing_serving")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))

    with running(settings(small_disk)) as (log, metrics):
        log.record(answered("a", 500))
        wait_for("three failures", lambda: exposed(metrics)["prediction_log_failed_writes_total"] >= 3)
        status = log.status()
        assert not status.healthy
        assert status.problem == (
            f"{small_disk}/storage/monitoring/predictions cannot be written (No space left on device): "
            "check the disk and its permissions"
        )
        assert (status.buffered_rows, status.written_rows) == (500, 0)
        assert [path for path in small_disk.rglob("*") if path.is_file()] == [filler]
        log.record(answered("b", 500))
        filler.unlink()
        wait_for("all rows", lambda: log.status().written_rows == 1000)
        assert log.status().healthy

    assert len(rows_in(small_disk)) == 1000
    assert [record.getMessage() for record in caplog.records] == [
        "prediction log is not stored, rows are kept",
        "prediction log is stored again",
    ]


def test_a_disk_that_stays_away_neither_delays_the_end_nor_hides_the_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "storage").write_text("a file in the place of the folder")
    metrics = Metrics()
    log = PredictionLog(settings(tmp_path), metrics)
    log.start()
    log.record(answered("a", 3))
    started = time.monotonic()
    log.close(0.5)
    assert time.monotonic() - started < DEADLINE_SECONDS
    found = exposed(metrics)
    assert found["prediction_log_dropped_rows_total{reason=shutdown}"] == 3
    assert found["prediction_log_buffered_rows"] == 0
    assert found["prediction_log_failed_writes_total"] >= 1
    assert "prediction log lost rows at the end" in [record.getMessage() for record in caplog.records]


def test_a_disk_that_stays_away_keeps_the_oldest_rows_within_the_bound(tmp_path: Path) -> None:
    blocked = tmp_path / "storage"
    blocked.write_text("a file in the place of the folder")
    with running(settings(tmp_path), max_buffered_rows=50) as (log, _):
        for number in range(9):
            log.record(answered(f"{number}", 10))
        assert (log.status().buffered_rows, log.status().dropped_rows) == (50, 40)
        wait_for("a problem", lambda: not log.status().healthy)
        blocked.unlink()
    assert {row["request_id"] for row in rows_in(tmp_path)} == {"0", "1", "2", "3", "4"}


WRITES_FOR_EVER = """
import pathlib, sys, time
import {module} as tests
from housing_serving.metrics import Metrics
from housing_serving.prediction_log import PredictionLog

log = PredictionLog(tests.settings(pathlib.Path(sys.argv[1]), housing_prediction_log_seconds=0.01), Metrics())
log.start()
number = 0
while True:
    number += 1
    log.record(tests.answered(f"{{sys.argv[2]}}-{{number}}", 100))
    time.sleep(0.001)
"""


def test_killed_writers_leave_only_whole_files(tmp_path: Path) -> None:
    chance = random.Random(7)
    for attempt in range(2):
        writers = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    WRITES_FOR_EVER.format(module=__name__),
                    tmp_path,
                    f"{attempt}{letter}",
                ]
            )
            for letter in "ab"
        ]
        enough = len(files_in(tmp_path)) + 10
        try:
            wait_for("some files", lambda n=enough: len(files_in(tmp_path)) >= n)
            time.sleep(chance.uniform(0, 0.05))
        finally:
            for writer in writers:
                writer.kill()
                writer.wait()
    rows = rows_in(tmp_path)
    assert len(set(keys(rows))) == len(rows)
    assert len({request.split("-")[0] for request, _ in keys(rows)}) >= 2
    assert len(rows) % 100 == 0


# Buckets


def objects_in(server: GcsServer, bucket: str) -> dict[str, "pa.Table"]:
    """The Parquet objects of a bucket, read through Google's client."""
    from google.cloud import storage  # noqa: PLC0415

    assert server.endpoint
    blobs = storage.Client().list_blobs(bucket)
    return {blob.name: pq.read_table(io.BytesIO(blob.download_as_bytes())) for blob in blobs}


def test_rows_lie_in_the_bucket(tmp_path: Path, gcs_server: GcsServer, gcs_bucket: str) -> None:
    with running(bucket_settings(tmp_path, gcs_bucket)) as (log, _):
        log.record(answered("a", 3))
        wait_for("an object", lambda: log.status().written_rows == 3)
        log.record(answered("b", 4))

    stored = objects_in(gcs_server, gcs_bucket)
    assert sorted(table.num_rows for table in stored.values()) == [3, 4]
    assert all(table.schema.equals(SCHEMA) for table in stored.values())
    assert all(name.startswith("monitoring/predictions/2026-01-01/") for name in stored)
    assert log.status().target == f"gs://{gcs_bucket}/monitoring/predictions"


def test_a_bucket_that_goes_and_comes_back_costs_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prediction_log, "FIRST_RETRY_SECONDS", 0.05)
    caplog.set_level(logging.INFO, "housing_serving")
    server = GcsServer(tmp_path)
    server.start()
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
        bucket = server.new_bucket()
        with running(bucket_settings(tmp_path, bucket)) as (log, _):
            log.record(answered("a", 3))
            wait_for("the first object", lambda: log.status().written_rows == 3)
            server.stop()
            log.record(answered("b", 4))
            wait_for("the failure", lambda: not log.status().healthy)
            assert log.status().problem == (
                f"gs://{bucket}/monitoring/predictions cannot be reached: "
                "check the network and the Google credentials"
            )
            log.record(answered("c", 5))
            monkeypatch.setattr(conftest, "free_port", lambda: int(server.endpoint.rpartition(":")[2]))
            server.start()
            wait_for("all rows", lambda: log.status().written_rows == 12)
            assert log.status().healthy
        assert sorted(table.num_rows for table in objects_in(server, bucket).values()) == [3, 4, 5]
    finally:
        server.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "prediction log is not stored, rows are kept",
        "prediction log is stored again",
    ]


def test_an_upload_whose_answer_is_lost_is_not_stored_twice(
    tmp_path: Path, gcs_server: GcsServer, gcs_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "FIRST_RETRY_SECONDS", 0.05)
    with scripted_server(gcs_server.endpoint) as faulty:
        faulty.script = [lose_answer]
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", faulty.url)
        with running(bucket_settings(tmp_path, gcs_bucket)) as (log, metrics):
            log.record(answered("a", 3))
            wait_for("the second attempt", lambda: log.status().written_rows == 3)
            assert exposed(metrics)["prediction_log_failed_writes_total"] == 1
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.endpoint)
    assert [table.num_rows for table in objects_in(gcs_server, gcs_bucket).values()] == [3]


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (403, "is forbidden: grant this service account roles/storage.objectCreator on the bucket b"),
        (404, "bucket b does not exist: create it, or set GCS_BUCKET_NAME to another"),
        (500, "gs://b/monitoring/predictions cannot be written: the storage keeps failing"),
    ],
)
def test_a_refusing_bucket_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, problem: str
) -> None:
    with scripted_server() as server:
        server.afterwards = answer(status)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        log = PredictionLog(bucket_settings(tmp_path, "b"), Metrics())
        log.start()
        log.record(answered("a"))
        wait_for("the failure", lambda: not log.status().healthy)
        log.close(0)
    assert problem in str(log.status().problem)


def test_a_hanging_bucket_stops_neither_the_metrics_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, released = threading.Event(), threading.Event()

    def hang(handler: ScriptedHandler, _: bytes) -> None:
        asked.set()
        released.wait(DEADLINE_SECONDS)
        handler.close_connection = True

    with scripted_server() as server:
        server.afterwards = hang
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        metrics = Metrics()
        log = PredictionLog(bucket_settings(tmp_path, "b"), metrics)
        log.start()
        log.record(answered("a", 3))
        assert asked.wait(DEADLINE_SECONDS)
        log.record(answered("b", 4))
        wait_for("distributions", lambda: exposed(metrics)["predicted_price_dollars_count"] == 7)
        log.close(0.3)
        assert not released.is_set()
        released.set()
    assert (log.status().buffered_rows, log.status().dropped_rows) == (0, 7)


def test_a_folder_needs_neither_google_nor_wandb(tmp_path: Path) -> None:
    code = (
        f"import json, pathlib, sys, {__name__} as tests\n"
        "from housing_serving.metrics import Metrics\n"
        "from housing_serving.prediction_log import PredictionLog\n"
        "before = set(sys.modules)\n"
        f"log = PredictionLog(tests.settings(pathlib.Path({str(tmp_path)!r})), Metrics())\n"
        "log.start(); log.record(tests.answered('a')); log.close(60)\n"
        "print(json.dumps([log.status().written_rows, sorted(set(sys.modules) - before)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    written, imported = json.loads(done.stdout)
    assert written == 1
    assert not [name for name in imported if name.split(".")[0] in {"google", "wandb", "pandas", "pyarrow"}]
