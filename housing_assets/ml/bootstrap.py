"""How far error figures depend on which rows, or which blocks of rows, happened to be drawn.

Percentile intervals of the cluster bootstrap (Davison and Hinkley, Bootstrap Methods and their Application,
1997, chapters 3.8 and 5.3): whole clusters are drawn with all of their rows, since errors of neighbours are
alike and are no independent news. Without clusters, every row is one of its own. The models are not fitted
anew, so an interval says nothing of how the figures vary with the training rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from housing_assets.ml.splitters import Positions
from housing_serving.features import FloatArray

LEVEL = 0.95
RESAMPLES = 1_000
# Figures that are functions of sums over rows, so that a resample costs one weighted sum.
FIGURES = ("rmse", "mae", "mape", "wmape", "r2")
# Those of which a smaller one is better and zero is perfect: their ratios compare two models.
RATIOS = ("rmse", "mae", "mape", "wmape")


@dataclass(frozen=True)
class Estimate:
    """A figure, and the bounds of its interval."""

    value: float
    low: float
    high: float


def figure_intervals(
    actual: FloatArray,
    predicted: FloatArray,
    *,
    clusters: Positions | None = None,
    resamples: int = RESAMPLES,
    seed: int = 42,
) -> dict[str, Estimate]:
    """Each figure of `FIGURES` with its interval; units as in `metrics.regression_metrics`.

    Args:
        actual: Prices above zero, shape (n,).
        predicted: Their predictions, shape (n,).
        clusters: Number of each row's cluster, from 0, shape (n,); None: every row is its own.
        resamples: How often the clusters are drawn anew.
        seed: Of the draws.
    """
    sums = _sums(actual, predicted, clusters)
    draws = _figures(_resampled([sums], resamples, seed)[0])
    found = _figures(sums.sum(axis=0))
    return {name: _estimate(float(found[name]), draws[name]) for name in FIGURES}


def ratio_intervals(
    actual: FloatArray,
    ours: FloatArray,
    theirs: FloatArray,
    *,
    clusters: Positions | None = None,
    resamples: int = RESAMPLES,
    seed: int = 42,
) -> dict[str, Estimate]:
    """Each figure of `RATIOS` of one model divided by that of another on the same rows.

    Paired: a resample draws the same rows for both, so what makes rows hard for either cancels out.

    Args:
        actual: Prices above zero, shape (n,).
        ours: Predictions of the model above the line, shape (n,).
        theirs: Predictions of the model below the line, shape (n,).
        clusters: Number of each row's cluster, from 0, shape (n,); None: every row is its own.
        resamples: How often the clusters are drawn anew.
        seed: Of the draws.
    """
    sums = [_sums(actual, predicted, clusters) for predicted in (ours, theirs)]
    drawn = [_figures(resampled) for resampled in _resampled(sums, resamples, seed)]
    found = [_figures(one.sum(axis=0)) for one in sums]
    return {
        name: _estimate(float(found[0][name] / found[1][name]), drawn[0][name] / drawn[1][name])
        for name in RATIOS
    }


def _sums(actual: FloatArray, predicted: FloatArray, clusters: Positions | None) -> FloatArray:
    """Per cluster: rows, absolute and squared error, share of the price, price, squared price; (c, 6)."""
    error = np.abs(actual - predicted)
    terms = np.column_stack([np.ones_like(error), error, error**2, error / np.abs(actual), actual, actual**2])
    if clusters is None:
        return terms
    return np.column_stack([np.bincount(clusters, weights=column) for column in terms.T])


def _resampled(sums: list[FloatArray], resamples: int, seed: int) -> list[FloatArray]:
    """Sums over clusters that are drawn with replacement, the same ones for each table; (resamples, 6)."""
    generator = np.random.default_rng(seed)
    clusters = len(sums[0])
    drawn = [np.empty((resamples, table.shape[1])) for table in sums]
    # The number of threads would change the last bits.
    with threadpool_limits(limits=1):
        for number in range(resamples):
            times = np.bincount(generator.integers(0, clusters, clusters), minlength=clusters)
            for table, result in zip(sums, drawn, strict=True):
                result[number] = times @ table
    return drawn


def _figures(sums: FloatArray) -> Mapping[str, FloatArray]:
    """The figures of sums in the last axis."""
    rows, error, squared, share, price, squared_price = np.moveaxis(sums, -1, 0)
    # Rounding can leave a trace of a spread where there is none.
    spread = squared_price - price**2 / rows
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "rmse": np.sqrt(squared / rows),
            "mae": error / rows,
            "mape": 100 * share / rows,
            "wmape": 100 * error / np.abs(price),
            "r2": np.where(spread > 1e-9 * squared_price, 1 - squared / spread, np.nan),
        }


def _estimate(value: float, draws: FloatArray) -> Estimate:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))
