"""Permutation importance: what a model uses counts, what it ignores does not, and inputs move as a whole."""

import numpy as np
import pandas as pd
import pytest

from housing_assets.ml.permutation import INPUTS, permutation_importances
from housing_assets_tests.ml.block_groups import block_groups
from housing_serving.features import RAW_FEATURES, TARGET, FloatArray


def rows(number: int = 400) -> pd.DataFrame:
    """Block groups whose price is ten thousand times the income, and a little for every household."""
    frame = block_groups(number)
    return frame.assign(**{TARGET: 1e4 * frame["median_income"] + 0.1 * frame["households"] + 1e5})


def exact(frame: pd.DataFrame) -> FloatArray:
    prices: FloatArray = 1e4 * frame["median_income"] + 0.1 * frame["households"] + 1e5
    return np.asarray(prices)


def test_only_what_the_model_uses_is_worth_something() -> None:
    table = permutation_importances(exact, rows(), repeats=2)
    assert table["input"].iloc[0] == "median_income"
    found = table.set_index("input")["mae_increase"]
    used = {"median_income", "households", "all_counts"}
    assert set(found[found > 0].index) == used
    assert (found.drop(list(used)) == 0).all()
    # Two incomes drawn at random differ by this much on average.
    income = rows()["median_income"].to_numpy()
    apart = np.abs(income[:, None] - income[None, :]).mean()
    assert found["median_income"] == pytest.approx(1e4 * apart, rel=0.1)


def test_longitude_and_latitude_are_dealt_out_as_one_place() -> None:
    frame = rows()
    places = set(zip(frame["longitude"], frame["latitude"], strict=True))
    seen: list[pd.DataFrame] = []

    def price(asked: pd.DataFrame) -> FloatArray:
        seen.append(asked)
        return np.asarray(asked[TARGET])

    permutation_importances(price, frame, repeats=1)
    assert len(seen) == 1 + len(INPUTS)
    for asked in seen:
        assert set(zip(asked["longitude"], asked["latitude"], strict=True)) <= places
    moved = [not asked["longitude"].equals(seen[0]["longitude"]) for asked in seen[1:]]
    assert moved == [name == "place" for name in INPUTS]


def test_every_raw_column_is_an_input() -> None:
    assert {column for columns in INPUTS.values() for column in columns} == set(RAW_FEATURES)


def test_rows_beyond_the_limit_are_left_out_and_the_frame_is_untouched() -> None:
    frame = rows()
    before = frame.copy()
    sizes = set[int]()

    def price(asked: pd.DataFrame) -> FloatArray:
        sizes.add(len(asked))
        return exact(asked)

    one = permutation_importances(price, frame, repeats=2, max_rows=50, seed=3)
    assert sizes == {50}
    pd.testing.assert_frame_equal(frame, before)
    same, other = (permutation_importances(exact, frame, repeats=2, max_rows=50, seed=s) for s in (3, 4))
    pd.testing.assert_frame_equal(one, same)
    assert not one.equals(other)
