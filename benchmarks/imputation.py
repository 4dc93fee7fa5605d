"""Filling missing `total_bedrooms`: our two learned strategies, and the published way.

The peer is scikit-learn's `IterativeImputer(RandomForestRegressor(100))` over the eight numeric columns, as
published for this table: it fits a forest for every column in every round, although one column has nulls.
All of them get the same rows, a fifth of whose known values is hidden; the error is that on the hidden ones.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (makes the next import possible)
from sklearn.impute import IterativeImputer

from benchmarks.measuring import Figure, Progress, figures, timed
from housing_assets.ml.imputation import FOREST_TREES, BedroomImputer
from housing_serving.features import NULLABLE_FEATURE, NUMERIC_FEATURES, FloatArray

PEER = f"IterativeImputer(RandomForest {FOREST_TREES}), all 8 columns"
STRATEGIES = {
    "iterative_forest": f"bedrooms: one forest of {FOREST_TREES}",
    "ratio_boosting": "bedrooms: boosting, per household",
}
HIDDEN_FRACTION = 0.2

Fill = Callable[[pd.DataFrame, int], FloatArray]


def measure(rows: pd.DataFrame, repeats: int, progress: Progress) -> list[Figure]:
    """Seconds to learn and fill, and RMSE on hidden values, with a new mask in every repeat."""
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in (*STRATEGIES, PEER)}
    for repeat in range(repeats):
        for name, fill in {**{name: _ours(name) for name in STRATEGIES}, PEER: published}.items():
            outcome = _score(fill, rows, repeat)
            measured[name].append(outcome)
            progress(f"{name}: {outcome['seconds']:.1f} s, RMSE {outcome['RMSE, bedrooms']:.1f}")
    return [
        figure
        for name, subject in STRATEGIES.items()
        for figure in figures(subject, PEER, measured[name], measured[PEER])
    ]


def published(rows: pd.DataFrame, seed: int) -> FloatArray:
    """All bedrooms, filled by the peer."""
    forest = RandomForestRegressor(FOREST_TREES, random_state=seed, n_jobs=-1)
    filled = IterativeImputer(forest, random_state=seed).fit_transform(rows[list(NUMERIC_FEATURES)])
    bedrooms: FloatArray = filled[:, NUMERIC_FEATURES.index(NULLABLE_FEATURE)]
    return bedrooms


def _ours(strategy: str) -> Fill:
    def fill(rows: pd.DataFrame, seed: int) -> FloatArray:
        filled = BedroomImputer(strategy, seed).fit_transform(rows)
        bedrooms: FloatArray = filled[NULLABLE_FEATURE].to_numpy()
        return bedrooms

    return fill


def _score(fill: Fill, rows: pd.DataFrame, seed: int) -> dict[str, float]:
    truth = rows[NULLABLE_FEATURE].to_numpy()
    known = np.flatnonzero(~np.isnan(truth))
    hidden = np.random.default_rng(seed).permutation(known)[: round(HIDDEN_FRACTION * len(known))]
    masked = truth.copy()
    masked[hidden] = np.nan
    seconds, filled = timed(lambda: fill(rows.assign(**{NULLABLE_FEATURE: masked}), seed))
    rmse = float(np.sqrt(np.mean((filled[hidden] - truth[hidden]) ** 2)))
    return {"seconds": seconds, "RMSE, bedrooms": rmse}
