"""The feature pipeline: what it learns, what it gives, and that a row gives the same bits in any company."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline

from housing_assets.formats import decode, encode
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.preprocessing import (
    CITIES,
    FeatureEncoder,
    FeatureSettings,
    RowFeatures,
    best_k,
    fit_preprocessing,
    scan_clusters,
    training_matrix,
)
from housing_assets_tests.ml.block_groups import block_groups
from housing_serving.features import CATEGORIES, RAW_FEATURES, ROW_FEATURES, TARGET
from housing_serving.neighbours import ALIKE_FEATURES, FEATURES


def fitted(train: pd.DataFrame, n_clusters: int = 4) -> Pipeline:
    """Row features, imputer and encoder, from raw columns to the matrix."""
    imputer = BedroomImputer().fit(train)
    preprocessing = fit_preprocessing(
        imputer, train, FeatureSettings(n_clusters=n_clusters, gamma=0.5), seed=1
    )
    return Pipeline([("row_features", RowFeatures()), *preprocessing.steps])


def test_matrix_columns_are_named_and_counted() -> None:
    pipeline = fitted(block_groups(200))
    names = pipeline[-1].get_feature_names_out()
    assert names[:8].tolist() == list(RAW_FEATURES[:8])
    assert names[8:12].tolist() == list(ROW_FEATURES)
    assert names[12:16].tolist() == [f"cluster_similarity_{number}" for number in range(4)]
    assert names[16:21].tolist() == [f"ocean_proximity={category}" for category in CATEGORIES]
    assert names[21:32].tolist() == [f"rotated_coordinate_{number}" for number in range(11)]
    assert names[32:40].tolist() == [f"distance_{name}" for name, *_ in CITIES]
    assert names[40:].tolist() == [*FEATURES, *ALIKE_FEATURES]
    assert pipeline.transform(block_groups(200)).shape == (200, 40 + len(FEATURES) + len(ALIKE_FEATURES))


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        (FeatureSettings(ratios=False), 4),
        (FeatureSettings(n_clusters=0), 50),
        (FeatureSettings(rotations=0), 11),
        (FeatureSettings(city_distances=False), 8),
        (FeatureSettings(neighbours=False), len(FEATURES) + len(ALIKE_FEATURES)),
    ],
)
def test_each_kind_of_feature_can_be_left_out(settings: FeatureSettings, missing: int) -> None:
    train = block_groups(200)
    imputer = BedroomImputer("median").fit(train)
    whole = fit_preprocessing(imputer, train)
    less = fit_preprocessing(imputer, train, settings)
    assert less["encoder"].settings == settings
    assert set(less["encoder"].spec_.names) < set(whole["encoder"].spec_.names)
    assert whole["encoder"].spec_.size - less["encoder"].spec_.size == missing
    assert less.transform(train).shape == (200, less["encoder"].spec_.size)


def test_no_row_learns_from_its_own_price() -> None:
    train = block_groups(300)
    preprocessing = fit_preprocessing(
        BedroomImputer("median").fit(train), train, FeatureSettings(n_clusters=4)
    )
    dearer = train.copy()
    dearer.loc[7, TARGET] += 1e6
    other = fit_preprocessing(BedroomImputer("median").fit(train), dearer, FeatureSettings(n_clusters=4))
    (one, _), (two, _) = training_matrix(preprocessing, train), training_matrix(other, dearer)
    assert one[7].tobytes() == two[7].tobytes()
    assert (one != two).any(axis=1).sum() > 1


def surroundings(preprocessing: Pipeline) -> list[bool]:
    """Which columns tell of a place what is told of known ones alone."""
    names = preprocessing["encoder"].spec_.names
    return [name.startswith(("nearby_", "rotated_", "distance_")) for name in names]


def test_some_rows_are_learned_a_second_time_as_if_far_from_all_others() -> None:
    train = block_groups(2_000)
    preprocessing = fit_preprocessing(BedroomImputer("median").fit(train), train)
    matrix, prices = training_matrix(preprocessing, train)
    again, around = matrix[len(train) :], surroundings(preprocessing)
    assert len(matrix) == len(prices) == 2_600
    assert (again[:, around] == 0).all()
    others = np.logical_not(around)
    once = {(row[others].tobytes(), price) for row, price in zip(matrix, prices[: len(train)], strict=False)}
    assert {(row[others].tobytes(), price) for row, price in zip(again, prices[2_000:], strict=True)} <= once


def test_a_place_far_from_all_others_is_seen_as_those_rows_are() -> None:
    train = block_groups(2_000)
    imputer = BedroomImputer("median").fit(train)
    preprocessing = fit_preprocessing(imputer, train)
    # In the desert: nobody lives within thirty kilometres.
    rows = train.head(3).assign(longitude=[-122.43, -114.9, -118.25], latitude=[37.76, 34.6, 34.06])
    matrix, around = preprocessing.transform(rows), surroundings(preprocessing)
    assert (matrix[1, around] == 0).all()
    assert (matrix[[0, 2]][:, around] != 0).mean() > 0.999
    # A model that was shown no such row could not price one.
    settings = FeatureSettings(remote_share=0.0)
    known = fit_preprocessing(imputer, train, settings).transform(rows)
    assert (known[:, around] != 0).mean() > 0.999


def test_only_the_rows_that_were_fitted_can_be_learned_from() -> None:
    train = block_groups(300)
    preprocessing = fit_preprocessing(
        BedroomImputer("median").fit(train), train, FeatureSettings(n_clusters=4)
    )
    with pytest.raises(ValueError, match="rows that its neighbours' prices come from"):
        training_matrix(preprocessing, train.head(50))


def test_prices_are_needed_for_neighbours_only() -> None:
    with pytest.raises(ValueError, match="no prices were given"):
        FeatureEncoder().fit(block_groups(100))
    FeatureEncoder(neighbours=False).fit(block_groups(100))


def test_each_row_gives_the_same_bits_alone_as_in_the_batch_with_and_without_bedrooms() -> None:
    frame = block_groups(1_000)
    pipeline = fitted(frame)
    for rows in (frame.head(60), frame.head(60).assign(total_bedrooms=np.nan)):
        batch = pipeline.transform(rows)
        far = batch[:, -1] == 0
        assert 0 < far.sum() < len(rows)
        for number in range(len(rows)):
            assert pipeline.transform(rows.iloc[[number]]).tobytes() == batch[number].tobytes()


def test_matrix_is_finite_and_holds_only_what_float32_can() -> None:
    frame = block_groups(500).assign(total_bedrooms=np.nan)
    matrix = fitted(block_groups(500)).transform(frame)
    assert np.isfinite(matrix).all()
    np.testing.assert_array_equal(matrix, matrix.astype(np.float32))


def test_two_fits_give_the_same_bits() -> None:
    frame = block_groups(500)
    assert fitted(frame).transform(frame).tobytes() == fitted(frame).transform(frame).tobytes()


def test_a_stored_pipeline_answers_as_the_fitted_one() -> None:
    frame = block_groups(200)
    pipeline = fitted(frame)
    stored = decode("pipeline.skops", encode("pipeline.skops", pipeline))
    assert stored.transform(frame).tobytes() == pipeline.transform(frame).tobytes()
    assert replace(stored[-1].spec_, neighbourhood=None) == replace(pipeline[-1].spec_, neighbourhood=None)


def test_only_raw_columns_matter() -> None:
    frame = block_groups(100)
    pipeline = fitted(frame)
    changed = frame.assign(**{TARGET: 1.0, "block_group_id": "x", "rooms_per_household": 99.0})
    np.testing.assert_array_equal(pipeline.transform(changed), pipeline.transform(frame[list(RAW_FEATURES)]))


def test_centres_are_where_the_block_groups_are_from_south_to_north() -> None:
    frame = block_groups(90)
    frame["latitude"] = [38.0] * 30 + [33.0] * 30 + [35.5] * 30
    frame["longitude"] = [-122.0] * 30 + [-117.0] * 30 + [-119.0] * 30
    spec = FeatureEncoder(n_clusters=3, gamma=2).fit(frame, frame[TARGET]).spec_
    np.testing.assert_allclose(spec.cluster_centers, [(33.0, -117.0), (35.5, -119.0), (38.0, -122.0)])
    assert (spec.gamma, spec.categories) == (2.0, CATEGORIES)


def test_an_absent_category_keeps_its_column() -> None:
    inland = block_groups(300).query("ocean_proximity == 'INLAND'")
    matrix = fitted(inland).transform(inland)
    np.testing.assert_array_equal(matrix[:, 16:21], [[0.0, 1.0, 0.0, 0.0, 0.0]] * len(inland))


def test_more_clusters_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="n_samples=3 should be >= n_clusters=50"):
        FeatureEncoder(neighbours=False).fit(block_groups(3))


def test_transformers_follow_scikit_learn() -> None:
    encoder = FeatureEncoder(n_clusters=3, gamma=0.7, random_state=5)
    assert clone(encoder).get_params() == encoder.get_params()
    assert (encoder.settings.n_clusters, encoder.settings.gamma) == (3, 0.7)
    with pytest.raises(NotFittedError):
        Pipeline([("encoder", encoder)]).transform(block_groups(3))
    raw = RowFeatures().fit_transform(block_groups(3))
    assert list(raw.columns) == [*RAW_FEATURES, *ROW_FEATURES]


def test_scan_reports_every_k_and_inertia_falls() -> None:
    scan = scan_clusters(block_groups(800), ks=(2, 4, 8), sample=300)
    assert list(scan.columns) == ["k", "inertia", "silhouette", "davies_bouldin", "price_wmape"]
    assert scan["k"].tolist() == [2, 4, 8]
    assert scan["inertia"].is_monotonic_decreasing
    assert scan["silhouette"].between(-1, 1).all()
    assert (scan["davies_bouldin"] > 0).all()
    assert scan["price_wmape"].between(5, 60).all()
    assert best_k(scan.assign(price_wmape=[3.0, 1.0, 2.0])) == 4


def test_scan_finds_three_towns() -> None:
    frame = block_groups(300)
    towns = np.arange(300) % 3
    near = np.random.default_rng(0).normal(0, 0.05, (300, 2))
    frame["latitude"] = np.array([33.0, 36.0, 39.0])[towns] + near[:, 0]
    frame["longitude"] = np.array([-117.0, -119.0, -122.0])[towns] + near[:, 1]
    scan = scan_clusters(frame, ks=range(2, 6))
    assert scan.loc[scan["silhouette"].idxmax(), "k"] == 3
    assert scan.loc[scan["davies_bouldin"].idxmin(), "k"] == 3


def test_scan_depends_on_the_seed_alone() -> None:
    frame = block_groups(300)
    pd.testing.assert_frame_equal(
        scan_clusters(frame, (3, 5), seed=4), scan_clusters(frame, (3, 5), seed=4), check_exact=True
    )
