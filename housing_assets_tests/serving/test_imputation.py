"""Imputation: worked-out answers of every kind, ties, and rows that must not be touched."""

from typing import Any

import numpy as np
import pytest

from housing_assets_tests.serving.bundles import INSTANCE, columns_of, random_columns
from housing_serving import imputation
from housing_serving.imputation import (
    IMPUTER_INPUTS,
    ConstantImputer,
    NeighboursImputer,
    fill_bedrooms,
    imputer_matrix,
    neighbours_mean,
    whole_bedrooms,
)


def test_bedrooms_are_whole_and_at_least_one() -> None:
    assert whole_bedrooms(np.array([-3.0, 0.2, 1.5, 2.5, 99.51])).tolist() == [1, 1, 2, 2, 100]


def test_inputs_hold_neither_the_target_nor_the_imputed_column() -> None:
    assert not {"median_house_value", "total_bedrooms", "ocean_proximity"} & set(IMPUTER_INPUTS)

    matrix = imputer_matrix(columns_of(INSTANCE))

    expected = [-122.23, 37.88, 41, 880, 322, 126, 8.3252, 880 / 126, 322 / 126]
    assert matrix.tolist() == [[float(np.float32(value)) for value in expected]]
    assert matrix.flags.c_contiguous


def test_only_null_bedrooms_are_filled_and_the_argument_is_left_alone() -> None:
    columns = columns_of(INSTANCE, {**INSTANCE, "total_bedrooms": None})

    filled = fill_bedrooms(columns, ConstantImputer(435.4))

    assert filled["total_bedrooms"].tolist() == [129, 435]
    assert np.isnan(columns["total_bedrooms"][1])


def test_complete_columns_come_back_as_they_were() -> None:
    columns = columns_of(INSTANCE)

    filled = fill_bedrooms(columns, ConstantImputer(435.4))

    assert filled["total_bedrooms"] is columns["total_bedrooms"]
    assert filled is not columns


def _line(*positions: float) -> np.ndarray[Any, Any]:
    rows = np.zeros((len(positions), 7))
    rows[:, 0] = positions
    return rows


def _mean_of_nearest(position: float, k: int) -> float:
    answers = neighbours_mean(
        _line(position),
        reference=_line(0, 1, 2, 3),
        values=np.array([10.0, 20.0, 40.0, 80.0]),
        mean=np.zeros(7),
        scale=np.ones(7),
        k=k,
    )
    return float(answers[0])


def test_neighbours_mean_is_the_plain_mean_of_the_nearest() -> None:
    assert _mean_of_nearest(0.1, k=1) == 10
    assert _mean_of_nearest(0.1, k=2) == 15
    assert _mean_of_nearest(2.9, k=3) == pytest.approx((80 + 40 + 20) / 3)
    assert _mean_of_nearest(2.9, k=4) == 37.5


def test_of_equally_near_rows_the_first_wins() -> None:
    # 1 and 2 are equally far from 1.5, and so are 0 and 3.
    assert _mean_of_nearest(1.5, k=1) == 20
    assert _mean_of_nearest(1.5, k=3) == pytest.approx((20 + 40 + 10) / 3)


def test_rows_are_standardised_like_the_reference() -> None:
    answers = neighbours_mean(
        _line(130.0),
        reference=_line(0, 3),
        values=np.array([1.0, 2.0]),
        mean=np.array([100.0, 0, 0, 0, 0, 0, 0]),
        scale=np.array([10.0, 1, 1, 1, 1, 1, 1]),
        k=1,
    )
    assert answers.tolist() == [2.0]


def test_neighbours_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = imputer_matrix(random_columns(150))
    imputer = NeighboursImputer(
        reference=(matrix - matrix.mean(axis=0)) / matrix.std(axis=0),
        values=np.arange(150.0) / 7,
        mean=matrix.mean(axis=0),
        scale=matrix.std(axis=0),
        k=5,
    )
    columns = random_columns(100, seed=3)

    in_chunks = imputer.estimate(columns)
    monkeypatch.setattr(imputation, "NEIGHBOUR_CHUNK", 1)
    alone = imputer.estimate(columns)

    assert in_chunks.tobytes() == alone.tobytes()
