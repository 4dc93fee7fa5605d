"""The final model: fit, predictions, interval, evaluation, importances."""

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.pipeline import Pipeline

from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.preprocessing import fit_preprocessing
from housing_assets.ml.selection import Fold
from housing_assets.ml.split import split
from housing_assets.ml.training import (
    Interval,
    evaluate,
    feature_importances,
    fit_model,
    predict,
    residual_interval,
)
from housing_assets_tests.ml.block_groups import block_groups, small_folds
from housing_serving.features import RAW_FEATURES, TARGET

FOREST = {"n_estimators": 12, "max_depth": 8}
FAMILIES = {
    "RandomForest": FOREST,
    "GradientBoosting": {"n_estimators": 15, "subsample": 0.8},
    "Ridge": {"alpha": 1.0},
    "Lasso": {"alpha": 10.0},
    "DecisionTree": {"max_depth": 5},
}
ANY_INTERVAL = Interval(0.9, -50_000.0, 80_000.0)


def preprocessing_of(train: pd.DataFrame) -> Pipeline:
    return fit_preprocessing(BedroomImputer().fit(train), train, n_clusters=4)


def fit_small(family: str = "RandomForest") -> tuple[Pipeline, pd.DataFrame]:
    """A model of 800 real block groups' training side, and their test side."""
    train, test = split(block_groups(800))
    return fit_model(preprocessing_of(train), train, family, FAMILIES[family], 42), test


@pytest.mark.parametrize("family", FAMILIES)
def test_two_fits_predict_the_same_bits_and_beat_the_mean(family: str) -> None:
    (first, test), (second, _) = fit_small(family), fit_small(family)
    predicted = predict(first, test)
    assert predicted.tobytes() == predict(second, test).tobytes()
    assert evaluate(first, test, ANY_INTERVAL).metrics["r2"] > 0.4


@pytest.mark.parametrize("family", ["RandomForest", "GradientBoosting", "DecisionTree"])
def test_a_row_alone_is_priced_as_within_the_batch(family: str) -> None:
    model, test = fit_small(family)
    rows = test.head(20).assign(total_bedrooms=np.nan)
    alone = np.concatenate([predict(model, rows.iloc[[number]]) for number in range(20)])
    assert alone.tobytes() == predict(model, rows).tobytes()


def test_the_pipeline_takes_the_nine_raw_columns_and_ignores_others() -> None:
    model, test = fit_small()
    np.testing.assert_array_equal(model.predict(test[list(RAW_FEATURES)]), predict(model, test))
    changed = test.assign(**{TARGET: 1.0}).drop(columns="bedrooms_per_room")
    np.testing.assert_array_equal(predict(model, changed), predict(model, test))
    assert [name for name, _ in model.steps] == ["row_features", "preprocessing", "model"]


def test_a_fitted_forest_predicts_on_one_thread() -> None:
    model, _ = fit_small()
    assert model.named_steps["model"].n_jobs == 1


def test_preprocessing_is_not_fitted_again() -> None:
    train = block_groups(300)
    preprocessing = preprocessing_of(train)
    spec = preprocessing.named_steps["encoder"].spec_
    fit_model(preprocessing, train.head(50), "Ridge", {"alpha": 1.0}, 1)
    assert preprocessing.named_steps["encoder"].spec_ is spec


def zero_residual_folds(residuals: list[float]) -> list[Fold]:
    """Folds whose out-of-fold residuals are the given ones: every training price is zero."""
    x_train, y_train = np.zeros((4, 1)), np.zeros(4)
    halves = np.array_split(np.array(residuals), 2)
    return [Fold(x_train, y_train, np.zeros((len(half), 1)), half, np.arange(len(half))) for half in halves]


def test_interval_cuts_off_as_many_residuals_on_each_side() -> None:
    # 19 residuals, level 0.9: one of twenty on each side is ranks 1 and 19, that is the extremes.
    folds = zero_residual_folds(list(range(-9, 10)))
    assert residual_interval(folds, "DecisionTree", {}, 1, 0.9) == Interval(0.9, -9.0, 9.0)
    # Level 0.8 cuts off rank 1 and rank 19: 20 x 0.1 = 2 on each side.
    assert residual_interval(folds, "DecisionTree", {}, 1, 0.8) == Interval(0.8, -8.0, 8.0)


