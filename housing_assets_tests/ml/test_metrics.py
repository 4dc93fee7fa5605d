"""The ten metrics, by values worked out by hand."""

import math

import numpy as np
import pytest

from housing_assets.ml.metrics import METRICS, regression_metrics


def test_ten_figures_by_hand() -> None:
    # Errors 10, 0, 40, 80 of 100, 200, 400, 400: 10 %, 0 %, 10 %, 20 %.
    metrics = regression_metrics([100, 200, 400, 400], [110, 200, 360, 480])
    assert tuple(metrics) == METRICS
    assert metrics["mae"] == 32.5
    assert metrics["rmse"] == pytest.approx(math.sqrt(8_100 / 4))
    # Mean 275; squares around it: 30,625 + 5,625 + 15,625 + 15,625.
    assert metrics["r2"] == pytest.approx(1 - 8_100 / 67_500)
    assert metrics["mape"] == 10.0
    assert metrics["smape"] == pytest.approx(50 * (10 / 210 + 40 / 760 + 80 / 880))
    assert metrics["wmape"] == pytest.approx(100 * 130 / 1_100)
    assert metrics["median_ape"] == 10.0
    assert (metrics["within_5pct"], metrics["within_10pct"], metrics["within_15pct"]) == (25.0, 75.0, 75.0)


def test_perfect_predictions() -> None:
    metrics = regression_metrics(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert (metrics["rmse"], metrics["r2"], metrics["wmape"], metrics["within_5pct"]) == (
        0.0,
        1.0,
        0.0,
        100.0,
    )


def test_predicting_the_mean_explains_nothing() -> None:
    assert regression_metrics([1, 3], [2, 2])["r2"] == 0.0


def test_r2_of_identical_prices_is_undefined_not_an_error() -> None:
    assert math.isnan(regression_metrics([5.0], [4.0])["r2"])


@pytest.mark.parametrize(
    ("actual", "predicted", "message"),
    [
        ([], [], "nothing to score"),
        ([1.0], [1.0, 2.0], r"of one length, not \(1,\) and \(2,\)"),
        ([[1.0]], [[1.0]], "must be"),
        ([1.0, 0.0], [1.0, 1.0], "1 of 2 actual values are zero"),
        ([1.0, np.nan], [1.0, 1.0], "1 of 2 actual values are not finite"),
        ([1.0, 2.0], [np.inf, np.nan], "2 of 2 predicted values are not finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(actual: list[float], predicted: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        regression_metrics(actual, predicted)
