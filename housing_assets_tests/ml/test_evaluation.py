"""The report on a candidate: complete, from one frame of test predictions, the same each time."""

from dataclasses import replace
from functools import cache

import pandas as pd
import pytest
from sklearn.pipeline import Pipeline

from housing_assets.ml.cross_validation import SHUFFLED, SPATIAL
from housing_assets.ml.evaluation import (
    EvaluationSettings,
    Validation,
    compare_on_test,
    cross_validate,
    evaluation_report,
)
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.metrics import regression_metrics
from housing_assets.ml.preprocessing import fit_preprocessing
from housing_assets.ml.report import StepReport
from housing_assets.ml.split import split
from housing_assets.ml.training import Evaluation, Interval, evaluate, fit_model
from housing_assets_tests.ml.block_groups import PLAIN, block_groups

FAMILY, SETTING = "DecisionTree", {"max_depth": 6, "min_samples_leaf": 10}
SETTINGS = EvaluationSettings(
    shuffled_folds=2,
    spatial_folds=2,
    resamples=100,
    curve_fractions=(0.3,),
    permutation_repeats=1,
    permutation_rows=100,
    contribution_rows=20,
    features=PLAIN,
)
TABLES = [
    *("protocols", "comparison", "published_figures"),
    *("error_by_ocean_proximity", "error_by_price_decile", "error_by_income_quintile", "error_by_region"),
    *("calibration", "learning_curve", "permutation_importance", "contributions"),
]


@cache
def rows() -> tuple[pd.DataFrame, pd.DataFrame]:
    return split(block_groups(1_200))


@cache
def validation() -> Validation:
    return cross_validate(rows()[0], FAMILY, SETTING, SETTINGS)


@cache
def fitted() -> tuple[Pipeline, Evaluation]:
    train, test = rows()
    preprocessing = fit_preprocessing(BedroomImputer().fit(train), train, PLAIN)
    pipeline = fit_model(preprocessing, train, FAMILY, SETTING)
    return pipeline, evaluate(pipeline, test, Interval(0.9, -50_000.0, 80_000.0))


def report(evaluation: Evaluation) -> StepReport:
    return evaluation_report(fitted()[0], *rows(), evaluation, validation(), SETTINGS)


def test_both_protocols_score_every_training_row() -> None:
    found = validation()
    assert (found.shuffled.protocol, found.spatial.protocol) == (SHUFFLED, SPATIAL)
    assert (found.shuffled.n_folds, found.spatial.n_folds) == (2, 2)
    assert len(found.shuffled.actual) == len(found.spatial.actual) == len(rows()[0])


def test_the_report_charts_figures_and_has_every_table_and_plot() -> None:
    _, evaluation = fitted()
    found = report(evaluation)
    assert list(found.tables) == TABLES
    assert found.metrics.keys() == {
        *(
            f"{cv}_{name}"
            for cv in ("shuffled_cv", "spatial_cv")
            for name in ("rmse", "mae", "mape", "wmape", "r2")
        ),
        *(f"{name}_ratio_to_published_forest" for name in ("rmse", "mae", "mape", "wmape")),
    }
    assert found.metrics["spatial_cv_rmse"] == validation().spatial.metrics["rmse"]
    assert all(png.startswith(b"\x89PNG") for png in found.figures.values())
    # Metadata has one name for each.
    assert set(found.figures).isdisjoint(found.tables)
    curve = found.tables["learning_curve"]
    assert curve["fraction"].tolist() == [0.3, 1.0]


def test_the_test_column_is_that_of_the_evaluation() -> None:
    _, evaluation = fitted()
    found = report(evaluation)
    on_test = found.tables["protocols"].query("protocol == 'test rows'").set_index("figure")["value"]
    assert on_test.to_dict() == pytest.approx({name: evaluation.metrics[name] for name in on_test.index})
    ours = found.tables["comparison"].set_index("figure")["ours"]
    assert ours.to_dict() == pytest.approx(on_test.to_dict())


def test_everything_about_test_rows_comes_from_their_predictions_frame() -> None:
    _, evaluation = fitted()
    perfect = evaluation.predictions.assign(predicted=lambda frame: frame["actual"], covered=True)
    found = report(replace(evaluation, predictions=perfect))
    on_test = found.tables["protocols"].query("protocol == 'test rows' and figure == 'rmse'")
    assert on_test["value"].tolist() == [0.0]
    assert found.metrics["rmse_ratio_to_published_forest"] == 0.0
    for name in TABLES:
        if name.startswith("error_by_"):
            assert (found.tables[name]["mae"] == 0).all(), name
            assert (found.tables[name]["coverage"] == 1).all(), name
    calibrated = found.tables["calibration"]
    assert calibrated["predicted"].tolist() == calibrated["actual"].tolist()


def test_the_published_forest_is_scored_on_the_same_rows() -> None:
    train, test = rows()
    _, evaluation = fitted()
    found = compare_on_test(train, test, evaluation.predictions, SETTINGS)
    again = compare_on_test(train, test, evaluation.predictions, SETTINGS)
    pd.testing.assert_frame_equal(found.table, again.table)
    ours = regression_metrics(evaluation.predictions["actual"], evaluation.predictions["predicted"])
    row = found.table.set_index("figure").loc["mae"]
    assert row["ratio"] == pytest.approx(ours["mae"] / row["published_forest"])
    assert row["low"] < row["ratio"] < row["high"]


@pytest.mark.parametrize("fractions", [(0.0, 0.5), (0.5, 1.0), (0.5, 0.2), (0.2, 0.2), (1.5,)])
def test_fractions_that_do_not_ascend_between_zero_and_one_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must ascend between 0 and 1"):
        EvaluationSettings(curve_fractions=fractions)
