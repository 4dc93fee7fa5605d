"""Intervals of error figures: they hold the figure, cover the truth, and are wider where rows are alike."""

import numpy as np
import pytest

from housing_assets.ml.bootstrap import FIGURES, RATIOS, figure_intervals, ratio_intervals
from housing_assets.ml.metrics import regression_metrics
from housing_serving.features import FloatArray

ROWS = 400


def prices(generator: np.random.Generator, rows: int = ROWS) -> FloatArray:
    return generator.uniform(50_000, 450_000, rows)


def test_figures_are_those_of_the_metrics_and_lie_within_their_intervals() -> None:
    generator = np.random.default_rng(1)
    actual = prices(generator)
    predicted = actual + generator.normal(0, 30_000, ROWS)
    expected = regression_metrics(actual, predicted)
    for name, found in figure_intervals(actual, predicted).items():
        assert found.value == pytest.approx(expected[name]), name
        assert found.low < found.value < found.high, name


def test_an_interval_of_the_mean_is_as_wide_as_theory_says() -> None:
    generator = np.random.default_rng(2)
    actual = prices(generator)
    errors = generator.exponential(20_000, ROWS)
    found = figure_intervals(actual, actual + errors, resamples=4_000)["mae"]
    half = 1.96 * errors.std() / np.sqrt(ROWS)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    # The mean absolute error of normal errors is their spread times the root of 2 / pi.
    truth, held = 30_000 * np.sqrt(2 / np.pi), 0
    for seed in range(120):
        generator = np.random.default_rng(seed)
        actual = prices(generator, 150)
        found = figure_intervals(actual, actual + generator.normal(0, 30_000, 150), resamples=200)["mae"]
        held += found.low <= truth <= found.high
    assert 0.90 <= held / 120 <= 0.99


def test_rows_that_share_their_error_are_no_news_to_the_cluster_bootstrap() -> None:
    # Ten copies of forty rows: by rows there seem to be 400 of them, by clusters there are 40.
    generator = np.random.default_rng(4)
    actual, errors = prices(generator, 40), generator.exponential(20_000, 40)
    clusters = np.repeat(np.arange(40), 10)
    copies = {"actual": np.repeat(actual, 10), "predicted": np.repeat(actual + errors, 10)}
    by_cluster = figure_intervals(**copies, clusters=clusters)["mae"]
    by_row = figure_intervals(**copies)["mae"]
    alone = figure_intervals(actual, actual + errors)["mae"]
    assert (by_cluster.low, by_cluster.high) == pytest.approx((alone.low, alone.high))
    width, naive = by_cluster.high - by_cluster.low, by_row.high - by_row.low
    assert width / naive == pytest.approx(np.sqrt(10), rel=0.15)


def test_the_same_predictions_have_a_ratio_of_one_for_certain() -> None:
    generator = np.random.default_rng(5)
    actual = prices(generator)
    predicted = actual + generator.normal(0, 30_000, ROWS)
    for found in ratio_intervals(actual, predicted, predicted).values():
        assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_errors_half_as_large_have_a_ratio_of_a_half_for_certain() -> None:
    generator = np.random.default_rng(6)
    actual, errors = prices(generator), generator.normal(0, 30_000, ROWS)
    found = ratio_intervals(actual, actual + errors / 2, actual + errors)
    assert set(found) == set(RATIOS)
    for one in found.values():
        assert (one.value, one.low, one.high) == pytest.approx((0.5, 0.5, 0.5))


def test_pairing_makes_a_ratio_surer_than_two_samples_would() -> None:
    generator = np.random.default_rng(7)
    actual, hard = prices(generator), generator.exponential(30_000, ROWS)
    ours, theirs = actual + 0.9 * hard * generator.gamma(40, 0.025, ROWS), actual + hard
    paired = ratio_intervals(actual, ours, theirs)["mae"]
    assert paired.high < 1
    alone = figure_intervals(actual, ours)["mae"]
    assert (paired.high - paired.low) / paired.value < 0.5 * (alone.high - alone.low) / alone.value


def test_a_ratio_over_clusters_is_that_of_one_row_of_each() -> None:
    generator = np.random.default_rng(9)
    actual = prices(generator, 40)
    ours, theirs = (actual + generator.normal(0, spread, 40) for spread in (25_000, 30_000))
    copies = [np.repeat(one, 10) for one in (actual, ours, theirs)]
    found = ratio_intervals(*copies, clusters=np.repeat(np.arange(40), 10))["rmse"]
    alone = ratio_intervals(actual, ours, theirs)["rmse"]
    assert (found.value, found.low, found.high) == pytest.approx((alone.value, alone.low, alone.high))
    by_row = ratio_intervals(*copies)["rmse"]
    assert by_row.high - by_row.low < 0.5 * (found.high - found.low)


def test_the_seed_alone_decides_on_the_bounds() -> None:
    generator = np.random.default_rng(8)
    actual = prices(generator)
    predicted = actual + generator.normal(0, 30_000, ROWS)
    one, same, other = (figure_intervals(actual, predicted, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one["rmse"].value == other["rmse"].value
    assert one["rmse"].low != other["rmse"].low


def test_prices_that_are_all_the_same_have_no_r2() -> None:
    actual = np.full(20, 200_000.0)
    found = figure_intervals(actual, actual + np.arange(20.0), resamples=50)
    assert set(found) == set(FIGURES)
    assert np.isnan(found["r2"].value)
    assert found["mae"].value == pytest.approx(9.5)
