"""The final model: fit, predictions, interval, evaluation, importances."""

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.pipeline import Pipeline

from housing_assets.ml.cross_validation import shuffled_cross_validation
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.intervals import LEAST_SPREAD, Interval, conformal_interval
from housing_assets.ml.preprocessing import FeatureSettings, fit_preprocessing
from housing_assets.ml.segments import segment_tables
from housing_assets.ml.selection import prepare_folds
from housing_assets.ml.split import split
from housing_assets.ml.training import (
    evaluate,
    feature_importances,
    fit_model,
    predict,
)
from housing_assets_tests.ml.block_groups import block_groups
from housing_serving.features import RAW_FEATURES, TARGET, FloatArray

FOREST = {"n_estimators": 12, "max_depth": 8}
FAMILIES = {
    "RandomForest": FOREST,
    "GradientBoosting": {"n_estimators": 15, "subsample": 0.8},
    "Ridge": {"alpha": 1.0},
    "Lasso": {"alpha": 10.0},
    "DecisionTree": {"max_depth": 5},
    "LightGBM": {"n_estimators": 60, "num_leaves": 15, "min_child_samples": 5, "subsample": 0.8},
    "HistGradientBoosting": {"max_iter": 40},
}
ANY_INTERVAL = Interval(0.9, -50_000.0, 80_000.0)


def preprocessing_of(train: pd.DataFrame) -> Pipeline:
    return fit_preprocessing(BedroomImputer().fit(train), train, FeatureSettings(n_clusters=4))


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


@pytest.mark.parametrize(
    "family", ["RandomForest", "GradientBoosting", "DecisionTree", "LightGBM", "HistGradientBoosting"]
)
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
    fit_model(preprocessing, train, "Ridge", {"alpha": 1.0}, 1)
    assert preprocessing.named_steps["encoder"].spec_ is spec


def residuals(*values: float) -> FloatArray:
    return np.array(values, dtype=np.float64)


def offsets(found: FloatArray, level: float) -> tuple[float, float]:
    """Both offsets of the interval that so few residuals give: the same for every price."""
    interval = conformal_interval(found, np.zeros((len(found), 1)), level)
    assert interval.spread is None
    return interval.lower_offset, interval.upper_offset


def test_interval_cuts_off_as_many_residuals_on_each_side() -> None:
    # 19 residuals, level 0.9: one of twenty on each side is ranks 1 and 19, that is the extremes.
    found = residuals(*range(9, -10, -1))
    assert offsets(found, 0.9) == (-9.0, 9.0)
    # Level 0.8 cuts off rank 1 and rank 19: 20 x 0.1 = 2 on each side.
    assert offsets(found, 0.8) == (-8.0, 8.0)


def test_interval_of_too_few_residuals_is_their_extremes() -> None:
    assert offsets(residuals(-3, 5, 1), 0.99) == (-3.0, 5.0)


def test_interval_always_holds_its_own_prediction() -> None:
    assert offsets(residuals(5, 6, 7, 8), 0.5) == (0.0, 8.0)


def test_interval_covers_about_its_level_of_unseen_prices() -> None:
    train, test = split(block_groups(3_000))
    model = fit_model(preprocessing_of(train), train, "RandomForest", FOREST, 42)
    folds = prepare_folds(train, 3, 42, features=FeatureSettings(n_clusters=4))
    shuffled = shuffled_cross_validation(folds, "RandomForest", FOREST, 42, resamples=1)
    interval = conformal_interval(shuffled.residuals, shuffled.matrix, 0.9)
    assert interval.spread is not None
    assert evaluate(model, test, interval).coverage == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize("level", [0.0, 1.0, 90])
def test_a_level_that_is_no_share_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match=f"above 0 and below 1, not {level}"):
        conformal_interval(residuals(1, 2), np.zeros((2, 1)), level)


def test_an_interval_needs_residuals() -> None:
    with pytest.raises(ValueError, match="there are no residuals"):
        conformal_interval(residuals(), np.zeros((0, 1)))


def test_an_interval_ends_at_zero_not_below() -> None:
    interval = Interval(0.9, -100.0, 50.0)
    actual, predicted = np.array([0.0, 99.0, 100.0, 251.0]), np.array([30.0, 200.0, 200.0, 200.0])
    lower, upper = interval.bounds(predicted)
    assert ((lower <= actual) & (actual <= upper)).tolist() == [True, False, True, False]


def test_an_interval_reaches_no_further_than_any_price_unless_its_own_does() -> None:
    interval = Interval(0.9, -100.0, 50.0, highest=500.0)
    lower, upper = interval.bounds(np.array([400.0, 480.0, 510.0]))
    assert lower.tolist() == [300.0, 380.0, 410.0]
    assert upper.tolist() == [450.0, 500.0, 510.0]


def test_an_interval_is_wide_where_prices_are_hard_to_tell() -> None:
    # Ten thousand dollars of noise on one side of zero, fifty thousand on the other.
    random = np.random.default_rng(0)
    side = random.choice([-1.0, 1.0], (4_000, 1))
    noise = random.normal(0.0, np.where(side[:, 0] < 0, 10_000.0, 50_000.0))
    interval = conformal_interval(noise, side, 0.9)
    lower, upper = interval.bounds(np.full(2, 1e6), np.array([[-1.0], [1.0]]))
    # 1.645 standard deviations to each side cover nine in ten of a normal distribution.
    assert upper - lower == pytest.approx([32_900, 164_500], rel=0.15)


def test_no_interval_is_narrower_than_the_least_spread() -> None:
    interval = conformal_interval(np.ones(2_000), np.zeros((2_000, 1)), 0.9)
    assert interval.spread is not None
    assert interval.spread.predict(np.zeros((1, 1))) < LEAST_SPREAD
    assert (interval.lower_offset, interval.upper_offset) == (0.0, 1.0 / LEAST_SPREAD)


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
    by_category = segment_tables(evaluation.predictions)["ocean_proximity"].set_index("ocean_proximity")
    assert by_category["rows"].to_dict() == {"INLAND": 3, "NEAR BAY": 1}
    assert by_category.loc["INLAND", "mae"] == pytest.approx(200_000 / 3)
    assert by_category["coverage"].to_dict() == {"INLAND": pytest.approx(2 / 3), "NEAR BAY": 1.0}


@pytest.mark.parametrize("family", FAMILIES)
def test_importances_name_every_feature_and_sum_to_one(family: str) -> None:
    table = feature_importances(fit_small(family)[0])
    assert len(table) == 63
    assert table["importance"].sum() == pytest.approx(1.0)
    assert table["importance"].is_monotonic_decreasing
    if family not in ("Ridge", "Lasso"):
        assert table.loc[0, "feature"] in (
            *("median_income", "nearby_price_5", "nearby_price_15", "nearby_price_of_alike"),
        )


def test_a_model_that_uses_no_feature_has_no_importances_to_share() -> None:
    train = block_groups(100)
    table = feature_importances(fit_model(preprocessing_of(train), train, "Lasso", {"alpha": 1e9}, 1))
    assert table["importance"].tolist() == [0.0] * 63


def test_a_model_without_importances_is_refused() -> None:
    train = block_groups(50)
    model = Pipeline([("preprocessing", preprocessing_of(train)), ("model", DummyRegressor())])
    with pytest.raises(TypeError, match="DummyRegressor has neither"):
        feature_importances(model)


def test_more_income_is_hardly_ever_cheaper_all_else_equal() -> None:
    model, test = fit_small()
    raised = test.assign(median_income=test["median_income"] + 3)
    assert (predict(model, raised) >= predict(model, test)).mean() > 0.9
