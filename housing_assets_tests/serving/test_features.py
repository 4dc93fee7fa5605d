"""Features: worked-out values, the column contract, and the same bits for one row as for many."""

import numpy as np
import pytest

from housing_assets_tests.serving.bundles import INSTANCE, PREPROCESSING, columns_of, random_columns
from housing_serving.features import (
    CATEGORIES,
    LIMITS,
    NUMERIC_FEATURES,
    RAW_FEATURES,
    FeatureSpec,
    feature_matrix,
    rbf_similarity,
    round_to_float32,
    row_features,
)

SPEC = PREPROCESSING.spec()


def test_raw_features_are_the_nine_published_columns_in_order() -> None:
    assert RAW_FEATURES == (
        "longitude",
        "latitude",
        "housing_median_age",
        "total_rooms",
        "total_bedrooms",
        "population",
        "households",
        "median_income",
        "ocean_proximity",
    )
    assert tuple(LIMITS) == NUMERIC_FEATURES


def test_row_features_are_the_ratios_of_the_counts() -> None:
    columns = columns_of({**INSTANCE, "total_rooms": 600, "total_bedrooms": 150, "households": 100})

    ratios = {name: values.tolist() for name, values in row_features(columns).items()}

    assert ratios == {
        "rooms_per_household": [6.0],
        "population_per_household": [3.22],
        "bedrooms_per_household": [1.5],
        "bedrooms_per_room": [0.25],
    }


def test_null_bedrooms_give_null_ratios_without_a_warning() -> None:
    ratios = row_features(columns_of({**INSTANCE, "total_bedrooms": None, "households": 0}))

    assert np.isnan(ratios["bedrooms_per_room"]).all()
    assert np.isinf(ratios["rooms_per_household"]).all()


def test_similarity_is_one_at_a_centre_and_fades_with_squared_distance() -> None:
    centers = np.array([[34.0, -118.0], [36.0, -119.0]])

    similarity = rbf_similarity(np.array([34.0]), np.array([-118.0]), centers, gamma=0.2)

    assert similarity.tolist() == [[1.0, pytest.approx(np.exp(-1.0))]]


def test_matrix_columns_follow_the_names() -> None:
    instance = {**INSTANCE, "latitude": 34.0, "longitude": -118.0, "households": 100, "total_bedrooms": 150}
    spec = FeatureSpec(("INLAND", "NEAR BAY"), ((34.0, -118.0), (35.0, -118.0)), gamma=1.0)

    matrix = feature_matrix(columns_of(instance), spec)

    assert spec.size == len(spec.names) == 16
    assert dict(zip(spec.names, matrix[0].tolist(), strict=True)) == {
        "longitude": -118.0,
        "latitude": 34.0,
        "housing_median_age": 41.0,
        "total_rooms": 880.0,
        "total_bedrooms": 150.0,
        "population": 322.0,
        "households": 100.0,
        "median_income": float(np.float32(8.3252)),
        "rooms_per_household": float(np.float32(8.8)),
        "population_per_household": float(np.float32(3.22)),
        "bedrooms_per_household": 1.5,
        "bedrooms_per_room": float(np.float32(150 / 880)),
        "cluster_similarity_0": 1.0,
        "cluster_similarity_1": float(np.float32(np.exp(-1.0))),
        "ocean_proximity=INLAND": 0.0,
        "ocean_proximity=NEAR BAY": 1.0,
    }


def test_matrix_is_contiguous_double_that_float32_can_hold() -> None:
    matrix = feature_matrix(random_columns(50), SPEC)

    assert matrix.shape == (50, 19)
    assert matrix.dtype == np.float64
    assert matrix.flags.c_contiguous
    assert np.array_equal(round_to_float32(matrix), matrix, equal_nan=True)


@pytest.mark.parametrize("dtype", ["<U10", object])
def test_unseen_category_is_all_zeros(dtype: str) -> None:
    columns = columns_of(INSTANCE, INSTANCE)
    columns["ocean_proximity"] = np.array(["ON MARS", "ISLAND"], dtype=dtype)

    one_hot = feature_matrix(columns, SPEC)[:, -len(CATEGORIES) :]

    assert one_hot.tolist() == [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0]]


def test_each_row_has_the_same_bits_alone_as_in_the_batch() -> None:
    columns = random_columns(300)
    batch = feature_matrix(columns, SPEC)

    alone = [
        feature_matrix({name: values[row : row + 1] for name, values in columns.items()}, SPEC)[0].tobytes()
        for row in range(300)
    ]

    assert alone == [row.tobytes() for row in batch]


def test_no_rows_give_an_empty_matrix() -> None:
    assert feature_matrix(random_columns(0), SPEC).shape == (0, 19)
