"""Compaction: each answered instance once, every other row accounted for, and always the same bytes."""

import io
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from housing_assets.monitoring import compaction
from housing_assets.monitoring.compaction import REUSED, Compaction, RawFile, compact
from housing_assets.monitoring.prediction_rows import SCHEMA
from housing_assets_tests.monitoring.days import DAY, answered, raw_files, resampled, stored

ROWS = 1_000


def table_of(files: Sequence[RawFile]) -> tuple[Compaction, pd.DataFrame, bytes]:
    sink = io.BytesIO()
    done = compact(files, DAY, sink)
    assert done.rows_read == done.rows + done.duplicates + done.rows_rejected
    table = parquet.read_table(io.BytesIO(sink.getvalue()))
    assert table.schema.equals(SCHEMA)
    return done, table.to_pandas(), sink.getvalue()


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return answered(resampled(ROWS, seed=1))


def test_every_row_of_every_file_is_in_the_table(rows: pd.DataFrame) -> None:
    done, table, _ = table_of(raw_files(rows[:300], rows[300:301], rows[301:]))
    pd.testing.assert_frame_equal(table, rows, check_dtype=False)
    assert (done.files, done.rows_read, done.rows, done.duplicates, done.rejected) == (3, ROWS, ROWS, 0, {})


def test_files_in_any_order_give_the_same_bytes(rows: pd.DataFrame) -> None:
    files = raw_files(rows[:300], rows[300:600], rows[600:])
    assert table_of(files)[2] == table_of(files[::-1])[2] == table_of(files)[2]


def test_a_file_that_was_stored_twice_counts_once(rows: pd.DataFrame) -> None:
    done, table, _ = table_of(raw_files(rows[:600], rows[:600], rows[400:]))
    assert (done.rows_read, done.rows, done.duplicates) == (1_800, ROWS, 800)
    assert not table.duplicated(["request_id", "instance"]).any()
    assert len(done.rejected_rows) == 0


def test_a_late_file_is_included_the_next_time(rows: pd.DataFrame) -> None:
    before, _, _ = table_of(raw_files(rows[:600]))
    after, table, _ = table_of(raw_files(rows[:600], rows[600:]))
    assert (before.rows, after.rows, after.duplicates) == (600, ROWS, 0)
    assert set(table["request_id"]) == set(rows["request_id"])


def test_a_request_id_that_a_caller_used_again_is_listed_and_the_first_answer_stays(
    rows: pd.DataFrame,
) -> None:
    again = rows[:20].assign(answered_at=rows["answered_at"] + timedelta(hours=3), latency_ms=77.0)
    # The later answer comes first.
    done, table, _ = table_of(raw_files(again, rows))
    assert (done.rows, done.duplicates, done.rejected) == (ROWS, 0, {REUSED: 20})
    assert set(table["latency_ms"]) == {4.0}
    listed = done.rejected_rows.to_pandas()
    assert listed["request_id"].tolist() == again["request_id"].tolist()
    assert listed["row"].tolist() == list(range(1, 21))


WRONG = {
    "request_id is null": {"request_id": None},
    "request_id is empty": {"request_id": ""},
    "instance is negative": {"instance": -1},
    f"answered_at is not on {DAY}": {"answered_at": pd.Timestamp("2026-03-03", tz="UTC")},
    "model_version is not a version's number": {"model_version": "latest"},
    "median_income is null": {"median_income": np.nan},
    "median_income is not between 0 and 100": {"median_income": 101.0},
    "total_bedrooms is not between 1 and 1,000,000": {"total_bedrooms": 0.0},
    "ocean_proximity is not one of <1H OCEAN, INLAND, ISLAND, NEAR BAY, NEAR OCEAN": {
        "ocean_proximity": "SEA"
    },
    "predicted_price is not finite": {"predicted_price": np.inf},
    "predicted_price is not between lower and upper": {"lower": 9e9},
    "level is not between 0 and 1": {"level": 90.0},
    "latency_ms is negative or not finite": {"latency_ms": -1.0},
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_wrong_row_is_listed_with_its_reason(rows: pd.DataFrame, reason: str) -> None:
    wrong = rows.copy()
    for name, value in WRONG[reason].items():
        wrong[name] = wrong[name].mask(wrong.index == 7, value)
    done, table, _ = table_of(raw_files(wrong))
    assert (done.rejected, len(table)) == ({reason: 1}, ROWS - 1)
    [listed] = done.rejected_rows.to_pylist()
    assert (listed["reason"], listed["file"], listed["row"]) == (reason, "000000.parquet", 8)


def test_null_bedrooms_are_right(rows: pd.DataFrame) -> None:
    done, table, _ = table_of(raw_files(rows.assign(total_bedrooms=np.nan)))
    assert done.rows == ROWS
    assert table["total_bedrooms"].isna().all()


def test_a_wrong_row_does_not_hide_the_right_one_of_its_id(rows: pd.DataFrame) -> None:
    broken = rows[:10].assign(answered_at=rows["answered_at"] - timedelta(milliseconds=5), latency_ms=-1.0)
    done, table, _ = table_of(raw_files(broken, rows))
    assert (done.rows, done.rejected) == (ROWS, {"latency_ms is negative or not finite": 10})
    assert set(table["request_id"]) == set(rows["request_id"])


def test_files_that_hold_no_predictions_are_named_with_the_reason(rows: pd.DataFrame) -> None:
    torn = RawFile("a-torn.parquet", lambda: stored(rows)[:-500])
    foreign = io.BytesIO()
    rows[["request_id"]].to_parquet(foreign)
    text = io.BytesIO()
    rows.assign(median_income="much").to_parquet(text)
    files = [
        torn,
        RawFile("b-foreign.parquet", foreign.getvalue),
        RawFile("c-text.parquet", text.getvalue),
        *raw_files(rows),
    ]
    done, table, _ = table_of(files)
    assert (done.files, done.rows_read, len(table)) == (4, ROWS, ROWS)
    assert list(done.wrong_files) == ["a-torn.parquet", "b-foreign.parquet", "c-text.parquet"]
    assert "is not a readable Parquet file" in done.wrong_files["a-torn.parquet"]
    assert done.wrong_files["b-foreign.parquet"].startswith("has no column instance, answered_at")
    assert "has a column of another type" in done.wrong_files["c-text.parquet"]


def test_a_day_without_predictions_is_an_empty_table() -> None:
    done, table, _ = table_of([])
    assert (done.files, done.rows_read, len(table)) == (0, 0, 0)


def test_row_groups_are_as_large_as_memory_shall_hold(
    rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "ROW_GROUP_ROWS", 64)
    _, table, data = table_of(raw_files(rows[:3], rows[3:150], rows[150:]))
    metadata = parquet.ParquetFile(io.BytesIO(data)).metadata
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert groups == [64] * 15 + [40]
    assert table["request_id"].tolist() == rows["request_id"].tolist()


def test_very_many_rejected_rows_are_all_counted(rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MAX_LISTED", 50)
    done, _, _ = table_of(raw_files(rows[:40].assign(latency_ms=-1.0), rows[40:].assign(latency_ms=-1.0)))
    assert (done.rows, done.rows_rejected, len(done.rejected_rows)) == (0, ROWS, 50)
