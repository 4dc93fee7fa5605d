"""Two protocols and a learning curve: out-of-fold by hand, harder in new places, better with more rows."""

from functools import cache

import numpy as np
import pytest

from housing_assets.ml.bootstrap import FIGURES
from housing_assets.ml.cross_validation import (
    SHUFFLED,
    SPATIAL,
    CrossValidation,
    learning_curve,
    protocol_table,
    shuffled_cross_validation,
    spatial_cross_validation,
)
from housing_assets.ml.selection import prepare_folds
from housing_assets_tests.ml.block_groups import block_groups, step_folds

FAMILY, SETTING = "RandomForest", {"n_estimators": 12, "min_samples_leaf": 3, "max_features": "sqrt"}
ROWS, RESAMPLES = 2_500, 200


@cache
def shuffled() -> CrossValidation:
    folds = prepare_folds(block_groups(ROWS), 3, 42)
    return shuffled_cross_validation(folds, FAMILY, SETTING, resamples=RESAMPLES)


@cache
def spatial() -> CrossValidation:
    return spatial_cross_validation(block_groups(ROWS), FAMILY, SETTING, n_folds=3, resamples=RESAMPLES)


def test_predictions_are_those_of_models_that_did_not_see_the_row() -> None:
    found = shuffled_cross_validation(step_folds(), "DecisionTree", {"max_depth": 1}, resamples=50)
    # Odd rows by the tree of even ones, then even rows by that of odd ones; only row 5 is priced wrongly.
    assert found.actual.tolist() == [100, 100, 300, 300, 300, 100, 100, 100, 300, 300]
    assert found.predicted.tolist() == [100, 100, 100, 300, 300, 100, 100, 100, 300, 300]
    assert found.residuals.tolist() == [0, 0, 200, 0, 0, 0, 0, 0, 0, 0]
    assert (found.protocol, found.n_folds, found.metrics["mae"]) == (SHUFFLED, 2, 20.0)
    assert found.intervals["mae"].value == pytest.approx(20.0)


def test_new_places_are_harder_and_less_certain_than_new_rows() -> None:
    assert spatial().protocol == SPATIAL
    assert len(spatial().predicted) == len(shuffled().predicted) == ROWS
    assert spatial().metrics["rmse"] > 1.1 * shuffled().metrics["rmse"]
    widths = [found.intervals["rmse"].high - found.intervals["rmse"].low for found in (spatial(), shuffled())]
    assert widths[0] > widths[1]


def test_metrics_are_of_all_rows_together_however_unequal_the_folds() -> None:
    sizes = [len(score.predicted) for score in spatial().scores]
    assert len(set(sizes)) == 3
    weighted = np.average([score.metrics["mae"] for score in spatial().scores], weights=sizes)
    assert spatial().metrics["mae"] == pytest.approx(weighted)


def test_the_same_seed_gives_the_same_figures_and_bounds() -> None:
    again = spatial_cross_validation(block_groups(ROWS), FAMILY, SETTING, n_folds=3, resamples=RESAMPLES)
    assert again.predicted.tobytes() == spatial().predicted.tobytes()
    assert again.intervals == spatial().intervals


def test_the_table_sets_the_protocols_side_by_side_by_figure() -> None:
    table = protocol_table({SHUFFLED: shuffled().intervals, SPATIAL: spatial().intervals})
    assert table["protocol"].tolist() == [SHUFFLED, SPATIAL] * len(FIGURES)
    assert table["figure"].tolist() == [name for name in FIGURES for _ in range(2)]
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()


def test_more_rows_make_smaller_errors_and_the_last_point_is_the_cross_validation() -> None:
    curve = learning_curve(
        block_groups(ROWS), FAMILY, SETTING, shuffled(), fractions=(0.1, 0.4), first_folds=2
    )
    assert curve["fraction"].tolist() == [0.1, 0.4, 1.0]
    assert curve["rows"].tolist() == [167, 666, 1666]
    for name in ("wmape", "mae", "rmse"):
        assert curve[name].is_monotonic_decreasing
        assert (curve[f"{name}_lowest"] <= curve[name]).all()
        assert (curve[name] <= curve[f"{name}_highest"]).all()
    first_two = [score.metrics["wmape"] for score in shuffled().scores[:2]]
    assert curve["wmape"].iloc[-1] == pytest.approx(np.mean(first_two))


def test_a_curve_uses_no_more_folds_than_there_are() -> None:
    curve = learning_curve(block_groups(ROWS), FAMILY, SETTING, shuffled(), fractions=(0.2,), first_folds=9)
    scores = [score.metrics["mae"] for score in shuffled().scores]
    assert curve["mae_highest"].iloc[-1] == max(scores)
    assert curve["mae_lowest"].iloc[-1] == min(scores)
