"""Cross-validation folds of the training rows, and the comparison of model families in them.

Preprocessing is fitted anew on each fold's own training rows; all candidates then share its matrices.
"""

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from housing_assets.ml.families import FAMILIES, Params, build_estimator, candidates, predict_with
from housing_assets.ml.importances import importance_shares
from housing_assets.ml.imputation import DEFAULT_STRATEGY, BedroomImputer
from housing_assets.ml.metrics import regression_metrics
from housing_assets.ml.preprocessing import FeatureSettings, fit_preprocessing, training_matrix
from housing_assets.ml.splitters import Splitter, shuffled_rows
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

# A setting goes on while it is among the best of so many of its family.
ETA = 3

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
    # Names of the columns of both matrices, where they have names.
    features: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class FoldScore:
    """How one setting did on one fold; seconds are wall clock, importances shares by column if it has any."""

    metrics: dict[str, float]
    predicted: FloatArray
    fit_seconds: float
    predict_seconds: float
    importances: FloatArray | None = None


class Scored(Protocol):
    """What has been scored on one fold."""

    @property
    def metrics(self) -> dict[str, float]:
        """The ten figures."""


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
    splitter: Splitter = shuffled_rows,
    strategy: str = DEFAULT_STRATEGY,
    features: FeatureSettings | None = None,
) -> list[Fold]:
    """Folds of the training rows, each with preprocessing fitted on its own training part.

    Args:
        train: Featured training rows with the target.
        n_folds: Number of folds.
        seed: Seed of the shuffle, the imputer and the clustering.
        splitter: How rows are dealt into folds.
        strategy: Imputation strategy.
        features: Which features there are.
    """

    def fit(rows: pd.DataFrame) -> Pipeline:
        imputer = BedroomImputer(strategy, random_state=seed).fit(rows)
        return fit_preprocessing(imputer, rows, features, seed)

    # Threads of OpenMP wait by spinning: on a busy machine two are many times slower than one.
    with threadpool_limits(limits=1):
        folds: list[Fold] = Parallel(n_jobs=-1, prefer="threads")(
            delayed(_fold)(train, rows, held_out, fit) for rows, held_out in splitter(train, n_folds, seed)
        )
    return folds


def _fold(
    train: pd.DataFrame,
    train_index: NDArray[np.int64],
    valid_index: NDArray[np.int64],
    fit: Callable[[pd.DataFrame], Pipeline],
) -> Fold:
    rows, held_out = train.iloc[train_index], train.iloc[valid_index]
    preprocessing = fit(rows)
    x_train, y_train = training_matrix(preprocessing, rows)
    return Fold(
        x_train=x_train,
        y_train=y_train,
        x_valid=preprocessing.transform(held_out),
        y_valid=held_out[TARGET].to_numpy(dtype=np.float64),
        valid_index=valid_index,
        features=tuple(preprocessing.named_steps["encoder"].get_feature_names_out()),
    )


# As `score_folds`.
ScoreFolds = Callable[[str, Sequence[tuple[Params, Fold]], int], list[FoldScore]]


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
    shares = importance_shares(estimator)
    return FoldScore(metrics, predicted, fitted - started, predict_seconds, shares)


def mean_metrics(scores: Sequence[Scored]) -> dict[str, float]:
    """Each metric's mean over folds."""
    return {name: float(np.mean([score.metrics[name] for score in scores])) for name in scores[0].metrics}


def compare_families(
    folds: Sequence[Fold],
    families: Sequence[str] = FAMILIES,
    grid: str = "small",
    seed: int = 42,
    progress: Progress | None = None,
) -> SelectionResult:
    """Try every setting of every family's grid; the lowest mean criterion over all folds wins.

    By successive halving over folds (Jamieson and Talwalkar, Non-stochastic Best Arm Identification and
    Hyperparameter Optimization, AISTATS 2016), within each family: all settings are scored on the first fold,
    and the best third of them, again and again, on three times as many.

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


def _rungs(n_folds: int) -> list[int]:
    """Numbers of finished folds at which settings are compared, from none to all."""
    rungs = [0, 1]
    while rungs[-1] * ETA < n_folds:
        rungs.append(rungs[-1] * ETA)
    return sorted({*rungs, n_folds})


def _best_setting(
    folds: Sequence[Fold], family: str, tried: Sequence[Params], seed: int
) -> tuple[Params, dict[str, Any]]:
    scores: list[list[FoldScore]] = [[] for _ in tried]
    running = list(range(len(tried)))
    for start, stop in itertools.pairwise(_rungs(len(folds))):
        tasks = [(tried[number], fold) for number in running for fold in folds[start:stop]]
        found = iter(score_folds(family, tasks, seed))
        for number in running:
            scores[number] += itertools.islice(found, stop - start)
        # Ties go to the earlier setting.
        running.sort(key=lambda number: mean_metrics(scores[number])[CRITERION])
        if stop < len(folds):
            running = sorted(running[: -(-len(running) // ETA)])
    best = running[0]
    chosen = scores[best]
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
