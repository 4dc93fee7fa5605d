"""What two models' errors tell: bounds that hold, segments of the rows, latencies."""

import time
from itertools import pairwise

import numpy as np
import pytest

from housing_assets.ml import comparison
from housing_assets.ml.columns import columns_of
from housing_assets.ml.comparison import (
    absolute_errors,
    bootstrap_improvement,
    by_category,
    by_price_decile,
    latency_ms,
)
from housing_assets_tests.ml.block_groups import block_groups
from housing_assets_tests.serving.bundles import bundle_files
from housing_serving.bundle import Bundle, Predictions
from housing_serving.features import Columns, FloatArray

ERRORS = np.abs(np.random.default_rng(1).standard_t(4, 400)) * 30_000


def correlated_errors(
    generator: np.random.Generator, rows: int, factor: float
) -> tuple[FloatArray, FloatArray]:
    """Errors of two models that find the same rows hard; the first's mean is `factor` times the second's."""
    hard = generator.gamma(1.0, 30_000, rows)
    return factor * hard * generator.gamma(40, 0.025, rows), hard * generator.gamma(40, 0.025, rows)


def test_the_same_errors_are_no_improvement() -> None:
    found = bootstrap_improvement(ERRORS, ERRORS)
    assert (found.estimate, found.at_least, found.at_most) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("factor", [0.9, 1.02, 1.5])
def test_errors_that_differ_by_a_factor_differ_by_it_for_certain(factor: float) -> None:
    found = bootstrap_improvement(factor * ERRORS, ERRORS)
    assert [found.estimate, found.at_least, found.at_most] == pytest.approx([1 - factor] * 3)


def test_the_bounds_enclose_the_estimate_and_widen_with_confidence() -> None:
    ours, theirs = correlated_errors(np.random.default_rng(3), 500, 0.97)
    found = [bootstrap_improvement(ours, theirs, confidence=share) for share in (0.8, 0.95, 0.99)]
    lower, upper = [one.at_least for one in found], [one.at_most for one in found]
    assert lower == sorted(lower, reverse=True)
    assert upper == sorted(upper)
    assert lower[0] < found[0].estimate < upper[0]
    assert found[0].estimate == pytest.approx(1 - ours.mean() / theirs.mean())


def test_pairing_sees_a_difference_that_two_separate_samples_would_not_show() -> None:
    ours, theirs = correlated_errors(np.random.default_rng(5), 2_000, 0.97)
    paired = bootstrap_improvement(ours, theirs)
    apart = bootstrap_improvement(np.random.default_rng(7).permutation(ours), theirs)
    assert paired.at_least > 0 > apart.at_least
    assert paired.estimate == pytest.approx(apart.estimate)


def test_a_lower_bound_is_above_the_truth_as_rarely_as_its_confidence_says() -> None:
    generator = np.random.default_rng(11)
    trials = [correlated_errors(generator, 300, 1.0) for _ in range(400)]
    found = [bootstrap_improvement(*errors, resamples=400, seed=trial) for trial, errors in enumerate(trials)]
    # 5 % of 400 are 20; beyond 8 to 36, chance is below one in a thousand.
    assert 8 <= sum(one.at_least > 0 for one in found) <= 36
    assert 8 <= sum(one.at_most < 0 for one in found) <= 36


def test_the_bounds_depend_on_the_seed_alone_and_not_on_how_many_draws_fit_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = correlated_errors(np.random.default_rng(13), 250, 0.98)
    first = bootstrap_improvement(ours, theirs, resamples=300)
    assert bootstrap_improvement(ours, theirs, resamples=300, seed=43) != first
    monkeypatch.setattr(comparison, "DRAWS", 1_000)
    assert bootstrap_improvement(ours, theirs, resamples=300) == first


@pytest.mark.parametrize(
    ("ours", "theirs", "estimate"),
    [(0.0, 0.0, 0.0), (5.0, 0.0, -np.inf), (np.inf, 5.0, -np.inf), (5.0, np.inf, 1.0), (np.inf, np.inf, 0.0)],
)
def test_perfect_and_infinitely_wrong_models_can_be_compared(
    ours: float, theirs: float, estimate: float
) -> None:
    found = bootstrap_improvement(np.full(50, ours), np.full(50, theirs), resamples=100)
    assert (found.estimate, found.at_least, found.at_most) == (estimate,) * 3


def test_a_price_that_is_no_number_is_infinitely_wrong() -> None:
    prices = np.array([90.0, np.nan, np.inf, -np.inf])
    errors = absolute_errors(Predictions(prices, prices, prices), np.full(4, 100.0))
    assert errors.tolist() == [10.0, np.inf, np.inf, np.inf]


def test_categories_and_price_deciles_hold_every_row_once() -> None:
    rows = block_groups(1_003)
    categories, deciles = dict(by_category(rows)), dict(by_price_decile(rows))
    for masks in (categories, deciles):
        assert np.sum(list(masks.values()), axis=0).tolist() == [1] * len(rows)
    assert {name: int(mask.sum()) for name, mask in categories.items()} == dict(
        rows["ocean_proximity"].value_counts()
    )
    assert list(deciles) == [f"price decile {number}" for number in range(1, 11)]
    assert {int(mask.sum()) for mask in deciles.values()} == {100, 101}
    prices = [rows.loc[mask, "median_house_value"] for mask in deciles.values()]
    assert all(low.max() <= high.min() for low, high in pairwise(prices))


def test_there_are_ten_deciles_however_many_rows_share_a_price() -> None:
    rows = block_groups(200).assign(median_house_value=500_001.0)
    assert [int(mask.sum()) for _, mask in by_price_decile(rows)] == [20] * 10


class SlowBundle(Bundle):
    """A fake model that needs a fifth of a second, and notes what it was asked."""

    asked: list[int]

    def predict(self, columns: Columns) -> Predictions:
        self.asked.append(len(columns["median_income"]))
        time.sleep(0.2)
        return super().predict(columns)


def test_a_slow_model_is_measured_a_few_times_and_not_a_hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "LATENCY_SECONDS", 0.0)
    bundle = SlowBundle.from_files(bundle_files(), origin="memory")
    bundle.asked = []
    columns = columns_of(block_groups(30))
    assert 200 <= latency_ms(bundle, columns, 1_000) < 1_000
    assert bundle.asked == [1_000] * 3
