"""Schemas: real rows pass, and each impossible value is named with its column, row and reason."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from housing_assets.ml.cleaning import add_row_features, process
from housing_assets.ml.schemas import (
    FEATURED_SCHEMA,
    PROCESSED_SCHEMA,
    RAW_SCHEMA,
    SPLIT_SCHEMA,
    validate,
)
from housing_assets.sources import packaged_source, parse
from housing_serving.features import LIMITS, RAW_FEATURES, ROW_FEATURES, TARGET


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return parse(packaged_source())


@pytest.fixture
def raw(published: pd.DataFrame) -> pd.DataFrame:
    return published.iloc[:100].copy()


@pytest.fixture
def processed(raw: pd.DataFrame) -> pd.DataFrame:
    return process(raw).frame


@pytest.fixture
def featured(processed: pd.DataFrame) -> pd.DataFrame:
    return add_row_features(processed)


def test_the_packaged_table_passes_every_step(published: pd.DataFrame) -> None:
    frame = process(published).frame
    for table, schema in (
        (published, RAW_SCHEMA),
        (frame, PROCESSED_SCHEMA),
        (add_row_features(frame), FEATURED_SCHEMA),
        (add_row_features(frame).iloc[::5], SPLIT_SCHEMA),
    ):
        report = validate(table, schema)
        assert report.passed, report.summary
        assert report.rows == len(table)
        assert list(report.failures.columns) == ["column", "check", "row", "value"]
    assert validate(published, RAW_SCHEMA).summary == "raw: 20640 rows, nothing wrong"


def test_the_schemas_cover_exactly_the_contract() -> None:
    assert list(RAW_SCHEMA.columns) == [*RAW_FEATURES, TARGET]
    assert list(PROCESSED_SCHEMA.columns) == ["block_group_id", *RAW_FEATURES, TARGET]
    assert list(FEATURED_SCHEMA.columns) == ["block_group_id", *RAW_FEATURES, TARGET, *ROW_FEATURES]
    assert list(SPLIT_SCHEMA.columns) == list(FEATURED_SCHEMA.columns)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("longitude", -200.0, "expected between -124.5 and -114, not so in row 3 (-200.0)"),
        ("longitude", -113.9, "expected between -124.5 and -114, not so in row 3 (-113.9)"),
        ("latitude", 48.8, "expected between 32.4 and 42.1, not so in row 3 (48.8)"),
        ("housing_median_age", -1.0, "expected between 0 and 120, not so in row 3 (-1.0)"),
        ("total_rooms", -7099.0, "expected between 1 and 1,000,000, not so in row 3 (-7099.0)"),
        ("total_bedrooms", 0.0, "expected between 1 and 1,000,000, not so in row 3 (0.0)"),
        ("population", -3.0, "expected between 1 and 1,000,000, not so in row 3 (-3.0)"),
        ("households", np.inf, "expected between 1 and 1,000,000, not so in row 3 (inf)"),
        ("median_income", 101.0, "expected between 0 and 100, not so in row 3 (101.0)"),
        ("median_house_value", -1.0, "expected between 1 and 100,000,000, not so in row 3 (-1.0)"),
        ("median_house_value", np.nan, "expected no nulls, not so in row 3 (nan)"),
        ("ocean_proximity", None, "expected no nulls, not so in row 3 (None)"),
        (
            "ocean_proximity",
            "MOON",
            "expected one of <1H OCEAN, INLAND, ISLAND, NEAR BAY, NEAR OCEAN, not so in row 3 (MOON)",
        ),
    ],
)
def test_an_impossible_value_is_named(raw: pd.DataFrame, column: str, value: object, reason: str) -> None:
    raw.loc[2, column] = value
    report = validate(raw, RAW_SCHEMA)
    assert not report.passed
    assert report.summary == f"raw: 1 failure(s) in 100 rows: column {column}: {reason}"
    assert report.failures[["column", "row"]].to_numpy().tolist() == [[column, 3]]


@pytest.mark.parametrize("column", LIMITS)
def test_the_limits_themselves_are_possible(raw: pd.DataFrame, column: str) -> None:
    raw.loc[[0, 1], column] = LIMITS[column]
    assert validate(raw, RAW_SCHEMA).passed


def test_only_bedrooms_may_be_unknown(raw: pd.DataFrame) -> None:
    raw.loc[::2, "total_bedrooms"] = np.nan
    assert validate(raw, RAW_SCHEMA).passed


def test_all_failures_are_reported_at_once_by_column_and_row(raw: pd.DataFrame) -> None:
    raw.loc[[9, 4], "longitude"] = [0.0, 1.0]
    raw.loc[7, "population"] = -3.0
    raw.loc[0, "ocean_proximity"] = "MOON"
    report = validate(raw, RAW_SCHEMA)
    found = report.failures[["column", "row", "value"]].to_numpy().tolist()
    assert found == [
        ["longitude", 5, 1.0],
        ["longitude", 10, 0.0],
        ["population", 8, -3.0],
        ["ocean_proximity", 1, "MOON"],
    ]
    assert "4 failure(s)" in report.summary


def test_the_summary_shows_the_first_ten_rows(raw: pd.DataFrame) -> None:
    raw["latitude"] = -1.0
    report = validate(raw, RAW_SCHEMA)
    assert len(report.failures) == 100
    assert report.summary.endswith("row 9 (-1.0), row 10 (-1.0) and 90 more")


def test_rows_are_counted_by_position_and_the_frame_stays_as_it_is(raw: pd.DataFrame) -> None:
    part = raw.iloc[50:].copy()
    part.iloc[1, part.columns.get_loc("latitude")] = 0.0
    before = part.copy()
    assert "row 2 (0.0)" in validate(part, RAW_SCHEMA).summary
    pd.testing.assert_frame_equal(part, before)


def test_exact_duplicates_are_counted_and_allowed_in_raw_data(raw: pd.DataFrame) -> None:
    report = validate(pd.concat([raw, raw.head(3)]), RAW_SCHEMA)
    assert report.passed
    assert report.duplicate_rows == 3
    assert report.summary == "raw: 103 rows, nothing wrong; 3 exact duplicates"


def test_a_block_group_is_there_once(processed: pd.DataFrame) -> None:
    report = validate(pd.concat([processed, processed.iloc[[3]]]), PROCESSED_SCHEMA)
    name = processed["block_group_id"].iloc[3]
    assert (
        f"column block_group_id: expected no duplicates, not so in row 4 ({name}), row 101 ({name})"
        in report.summary
    )


def test_ids_are_sixteen_hexadecimal_digits(processed: pd.DataFrame) -> None:
    processed.loc[0, "block_group_id"] = "0" * 15 + "G"
    processed.loc[1, "block_group_id"] = "0" * 17
    report = validate(processed, PROCESSED_SCHEMA)
    assert report.failures["row"].tolist() == [1, 2]
    assert "expected 16 hexadecimal digits" in report.summary


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda frame: frame.drop(columns="latitude"), "column latitude: missing column"),
        (lambda frame: frame.assign(zip=1), "column zip: unexpected column"),
        (
            lambda frame: frame.astype({"total_rooms": int}),
            "column total_rooms: type float64 expected, found int64",
        ),
        (
            lambda frame: frame.assign(population="many"),
            "column population: type float64 expected, found object",
        ),
        (lambda frame: frame.head(0), "table: at least one row"),
    ],
)
def test_a_table_of_another_shape(
    raw: pd.DataFrame, change: Callable[[pd.DataFrame], pd.DataFrame], reason: str
) -> None:
    report = validate(change(raw), RAW_SCHEMA)
    assert report.summary == f"raw: 1 failure(s) in {report.rows} rows: {reason}"
    assert report.failures["row"].isna().all()


def test_columns_out_of_order_are_named(raw: pd.DataFrame) -> None:
    swapped = raw[["latitude", "longitude", *raw.columns[2:]]]
    report = validate(swapped, RAW_SCHEMA)
    assert report.failures["column"].tolist() == ["latitude", "longitude"]
    assert "column latitude: not at its place in the column order" in report.summary


def test_ratios_are_positive_and_known_where_bedrooms_are(featured: pd.DataFrame) -> None:
    featured.loc[[0, 1], "bedrooms_per_room"] = [np.nan, np.inf]
    featured.loc[2, "rooms_per_household"] = 0.0
    featured.loc[3, "total_bedrooms"] = np.nan
    featured.loc[4, ["total_bedrooms", "bedrooms_per_room", "bedrooms_per_household"]] = np.nan
    report = validate(featured, FEATURED_SCHEMA)
    agree = "bedroom ratios null exactly where total_bedrooms is"
    assert report.failures[["column", "check", "row"]].to_numpy().tolist() == [
        ["total_bedrooms", agree, 1],
        ["total_bedrooms", agree, 4],
        ["rooms_per_household", "above 0, finite", 3],
        ["bedrooms_per_room", "above 0, finite", 2],
    ]


def test_a_missing_ratio_column_is_reported_once(featured: pd.DataFrame) -> None:
    report = validate(featured.drop(columns="bedrooms_per_room"), SPLIT_SCHEMA)
    assert report.summary == "split: 1 failure(s) in 100 rows: column bedrooms_per_room: missing column"
