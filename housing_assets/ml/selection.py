"""Comparing model families in shuffled cross-validation folds of the training rows.

Preprocessing is fitted anew on each fold's own training rows; all candidates then share its matrices.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from housing_assets.ml.families import FAMILIES, Params, build_estimator, candidates, predict_with
from housing_assets.ml.imputation import DEFAULT_STRATEGY, BedroomImputer
from housing_assets.ml.metrics import regression_metrics
from housing_assets.ml.preprocessing import DEFAULT_CLUSTERS, DEFAULT_GAMMA, fit_preprocessing
from housing_serving.features import TARGET, FloatArray

__all__ = [
    "CRITERION",
    "FAMILIES",
    "Fold",
    "FoldScore",
    "SelectionResult",
    "build_estimator",
    "compare_families",
    "mean_metrics",
    "prepare_folds",
    "score_folds",
]

# The one figure that decides, here and in the sweep: the mean over folds, lowest wins.
CRITERION = "wmape"
REPORTED_METRICS = ("wmape", "mae", "mape", "rmse", "r2", "within_10pct")

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Fold:
    """One cross-validation fold, ready for any estimator."""

    x_train: FloatArray
    y_train: FloatArray
    x_valid: FloatArray
    y_valid: FloatArray
    # Positions of the validation rows in the frame the folds were made from.
    valid_index: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FoldScore:
    """How one setting did on one fold; seconds are wall clock."""

    metrics: dict[str, float]
    predicted: FloatArray
    fit_seconds: float
    predict_seconds: float


@dataclass(frozen=True)
class SelectionResult:
    """The outcome of a comparison.

    Attributes:
        winner: the family with the lowest criterion.
        table: one row per family, best first, for its best setting: fold means of the metrics, `mae_std`
            over folds, seconds of one fit and of predicting one fold's rows, candidates tried.
        best_params: every family's best setting.
    """

    winner: str
    table: pd.DataFrame
    best_params: dict[str, Params]


def prepare_folds(
    train: pd.DataFrame,
    n_folds: int = 3,
    seed: int = 42,
    *,
    strategy: str = DEFAULT_STRATEGY,
    n_clusters: int = DEFAULT_CLUSTERS,
    gamma: float = DEFAULT_GAMMA,
) -> list[Fold]:
    """Shuffled folds of the training rows, each with preprocessing fitted on its own training part.

    Args:
        train: Featured training rows with the target.
        n_folds: Number of folds.
        seed: Seed of the shuffle, the imputer and the clustering.
        strategy: Imputation strategy.
        n_clusters: Number of geographic centres.
        gamma: Width of the similarity to a centre.
    """

    def fit(rows: pd.DataFrame) -> Pipeline:
        imputer = BedroomImputer(strategy, random_state=seed).fit(rows)
        return fit_preprocessing(imputer, rows, n_clusters, gamma, seed)

    shuffled = KFold(n_folds, shuffle=True, random_state=seed)
    # Threads of OpenMP wait by spinning: on a busy machine two are many times slower than one.
    with threadpool_limits(limits=1):
        return [
            _fold(train, train_index, valid_index, fit) for train_index, valid_index in shuffled.split(train)
        ]


def _fold(
    train: pd.DataFrame,
    train_index: NDArray[np.int64],
    valid_index: NDArray[np.int64],
    fit: Callable[[pd.DataFrame], Pipeline],
) -> Fold:
    rows, held_out = train.iloc[train_index], train.iloc[valid_index]
    preprocessing = fit(rows)
    return Fold(
        x_train=preprocessing.transform(rows),
        y_train=rows[TARGET].to_numpy(dtype=np.float64),
        x_valid=preprocessing.transform(held_out),
        y_valid=held_out[TARGET].to_numpy(dtype=np.float64),
        valid_index=valid_index,
    )


def score_folds(family: str, tasks: Sequence[tuple[Params, Fold]], seed: int) -> list[FoldScore]:
    """Fit and score each setting on its fold, in the order given.

    Tasks run side by side except for forests, which use all cores for one fit. Every task is seeded by
    itself, so neither the number of cores nor the schedule changes a result.
    """
    workers = 1 if family == "RandomForest" else (os.cpu_count() or 1)
    # One thread per linear-algebra call: its number would otherwise change the last bits.
    with threadpool_limits(limits=1):
        scores: list[FoldScore] = Parallel(n_jobs=workers, prefer="threads")(
            delayed(_score)(family, params, fold, seed) for params, fold in tasks
        )
    return scores


def _score(family: str, params: Params, fold: Fold, seed: int) -> FoldScore:
    started = time.perf_counter()
    estimator = build_estimator(family, params, seed).fit(fold.x_train, fold.y_train)
    fitted = time.perf_counter()
    predicted = predict_with(estimator, fold.x_valid)
    predict_seconds = time.perf_counter() - fitted
    metrics = regression_metrics(fold.y_valid, predicted)
    return FoldScore(metrics, predicted, fitted - started, predict_seconds)


def mean_metrics(scores: Sequence[FoldScore]) -> dict[str, float]:
    """Each metric's mean over folds."""
    return {name: float(np.mean([score.metrics[name] for score in scores])) for name in scores[0].metrics}


def compare_families(
    folds: Sequence[Fold],
    families: Sequence[str] = FAMILIES,
    grid: str = "small",
    seed: int = 42,
    progress: Progress | None = None,
) -> SelectionResult:
    """Try every setting of every family's grid on every fold; the lowest mean criterion wins.

    Raises:
        ValueError: no family, an unknown family or an unknown grid.
    """
    if not families:
        raise ValueError(f"no model family to compare: choose of {', '.join(FAMILIES)}")
    settings = {family: candidates(family, grid) for family in families}
    rows: list[dict[str, Any]] = []
    best_params: dict[str, Params] = {}
    for family, tried in settings.items():
        best, row = _best_setting(folds, family, tried, seed)
        best_params[family] = best
        rows.append(row)
        if progress is not None:
            progress(f"{family}: {CRITERION} {row[CRITERION]:.3f}, best of {len(tried)} settings: {best}")
    table = pd.DataFrame(rows).sort_values(CRITERION, kind="stable", ignore_index=True)
    return SelectionResult(str(table.loc[0, "family"]), table, best_params)


def _best_setting(
    folds: Sequence[Fold], family: str, tried: Sequence[Params], seed: int
) -> tuple[Params, dict[str, Any]]:
    scores = score_folds(family, [(params, fold) for params in tried for fold in folds], seed)
    by_setting = [scores[start : start + len(folds)] for start in range(0, len(scores), len(folds))]
    best = min(range(len(tried)), key=lambda number: mean_metrics(by_setting[number])[CRITERION])
    chosen = by_setting[best]
    metrics = mean_metrics(chosen)
    row = {
        "family": family,
        **{name: metrics[name] for name in REPORTED_METRICS},
        "mae_std": float(np.std([score.metrics["mae"] for score in chosen])),
        "fit_seconds": float(np.mean([score.fit_seconds for score in chosen])),
        "predict_seconds": float(np.mean([score.predict_seconds for score in chosen])),
        "candidates": len(tried),
    }
    return dict(tried[best]), row
