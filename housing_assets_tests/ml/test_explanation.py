"""Explanations are Shapley values: as defined, as the reference library finds them, adding up to prices."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from itertools import combinations
from math import factorial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMRegressor
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.linear_model import Lasso, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeRegressor
from threadpoolctl import threadpool_limits

from housing_assets.ml.columns import columns_of
from housing_assets.ml.explanation import explanation_file, mean_contributions
from housing_assets.ml.export import bundle_files
from housing_assets.ml.families import LINEAR_FAMILIES
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.intervals import Interval
from housing_assets.ml.onnx_compiler import UnsupportedEstimator
from housing_assets.ml.preprocessing import FeatureSettings, fit_preprocessing
from housing_assets.ml.selection import FAMILIES
from housing_assets.ml.training import fit_model
from housing_assets_tests.ml.block_groups import block_groups, small_folds
from housing_serving import explanation
from housing_serving.bundle import Bundle
from housing_serving.explanation import AdditiveModel, Explainer, Explanation, explain_rows
from housing_serving.features import CATEGORIES, LIMITS, NUMERIC_FEATURES

FloatArray = NDArray[np.float64]

TREES = {
    "tree": DecisionTreeRegressor(max_depth=12, random_state=1),
    "tree of one leaf": DecisionTreeRegressor(min_samples_leaf=400),
    "forest": RandomForestRegressor(20, min_samples_leaf=3, random_state=1),
    "boosting": GradientBoostingRegressor(n_estimators=40, max_depth=5, subsample=0.7, random_state=1),
    "histogram boosting": HistGradientBoostingRegressor(max_iter=40, min_samples_leaf=5, random_state=1),
}
LINES = {
    "ridge": make_pipeline(StandardScaler(), Ridge(alpha=2.0)),
    "lasso": make_pipeline(StandardScaler(), Lasso(alpha=50.0)),
    "centred ridge": make_pipeline(StandardScaler(with_std=False), Ridge()),
    "divided ridge": make_pipeline(StandardScaler(with_mean=False), Ridge()),
    "ridge scaled twice": make_pipeline(StandardScaler(), StandardScaler(), Ridge()),
}
CHEAP: dict[str, dict[str, Any]] = {
    "RandomForest": {"n_estimators": 10},
    "GradientBoosting": {"n_estimators": 20},
}
ROWS = 300


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine the threads of histogram boosting would mostly wait for each other."""
    with threadpool_limits(limits=1):
        yield


@cache
def rows() -> tuple[FloatArray, FloatArray, FloatArray]:
    fold = small_folds()[0]
    return fold.x_train, fold.y_train, fold.x_valid


def explained(model: BaseEstimator, x: FloatArray) -> Explanation:
    width = x.shape[1]
    names = [f"feature_{index}" for index in range(width)]
    additive = AdditiveModel.read(explanation_file(model, width), width)
    return Explainer(additive, names).explain(x, model.predict(x))


def expectation(tree: Any, row: FloatArray, known: set[int], node: int = 0) -> float:
    """What a tree answers when only some features are known: elsewhere both ways, by their training rows."""
    left, right = tree.children_left[node], tree.children_right[node]
    if left < 0:
        return float(tree.value[node, 0, 0])
    if tree.feature[node] in known:
        goes_left = row[tree.feature[node]] <= tree.threshold[node]
        return expectation(tree, row, known, left if goes_left else right)
    cover = tree.weighted_n_node_samples
    parts = (cover[child] * expectation(tree, row, known, child) for child in (left, right))
    return float(sum(parts) / cover[node])


def shapley_value(tree: Any, row: FloatArray, feature: int, features: int, root: int = 0) -> float:
    """A feature's mean difference over every order in which the features may become known."""
    others = [other for other in range(features) if other != feature]
    value = 0.0
    for size in range(features):
        weight = factorial(size) * factorial(features - size - 1) / factorial(features)
        for known in map(set, combinations(others, size)):
            more = expectation(tree, row, known | {feature}, root)
            value += weight * (more - expectation(tree, row, known, root))
    return value


def shapley_value_of_all(model: AdditiveModel, row: FloatArray, feature: int) -> float:
    """The same of every tree of a model, together."""
    trees = SimpleNamespace(
        children_left=model.left,
        children_right=model.right,
        feature=model.feature,
        threshold=model.threshold,
        value=model.value.reshape(-1, 1, 1),
        weighted_n_node_samples=model.cover,
    )
    roots = set(range(len(model.left))) - set(model.left) - set(model.right)
    return sum(shapley_value(trees, row, feature, len(row), root) for root in roots)


