"""The model families: how each is built from hyperparameters, and the grids it is compared on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from joblib import Parallel, cpu_count, delayed
from lightgbm import LGBMRegressor
from sklearn.base import BaseEstimator
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.linear_model import Lasso, Ridge
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from housing_assets.ml.warning_filters import keep_warning_filters
from housing_serving.features import FloatArray

keep_warning_filters()

Params = dict[str, Any]

# Huber's loss, squared up to this error in dollars and linear above it: block groups whose published price
# is a cap, or that are nothing like those around them, do not rule (Huber 1964). One thread: fits run side
# by side, and the order of additions never varies.
HUBER_DOLLARS = 45_000.0
LIGHTGBM_OPTIONS: Params = {
    "objective": "huber",
    "alpha": HUBER_DOLLARS,
    "subsample_freq": 1,
    "n_jobs": 1,
    "deterministic": True,
    "force_col_wise": True,
    "verbose": -1,
}

# Options that are not tuned. Lasso's: the one-hot columns are collinear, so it converges slowly.
_REGRESSORS: Mapping[str, tuple[type, Params]] = {
    "RandomForest": (RandomForestRegressor, {"n_jobs": -1}),
    "GradientBoosting": (GradientBoostingRegressor, {}),
    "Ridge": (Ridge, {"solver": "cholesky"}),
    "Lasso": (Lasso, {"precompute": True, "max_iter": 50_000, "tol": 1e-3}),
    "DecisionTree": (DecisionTreeRegressor, {}),
    "LightGBM": (LGBMRegressor, LIGHTGBM_OPTIONS),
    "HistGradientBoosting": (HistGradientBoostingRegressor, {"early_stopping": False}),
}
FAMILIES = tuple(_REGRESSORS)
# Fitted on standardised features. Trees never are: it changes nothing but float32 rounding.
LINEAR_FAMILIES = ("Ridge", "Lasso")

# With fewer trees, chance decides between forests.
LEAST_TREES = 20
# Nearly half of a fit to few rows goes into looking for splits in the 255 bins that a booster has by default.
REHEARSAL_BINS = 63
BINS_OF = {"LightGBM": "max_bin", "HistGradientBoosting": "max_bins"}

Grid = Mapping[str, list[Any]]

# Small: about the same computing time for forest and boosting, so that neither wins by budget, and nothing
# that is slow to serve: a forest with leaves of one row has a million of them, 35 MB in which every lookup
# misses the processor's caches. Full: the 180, 300, 9, 9 and 96 published settings, and as many more of the
# other two. Both lie inside the search spaces of the sweep.
GRIDS: Mapping[str, Mapping[str, Grid]] = {
    "small": {
        "RandomForest": {
            "n_estimators": [60],
            "max_depth": [30],
            "min_samples_split": [2],
            "min_samples_leaf": [3],
            "max_features": ["sqrt"],
        },
        "GradientBoosting": {
            "n_estimators": [100],
            "learning_rate": [0.2],
            "max_depth": [6],
            "min_samples_split": [2],
            "min_samples_leaf": [1],
            "subsample": [0.8],
            "max_features": ["sqrt"],
        },
        "Ridge": {"alpha": [0.1, 1.0, 10.0]},
        "Lasso": {"alpha": [10.0, 30.0, 100.0]},
        "DecisionTree": {
            "max_depth": [10, 20],
            "min_samples_split": [2],
            "min_samples_leaf": [5, 10, 20],
        },
        "LightGBM": {
            "n_estimators": [400],
            "learning_rate": [0.05],
            "num_leaves": [31, 63],
            "min_child_samples": [10],
            "subsample": [0.8],
            "colsample_bytree": [0.3],
            "reg_lambda": [5.0],
        },
        "HistGradientBoosting": {
            "max_iter": [150],
            "learning_rate": [0.15],
            "max_leaf_nodes": [31],
            "min_samples_leaf": [20],
            "l2_regularization": [1.0],
            "max_features": [0.3],
            "loss": ["squared_error", "absolute_error"],
        },
    },
    "full": {
        "RandomForest": {
            "n_estimators": [100, 200, 300],
            "max_depth": [10, 15, 20, 25, 30],
            "min_samples_split": [2, 5, 10],
            "min_samples_leaf": [1, 3],
            "max_features": ["sqrt", "log2"],
        },
        "GradientBoosting": {
            "n_estimators": [100, 200, 300, 400],
            "learning_rate": [0.03, 0.05, 0.1, 0.15, 0.2],
            "max_depth": [4, 5, 6, 7, 8],
            "min_samples_split": [2],
            "min_samples_leaf": [1],
            "subsample": [0.7, 0.8, 0.9],
            "max_features": ["sqrt"],
        },
        "Ridge": {"alpha": [0.0001, 0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0]},
        "Lasso": {"alpha": [0.0001, 0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0]},
        "DecisionTree": {
            "max_depth": [5, 10, 15, 20, 30, 40],
            "min_samples_split": [2, 5, 10, 20],
            "min_samples_leaf": [1, 5, 10, 20],
        },
        "LightGBM": {
            "n_estimators": [200, 350, 500],
            "learning_rate": [0.05, 0.1, 0.15],
            "num_leaves": [15, 31, 63],
            "min_child_samples": [5, 10, 20],
            "subsample": [0.8],
            "colsample_bytree": [0.3, 0.5],
            "reg_lambda": [5.0],
        },
        "HistGradientBoosting": {
            "max_iter": [200, 400, 800],
            "learning_rate": [0.05, 0.1],
            "max_leaf_nodes": [15, 31, 63],
            "min_samples_leaf": [10, 20],
            "l2_regularization": [1.0],
            "max_features": [0.3],
            "loss": ["squared_error", "absolute_error"],
        },
    },
}


def build_estimator(family: str, params: Mapping[str, Any], seed: int) -> BaseEstimator:
    """An unfitted estimator of a family, seeded.

    A forest fits on all cores; set `n_jobs=1` before it predicts, because several threads would add its
    trees in a varying order. Linear families carry their own scaler.

    Raises:
        ValueError: the family or a hyperparameter is unknown.
    """
    regressor, fixed = _REGRESSORS[_known(family)]
    if unknown := sorted(params.keys() - tunable_parameters(family)):
        raise ValueError(f"{family} has no hyperparameter {', '.join(unknown)}")
    seeded = {} if family in LINEAR_FAMILIES else {"random_state": seed}
    estimator = regressor(**fixed, **seeded, **params)
    if family in LINEAR_FAMILIES:
        return Pipeline([("scaler", StandardScaler()), ("regressor", estimator)])
    return estimator


def tunable_parameters(family: str) -> set[str]:
    """Names of the hyperparameters that may be set for a family."""
    regressor, fixed = _REGRESSORS[_known(family)]
    # LightGBM takes the number of bins, and does not list it.
    known = set(regressor().get_params()) | ({BINS_OF[family]} if family in BINS_OF else set())
    return known - fixed.keys() - {"random_state", "n_jobs", "verbose", "warm_start"}


def rehearsed(family: str, params: Mapping[str, Any], share: float) -> Params:
    """The setting for a comparison on a share of the rows.

    A forest has the same share of its trees there: they are independent of each other, so that a few tell as
    much of how the others would do. A booster has all of them, for its trees and its learning rate go
    together, but looks for splits in fewer bins.
    """
    changed = dict(params)
    if share == 1.0:
        return changed
    if family in BINS_OF:
        bins = BINS_OF[family]
        changed[bins] = min(params.get(bins, REHEARSAL_BINS), REHEARSAL_BINS)
    if family == "RandomForest" and "n_estimators" in params:
        trees = params["n_estimators"]
        changed["n_estimators"] = min(trees, max(LEAST_TREES, round(trees * share)))
    return changed


def candidates(family: str, grid: str) -> list[Params]:
    """All settings of a family's named grid, in a fixed order.

    Raises:
        ValueError: the family or the grid is unknown.
    """
    if grid not in GRIDS:
        raise ValueError(f"unknown grid {grid!r}: choose one of {', '.join(GRIDS)}")
    return list(ParameterGrid(dict(GRIDS[grid][_known(family)])))


def predict_with(estimator: BaseEstimator, matrix: FloatArray) -> FloatArray:
    """Predictions that are the same to the last bit every time: a forest's trees are added in order."""
    if isinstance(estimator, RandomForestRegressor):
        estimator.n_jobs = 1
        # Side by side by rows instead, which changes nothing of a row's sum.
        shares = np.array_split(matrix, min(cpu_count(), len(matrix)))
        return np.concatenate(
            Parallel(len(shares), prefer="threads")(map(delayed(estimator.predict), shares))
        )
    predicted: FloatArray = estimator.predict(matrix)
    return predicted


def _known(family: str) -> str:
    if family not in _REGRESSORS:
        raise ValueError(f"unknown model family {family!r}: choose of {', '.join(FAMILIES)}")
    return family
