"""Model families: what is built, and how large the grids are."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Lasso, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from housing_assets.ml.families import (
    BINS_OF,
    FAMILIES,
    GRIDS,
    build_estimator,
    candidates,
    predict_with,
    rehearsed,
    tunable_parameters,
)
from housing_assets.ml.search_spaces import load_search_spaces


def test_the_five_published_families_are_known_and_two_more() -> None:
    published = ("RandomForest", "GradientBoosting", "Ridge", "Lasso", "DecisionTree")
    assert (*published, "LightGBM", "HistGradientBoosting") == FAMILIES


@pytest.mark.parametrize(
    ("family", "settings"),
    [("RandomForest", 180), ("GradientBoosting", 300), ("Ridge", 9), ("Lasso", 9), ("DecisionTree", 96)],
)
def test_the_full_grids_have_the_published_sizes(family: str, settings: int) -> None:
    tried = candidates(family, "full")
    assert len(tried) == settings
    assert len({str(sorted(params.items())) for params in tried}) == settings


@pytest.mark.parametrize("grid", list(GRIDS))
@pytest.mark.parametrize("family", FAMILIES)
def test_every_grid_setting_builds_and_lies_in_the_search_space(family: str, grid: str) -> None:
    space = load_search_spaces()[family]
    for params in candidates(family, grid):
        assert space.contains(params), params
        build_estimator(family, params, seed=1)


def test_a_forest_is_seeded_and_fits_on_all_cores() -> None:
    forest = build_estimator("RandomForest", {"n_estimators": 7}, seed=5)
    assert isinstance(forest, RandomForestRegressor)
    assert (forest.n_estimators, forest.random_state, forest.n_jobs) == (7, 5, -1)


@pytest.mark.parametrize(("family", "regressor"), [("Ridge", Ridge), ("Lasso", Lasso)])
def test_linear_models_carry_their_own_scaler(family: str, regressor: type) -> None:
    model = build_estimator(family, {"alpha": 2.0}, seed=5)
    assert isinstance(model, Pipeline)
    scaler, last = (step for _, step in model.steps)
    assert isinstance(scaler, StandardScaler)
    assert isinstance(last, regressor)
    assert last.alpha == 2.0


@pytest.mark.parametrize("family", ["RandomForest", "GradientBoosting", "DecisionTree"])
def test_trees_are_never_scaled(family: str) -> None:
    assert not isinstance(build_estimator(family, {}, seed=5), Pipeline)


def test_a_forest_predicts_on_one_thread_so_that_its_sum_has_one_order() -> None:
    x = np.arange(20, dtype=np.float64).reshape(-1, 1)
    forest = build_estimator("RandomForest", {"n_estimators": 5}, seed=5).fit(x, x[:, 0])
    predicted = predict_with(forest, x)
    assert forest.n_jobs == 1
    assert np.array_equal(predicted, np.concatenate([forest.predict(row[None]) for row in x]))


def test_a_forest_rehearses_with_fewer_trees_and_nothing_else_does() -> None:
    assert rehearsed("RandomForest", {"n_estimators": 300, "max_depth": 9}, 1 / 3) == {
        "n_estimators": 100,
        "max_depth": 9,
    }
    assert rehearsed("RandomForest", {"n_estimators": 100}, 1 / 9) == {"n_estimators": 20}
    assert rehearsed("RandomForest", {"n_estimators": 12}, 1 / 9) == {"n_estimators": 12}
    assert rehearsed("RandomForest", {"max_depth": 9}, 1 / 3) == {"max_depth": 9}
    assert rehearsed("RandomForest", {"n_estimators": 300}, 1) == {"n_estimators": 300}


@pytest.mark.parametrize(("family", "bins"), BINS_OF.items())
def test_a_booster_looks_for_splits_in_fewer_bins_on_a_share_of_the_rows(family: str, bins: str) -> None:
    assert rehearsed(family, {"learning_rate": 0.1}, 1 / 9) == {"learning_rate": 0.1, bins: 63}
    assert rehearsed(family, {bins: 31}, 1 / 9) == {bins: 31}
    assert rehearsed(family, {bins: 200}, 1 / 9) == {bins: 63}
    assert rehearsed(family, {bins: 200}, 1) == {bins: 200}
    x, y = np.random.default_rng(0).normal(size=(2, 500))
    few, many = (
        build_estimator(family, rehearsed(family, {}, share), seed=5).fit(x[:, None], y).predict(x[:, None])
        for share in (1 / 9, 1)
    )
    assert len(np.unique(few)) < len(np.unique(many))


def test_unknown_names_are_refused_with_what_is_known() -> None:
    with pytest.raises(ValueError, match=r"unknown model family 'XGBoost': choose of RandomForest, Grad"):
        build_estimator("XGBoost", {}, seed=1)
    with pytest.raises(ValueError, match="Ridge has no hyperparameter depth, trees"):
        build_estimator("Ridge", {"trees": 3, "depth": 2}, seed=1)
    with pytest.raises(ValueError, match="unknown grid 'huge': choose one of small, full"):
        candidates("Ridge", "huge")


def test_what_is_fixed_or_seeded_is_not_tunable() -> None:
    tunable = tunable_parameters("RandomForest")
    assert {"n_estimators", "max_depth", "max_features"} <= tunable
    assert not tunable & {"n_jobs", "random_state", "verbose", "warm_start"}