def test_a_tree_is_explained_as_shapley_values_are_defined() -> None:
    generator = np.random.default_rng(3)
    x = generator.integers(0, 8, (200, 4)).astype(np.float64)
    y = 1000 * x[:, 0] * x[:, 1] + 500 * x[:, 2] ** 2 + generator.normal(0, 900, 200)
    model = DecisionTreeRegressor(max_depth=7, min_samples_leaf=2, random_state=1).fit(x, y)
    asked = x[:25]
    found = explained(model, asked)
    expected = [[shapley_value(model.tree_, row, feature, 4) for feature in range(4)] for row in asked]
    np.testing.assert_allclose(found.contributions, expected, rtol=0, atol=1e-8)
    assert found.base_value == pytest.approx(expectation(model.tree_, asked[0], set()), abs=1e-8)
    # Every feature counts somewhere, and most paths ask for one more than once.
    assert (np.abs(found.contributions).max(axis=0) > 100).all()


@pytest.mark.parametrize("leaves", [2, 8, 31])
def test_trees_are_explained_as_the_library_that_grew_them_does(leaves: int) -> None:
    x_train, y_train, x = rows()
    model = LGBMRegressor(n_estimators=30, num_leaves=leaves, min_child_samples=5, n_jobs=1, verbose=-1)
    model.fit(x_train, y_train)
    *reference, base = model.predict(x, pred_contrib=True).T
    found = explained(model, x)
    np.testing.assert_allclose(found.contributions, np.transpose(reference), rtol=0, atol=1e-6)
    assert found.base_value == pytest.approx(base[0], abs=1e-6)


