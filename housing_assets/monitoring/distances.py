"""How far served values are from training values, and whether chance explains it.

PSI, the population stability index, is the size of a change: `sum((s - t) * ln(s / t))` over the shares of
training (t) and served (s) rows in bins; in credit scoring, where it is from, 0.1 counts as a change and 0.2
as a large one (Siddiqi, Credit Risk Scorecards, 2006). Its bins are quantiles of the training values, and
the outer ones are open: what lies beyond every training value is in them. The tests say whether a change of
any size is more than chance: Kolmogorov-Smirnov for numbers, chi-squared for counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.spatial.distance import jensenshannon

from housing_serving.features import FloatArray

BINS = 10
# Stands in for an empty bin's share, whose logarithm there is not.
EPSILON = 1e-4
# More served values say no more: the training rows, far fewer, limit what a test can tell.
MAX_TEST_VALUES = 200_000
SEED = 42


@dataclass(frozen=True)
class Distance:
    """How far two distributions are apart.

    Attributes:
        psi: population stability index, 0 for the same shares.
        jensen_shannon: distance of the shares, from 0 (the same) to 1 (nothing in common).
        ks: largest difference of the cumulated shares; None for categories.
        wasserstein: mean way that values moved, in standard deviations of training; None for categories.
        p_value: probability of such a difference, or a larger one, if nothing had changed.
        constant: every served number is the same, and those of training are not.
    """

    psi: float
    jensen_shannon: float
    ks: float | None
    wasserstein: float | None
    p_value: float
    constant: bool


def quantile_edges(training: FloatArray, bins: int = BINS) -> FloatArray:
    """Inner edges of at most so many open-ended bins; an edge belongs to the bin below it.

    Values that many rows share give fewer bins.
    """
    edges: FloatArray = np.unique(np.quantile(training, np.linspace(0, 1, bins + 1)[1:-1]))
    return edges


def bin_counts(values: FloatArray, edges: FloatArray) -> FloatArray:
    """How many values are in each bin, from the one below the first edge to the one above the last."""
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return counts.astype(np.float64)


def psi(training: FloatArray, served: FloatArray) -> float:
    """Population stability index of two counts by bin."""
    t, s = _shares(training), _shares(served)
    return float(np.sum((s - t) * np.log(s / t)))


def numeric_distance(training: FloatArray, served: FloatArray) -> Distance:
    """Distance of served numbers from training numbers; neither may hold NaN or be empty."""
    edges = quantile_edges(training)
    counts = bin_counts(training, edges), bin_counts(served, edges)
    tested = served
    if len(served) > MAX_TEST_VALUES:
        tested = np.random.default_rng(SEED).choice(served, MAX_TEST_VALUES)
    test = stats.ks_2samp(training, tested, method="asymp")
    spread = float(training.std())
    moved = float(stats.wasserstein_distance(training, tested))
    return Distance(
        psi=psi(*counts),
        jensen_shannon=_jensen_shannon(*counts),
        ks=float(test.statistic),
        wasserstein=moved / spread if spread > 0 else float(moved > 0),
        p_value=float(test.pvalue),
        constant=spread > 0 and bool(served.min() == served.max()),
    )


def category_distance(training: Mapping[str, int], served: Mapping[str, int]) -> Distance:
    """Distance of served categories from those of training, each as rows by category."""
    names = sorted({*training, *served})
    counts = [
        np.array([side.get(name, 0) for name in names], dtype=np.float64) for side in (training, served)
    ]
    occurring = sum(counts) > 0
    table = np.array(counts)[:, occurring]
    tested = stats.chi2_contingency(table).pvalue if table.shape[1] > 1 else 1.0
    return Distance(
        psi=psi(*counts),
        jensen_shannon=_jensen_shannon(*counts),
        ks=None,
        wasserstein=None,
        p_value=float(tested),
        constant=False,
    )


def rate_p_value(training: tuple[int, int], served: tuple[int, int]) -> float:
    """Fisher's exact test of two rates, each as (rows it holds for, all rows)."""
    table = [[training[0], training[1] - training[0]], [served[0], served[1] - served[0]]]
    return float(stats.fisher_exact(table).pvalue)


def adjusted(p_values: FloatArray) -> FloatArray:
    """P-values of many tests at once, by Benjamini and Hochberg: below alpha, at most alpha are false."""
    found: FloatArray = stats.false_discovery_control(p_values, method="bh")
    return found


def _shares(counts: FloatArray) -> FloatArray:
    shares: FloatArray = np.maximum(counts / counts.sum(), EPSILON)
    return shares


def _jensen_shannon(training: FloatArray, served: FloatArray) -> float:
    # The same shares may give the root of a hair below zero.
    return float(np.nan_to_num(jensenshannon(training, served, base=2)))