def test_interval_of_too_few_residuals_is_their_extremes() -> None:
    folds = zero_residual_folds([-3.0, 5.0, 1.0])
    assert residual_interval(folds, "DecisionTree", {}, 1, 0.99) == Interval(0.99, -3.0, 5.0)


def test_interval_always_holds_its_own_prediction() -> None:
    folds = zero_residual_folds([5.0, 6.0, 7.0, 8.0])
    assert residual_interval(folds, "DecisionTree", {}, 1, 0.5) == Interval(0.5, 0.0, 8.0)


def test_interval_covers_about_its_level_of_unseen_prices() -> None:
    train, test = split(block_groups(3_000))
    model = fit_model(preprocessing_of(train), train, "RandomForest", FOREST, 42)
    interval = residual_interval(small_folds(1_500), "RandomForest", FOREST, 42, 0.9)
    assert evaluate(model, test, interval).coverage == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize("level", [0.0, 1.0, 90])
def test_a_level_that_is_no_share_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match=f"above 0 and below 1, not {level}"):
        residual_interval(small_folds(), "Ridge", {}, 1, level)


def test_an_interval_needs_folds() -> None:
    with pytest.raises(ValueError, match="no folds"):
        residual_interval([], "Ridge", {}, 1)


def test_an_interval_ends_at_zero_not_below() -> None:
    interval = Interval(0.9, -100.0, 50.0)
    actual, predicted = np.array([0.0, 99.0, 100.0, 251.0]), np.array([30.0, 200.0, 200.0, 200.0])
    assert interval.contains(actual, predicted).tolist() == [True, False, True, False]


def test_evaluation_of_a_constant_model_by_hand() -> None:
    test = block_groups(4).assign(
        ocean_proximity=["INLAND", "INLAND", "INLAND", "NEAR BAY"],
        **{TARGET: [100_000.0, 200_000.0, 300_000.0, 200_000.0]},
    )
    constant = Pipeline([("model", DummyRegressor(strategy="constant", constant=200_000.0))])
    constant.fit(test, test[TARGET])
    evaluation = evaluate(constant, test, Interval(0.9, -50_000.0, 100_000.0))
    assert evaluation.metrics["mae"] == 50_000.0
    assert evaluation.coverage == 0.75
    assert evaluation.predictions["residual"].tolist() == [-100_000.0, 0.0, 100_000.0, 0.0]
    assert evaluation.predictions["block_group_id"].tolist() == test["block_group_id"].tolist()
    by_category = evaluation.by_category.set_index("ocean_proximity")
    assert by_category["rows"].to_dict() == {"INLAND": 3, "NEAR BAY": 1}
    assert by_category.loc["INLAND", "mae"] == pytest.approx(200_000 / 3)
    assert by_category["coverage"].to_dict() == {"INLAND": pytest.approx(2 / 3), "NEAR BAY": 1.0}


@pytest.mark.parametrize("family", FAMILIES)
def test_importances_name_every_feature_and_sum_to_one(family: str) -> None:
    table = feature_importances(fit_small(family)[0])
    assert len(table) == 21
    assert table["importance"].sum() == pytest.approx(1.0)
    assert table["importance"].is_monotonic_decreasing
    if family in ("RandomForest", "GradientBoosting", "DecisionTree"):
        assert table.loc[0, "feature"] == "median_income"


def test_a_model_that_uses_no_feature_has_no_importances_to_share() -> None:
    train = block_groups(100)
    table = feature_importances(fit_model(preprocessing_of(train), train, "Lasso", {"alpha": 1e9}, 1))
    assert table["importance"].tolist() == [0.0] * 21


def test_a_model_without_importances_is_refused() -> None:
    train = block_groups(50)
    model = Pipeline([("preprocessing", preprocessing_of(train)), ("model", DummyRegressor())])
    with pytest.raises(TypeError, match="DummyRegressor has neither"):
        feature_importances(model)


def test_more_income_is_hardly_ever_cheaper_all_else_equal() -> None:
    model, test = fit_small()
    raised = test.assign(median_income=test["median_income"] + 3)
    assert (predict(model, raised) >= predict(model, test)).mean() > 0.9
