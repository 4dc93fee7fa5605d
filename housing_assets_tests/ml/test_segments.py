"""Errors by segment and calibration, by hand: every row in one part, and what each column says."""

import numpy as np
import pandas as pd
import pytest

from housing_assets.ml.segments import (
    SEGMENTATIONS,
    calibration,
    equal_parts,
    errors_by,
    income_quintiles,
    price_deciles,
    regions,
    segment_tables,
)
from housing_assets_tests.ml.block_groups import block_groups


def predictions(rows: int = 97) -> pd.DataFrame:
    """Prices and a model that is wrong by a tenth, up and down in turn."""
    frame = block_groups(rows)
    actual = frame["median_house_value"]
    predicted = actual * np.where(np.arange(rows) % 2, 0.9, 1.1)
    return frame.assign(actual=actual, predicted=predicted, covered=np.arange(rows) % 4 > 0).assign(
        lower=lambda frame: frame["predicted"] - 1.0, upper=lambda frame: frame["predicted"] + 1.0
    )


def test_parts_are_of_one_size_however_many_values_are_the_same() -> None:
    values = pd.Series([5.0, 5.0, 5.0, 1.0, 9.0, 5.0])
    assert equal_parts(values, 3).tolist() == [0, 1, 1, 0, 2, 2]
    assert (
        np.bincount(equal_parts(pd.Series(np.zeros(25)), 10)).tolist() == [3, 2, 3, 2, 3, 2, 3, 2, 3, 2][:10]
    )


def test_errors_of_a_segment_by_hand() -> None:
    frame = pd.DataFrame(
        {
            "actual": [100_000.0, 200_000.0, 400_000.0],
            "predicted": [110_000.0, 170_000.0, 400_000.0],
            "lower": [90_000.0, 160_000.0, 390_000.0],
            "upper": [140_000.0, 180_000.0, 420_000.0],
            "covered": [True, False, True],
        }
    )
    table = errors_by(frame, np.array(["b", "b", "a"], dtype=object), "side").set_index("side")
    assert table.index.tolist() == ["a", "b"]
    assert table.loc["a"].to_dict() == {
        **{"rows": 1, "mae": 0.0, "rmse": 0.0, "mape": 0.0, "wmape": 0.0},
        **{"within_10pct": 100.0, "bias": 0.0, "coverage": 1.0, "width": 30_000.0},
    }
    b = table.loc["b"]
    assert (b["rows"], b["mae"], b["bias"], b["coverage"]) == (2, 20_000.0, -10_000.0, 0.5)
    assert b["width"] == pytest.approx((50_000 + 20_000) / 2)
    assert b["rmse"] == pytest.approx(np.sqrt((1e8 + 9e8) / 2))
    assert b["mape"] == pytest.approx((10 + 15) / 2)
    assert b["wmape"] == pytest.approx(100 * 40 / 300)


def test_every_segmentation_has_every_row_once() -> None:
    frame = predictions()
    tables = segment_tables(frame)
    assert tables.keys() == SEGMENTATIONS.keys()
    for name, table in tables.items():
        assert table.columns[0] == name
        assert table["rows"].sum() == len(frame), name
        covered = (table["coverage"] * table["rows"]).sum()
        assert covered == pytest.approx(frame["covered"].sum()), name
    assert len(tables["price_decile"]) == 10
    assert len(tables["income_quintile"]) == 5


def test_deciles_ascend_by_published_price_and_are_named_by_it() -> None:
    frame = predictions()
    labels = pd.Series(price_deciles(frame), index=frame.index)
    means = frame["actual"].groupby(labels).mean()
    assert means.is_monotonic_increasing
    lowest = frame["actual"].min()
    assert means.index[0].startswith(f"01: ${lowest:,.0f} to $")
    assert means.index[9].startswith("10: $")


def test_quintiles_are_named_in_dollars() -> None:
    frame = predictions(5).assign(median_income=[0.5, 1.0, 2.0, 3.0, 15.0])
    assert income_quintiles(frame).tolist() == [
        *("01: $5,000 to $5,000", "02: $10,000 to $10,000", "03: $20,000 to $20,000"),
        *("04: $30,000 to $30,000", "05: $150,000 to $150,000"),
    ]


@pytest.mark.parametrize(
    ("city", "latitude", "longitude", "region"),
    [
        ("San Francisco", 37.77, -122.42, "north-west"),
        ("Sacramento", 38.58, -121.49, "north-east"),
        ("Fresno", 36.74, -119.78, "north-east"),
        ("Los Angeles", 34.05, -118.25, "south-west"),
        ("San Diego", 32.72, -117.16, "south-east"),
        ("Riverside", 33.95, -117.40, "south-east"),
    ],
)
def test_cities_are_where_people_would_say(city: str, latitude: float, longitude: float, region: str) -> None:
    place = pd.DataFrame({"latitude": [latitude], "longitude": [longitude]})
    assert regions(place)[0].startswith(region), city


def test_calibration_by_hand() -> None:
    frame = pd.DataFrame({"actual": [90.0, 110.0, 150.0, 250.0], "predicted": [100.0, 101.0, 200.0, 201.0]})
    table = calibration(frame, 2)
    assert table[["part", "rows"]].to_numpy().tolist() == [[1, 2], [2, 2]]
    assert table["predicted"].tolist() == [100.5, 200.5]
    assert table["actual"].tolist() == [100.0, 200.0]
    # Two values that are 20 apart: their mean has a standard error of 10.
    assert (table["high"] - table["actual"]).tolist() == pytest.approx([19.6, 98.0])
    assert (table["actual"] - table["low"]).tolist() == pytest.approx([19.6, 98.0])


def test_a_part_of_one_row_has_no_interval() -> None:
    table = calibration(pd.DataFrame({"actual": [1.0, 2.0], "predicted": [1.0, 2.0]}), 2)
    assert table["actual"].tolist() == [1.0, 2.0]
    assert table[["low", "high"]].isna().all(axis=None)