@pytest.mark.parametrize("model", TREES.values(), ids=TREES)
def test_every_kind_of_trees_is_explained_as_shapley_values_are_defined(model: BaseEstimator) -> None:
    x_train, y_train, x = (part[:, :4] if part.ndim > 1 else part for part in rows())
    model.fit(x_train, y_train)
    found = explained(model, x[:3])
    additive = AdditiveModel.read(explanation_file(model, 4), 4)
    for row, told in zip(x[:3], found.contributions, strict=True):
        expected = [shapley_value_of_all(additive, row, feature) for feature in range(4)]
        np.testing.assert_allclose(told, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", LINES.values(), ids=LINES)
def test_lines_are_explained_by_the_deviation_from_the_training_mean(model: BaseEstimator) -> None:
    x_train, y_train, x = rows()
    model.fit(x_train, y_train)
    mean = x_train.mean(axis=0)
    found = explained(model, x)
    assert found.base_value == pytest.approx(model.predict(mean[np.newaxis]).item(), abs=1e-6)
    for feature in range(x.shape[1]):
        moved = np.tile(mean, (len(x), 1))
        moved[:, feature] = x[:, feature]
        alone = model.predict(moved) - found.base_value
        np.testing.assert_allclose(found.contributions[:, feature], alone, rtol=0, atol=1e-5)


@cache
def pipeline_of(family: str) -> Pipeline:
    train = block_groups(ROWS)
    preprocessing = fit_preprocessing(
        BedroomImputer("ratio_boosting").fit(train), train, FeatureSettings(n_clusters=4)
    )
    return fit_model(preprocessing, train, family, CHEAP.get(family, {}))


@cache
def bundle_of(family: str) -> Bundle:
    files = bundle_files(
        pipeline_of(family),
        block_groups(ROWS),
        model_name="housing_price_model",
        model_version=3,
        algorithm=family,
        snapshot="2026-01-04",
        data_hash="d" * 64,
        git_commit="abc123",
        created_at=datetime(2026, 1, 4, 2, 0, tzinfo=UTC),
        metrics={},
        interval=Interval(0.9, -50_000.0, 60_000.0),
    )
    return Bundle.from_files(files, origin=family)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_s_contributions_add_up_to_the_price(family: str) -> None:
    columns = columns_of(block_groups(2 * ROWS))
    bundle = bundle_of(family)
    found = explain_rows(bundle, columns)
    np.testing.assert_array_equal(found.price, bundle.predict(columns).price)
    assert np.isnan(columns["total_bedrooms"]).any()
    for parts in (found.contributions, found.by_group):
        np.testing.assert_allclose(found.base_value + parts.sum(axis=1), found.price, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_most_extreme_block_groups_that_are_accepted_are_explained(family: str) -> None:
    generator = np.random.default_rng(5)
    columns: dict[str, NDArray[Any]] = {
        name: generator.choice(LIMITS[name], 200) for name in NUMERIC_FEATURES
    }
    columns["ocean_proximity"] = generator.choice(CATEGORIES, 200)
    found = explain_rows(bundle_of(family), columns)
    largest = np.abs(found.contributions).max()
    # Prices of linear models have no bounds.
    assert largest > 1e9 if family in LINEAR_FAMILIES else largest < 1e6
    difference = np.abs(found.base_value + found.by_group.sum(axis=1) - found.price)
    assert (difference <= np.maximum(1e-6, 1e-12 * np.abs(found.contributions).sum(axis=1))).all()


@pytest.mark.parametrize("family", ["RandomForest", "Ridge"])
def test_a_row_is_explained_with_the_same_bits_alone_and_in_a_batch(family: str) -> None:
    columns = columns_of(block_groups(30))
    batch = explain_rows(bundle_of(family), columns)
    for row in range(30):
        alone = explain_rows(bundle_of(family), {name: values[[row]] for name, values in columns.items()})
        np.testing.assert_array_equal(alone.by_group[0], batch.by_group[row])


def test_explanations_do_not_depend_on_how_many_paths_are_explained_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x_train, y_train, x = rows()
    forest = RandomForestRegressor(10, random_state=1).fit(x_train, y_train)
    together = explained(forest, x[:20])
    monkeypatch.setattr(explanation, "LEAVES_AT_ONCE", 7)
    np.testing.assert_allclose(explained(forest, x[:20]).contributions, together.contributions, atol=1e-8)


def test_features_are_grouped_as_people_know_them() -> None:
    found = explain_rows(bundle_of("DecisionTree"), columns_of(block_groups(2)))
    assert found.groups == (
        *("location", "housing_median_age", "total_rooms", "total_bedrooms", "population", "households"),
        *("median_income", "rooms_per_household", "population_per_household", "bedrooms_per_household"),
        *("bedrooms_per_room", "ocean_proximity"),
    )
    members: dict[str, list[str]] = {group: [] for group in found.groups}
    for name in found.features:
        members[explanation.group_of(name)].append(name)
    similarities = [f"cluster_similarity_{index}" for index in range(4)]
    assert members["location"][:6] == ["longitude", "latitude", *similarities]
    assert {name.partition("_")[0] for name in members["location"][6:]} == {"rotated", "distance", "nearby"}
    assert [name.partition("=")[0] for name in members["ocean_proximity"]] == ["ocean_proximity"] * 5
    alone = set(found.groups) - {"location", "ocean_proximity"}
    assert all(members[group] == [group] for group in alone)


def test_mean_contributions_are_those_of_a_sample_largest_first() -> None:
    pipeline, frame = pipeline_of("GradientBoosting"), block_groups(80)
    everything = mean_contributions(pipeline, frame, rows=1_000, seed=1)
    found = explain_rows(bundle_of("GradientBoosting"), columns_of(frame))
    expected = pd.Series(np.abs(found.by_group).mean(axis=0), found.groups)
    by_feature = everything.set_index("feature")["mean_absolute_contribution"]
    pd.testing.assert_series_equal(by_feature.sort_index(), expected.sort_index(), check_names=False)
    assert by_feature.is_monotonic_decreasing
    assert by_feature.index[0] in {"median_income", "location"}
    some, same = (mean_contributions(pipeline, frame, rows=30, seed=2) for _ in range(2))
    pd.testing.assert_frame_equal(some, same)
    assert not some.equals(everything)


def test_the_same_estimator_gives_the_same_bytes() -> None:
    x, y, _ = rows()
    one, same = (RandomForestRegressor(5, random_state=1).fit(x, y) for _ in range(2))
    assert explanation_file(one, x.shape[1]) == explanation_file(same, x.shape[1])


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (ExtraTreesRegressor(2), "ExtraTreesRegressor has no exact export"),
        (Ridge(), "Ridge without a StandardScaler does not know"),
        (make_pipeline(Lasso(alpha=1e5)), "Lasso without a StandardScaler does not know"),
        (make_pipeline(StandardScaler(with_mean=False, with_std=False), Ridge()), "Ridge without"),
        (make_pipeline(MinMaxScaler(), Ridge()), "only StandardScalers and a Ridge or Lasso"),
        (make_pipeline(StandardScaler(), DecisionTreeRegressor()), "only StandardScalers and a Ridge or"),
    ],
)
def test_what_cannot_be_explained_is_refused(model: BaseEstimator, problem: str) -> None:
    x, y, _ = rows()
    with pytest.raises(UnsupportedEstimator, match=problem):
        explanation_file(model.fit(x, y), x.shape[1])


def test_trees_of_more_features_than_there_are_cannot_be_stored() -> None:
    x, y, _ = rows()
    with pytest.raises(
        ValueError, match="DecisionTreeRegressor cannot be explained: a split is on a feature"
    ):
        explanation_file(DecisionTreeRegressor(random_state=1).fit(x, y), 2)
