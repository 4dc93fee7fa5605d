"""What a chosen family and setting are worth on rows they have not seen, told by training rows alone.

Two protocols: shuffled folds, and folds of whole spatial blocks. And how errors fall with more rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from housing_assets.ml.bootstrap import FIGURES, RESAMPLES, Estimate, figure_intervals
from housing_assets.ml.metrics import regression_metrics
from housing_assets.ml.preprocessing import FeatureSettings
from housing_assets.ml.selection import Fold, FoldScore, mean_metrics, prepare_folds, score_folds
from housing_assets.ml.splitters import (
    BLOCK_DEGREES,
    Positions,
    shuffled_blocks,
    shuffled_rows,
    spatial_blocks,
    thinned,
)
from housing_serving.features import FloatArray

SHUFFLED, SPATIAL = "cross-validation, shuffled rows", "cross-validation, whole blocks"
CURVE_FRACTIONS = (0.1, 0.3, 0.6)
CURVE_METRICS = ("wmape", "mae", "rmse")


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The outcome of one protocol.

    Attributes:
        protocol: `SHUFFLED` or `SPATIAL`.
        n_folds: folds.
        scores: of each fold, in order.
        actual: prices, in the order of the folds, shape (n,).
        predicted: each by the model that did not see its fold, shape (n,).
        matrix: what those models saw of the rows, shape (n, features).
        metrics: the ten metrics of all these predictions together, since folds of blocks differ in size.
        intervals: the figures of `bootstrap.FIGURES` with 95 % intervals.
    """

    protocol: str
    n_folds: int
    scores: tuple[FoldScore, ...]
    actual: FloatArray
    predicted: FloatArray
    matrix: FloatArray
    metrics: dict[str, float]
    intervals: dict[str, Estimate]

    @property
    def residuals(self) -> FloatArray:
        """Actual less predicted, shape (n,)."""
        return self.actual - self.predicted


def shuffled_cross_validation(
    folds: Sequence[Fold],
    family: str,
    hyperparameters: Mapping[str, Any],
    seed: int = 42,
    resamples: int = RESAMPLES,
) -> CrossValidation:
    """Score a setting in folds of shuffled rows; intervals are over rows.

    Args:
        folds: From `prepare_folds`, shuffled.
        family: Model family.
        hyperparameters: Its settings.
        seed: Of the models and the resamples.
        resamples: Of the intervals.
    """
    return _cross_validation(SHUFFLED, folds, family, hyperparameters, seed, resamples, None)


def spatial_cross_validation(
    train: pd.DataFrame,
    family: str,
    hyperparameters: Mapping[str, Any],
    *,
    n_folds: int = 5,
    degrees: float = BLOCK_DEGREES,
    features: FeatureSettings | None = None,
    seed: int = 42,
    resamples: int = RESAMPLES,
) -> CrossValidation:
    """Score a setting in folds of whole blocks, preprocessing fitted anew; intervals are over blocks.

    Args:
        train: Featured training rows with the target.
        family: Model family.
        hyperparameters: Its settings.
        n_folds: Number of folds.
        degrees: Side of a block.
        features: Which features there are.
        seed: Of the folds, the preprocessing, the models and the resamples.
        resamples: Of the intervals.

    Raises:
        ValueError: there are fewer blocks than folds.
    """
    splitter = partial(shuffled_blocks, degrees=degrees)
    folds = prepare_folds(train, n_folds, seed, splitter=splitter, features=features)
    blocks = spatial_blocks(train, degrees)
    return _cross_validation(SPATIAL, folds, family, hyperparameters, seed, resamples, blocks)


def _cross_validation(
    protocol: str,
    folds: Sequence[Fold],
    family: str,
    hyperparameters: Mapping[str, Any],
    seed: int,
    resamples: int,
    clusters: Positions | None,
) -> CrossValidation:
    scores = score_folds(family, [(dict(hyperparameters), fold) for fold in folds], seed)
    actual = np.concatenate([fold.y_valid for fold in folds])
    predicted = np.concatenate([score.predicted for score in scores])
    held_out = np.concatenate([fold.valid_index for fold in folds])
    return CrossValidation(
        protocol=protocol,
        n_folds=len(folds),
        scores=tuple(scores),
        actual=actual,
        predicted=predicted,
        matrix=np.vstack([fold.x_valid for fold in folds]),
        metrics=regression_metrics(actual, predicted),
        intervals=figure_intervals(
            actual,
            predicted,
            clusters=None if clusters is None else clusters[held_out],
            resamples=resamples,
            seed=seed,
        ),
    )


def protocol_table(intervals: Mapping[str, Mapping[str, Estimate]]) -> pd.DataFrame:
    """Figures of several protocols side by side: protocol, figure, value, low, high.

    Args:
        intervals: Figures with their intervals, by protocol.
    """
    rows = [
        (protocol, name, found[name].value, found[name].low, found[name].high)
        for name in FIGURES
        for protocol, found in intervals.items()
    ]
    return pd.DataFrame(rows, columns=["protocol", "figure", "value", "low", "high"])


def learning_curve(
    train: pd.DataFrame,
    family: str,
    hyperparameters: Mapping[str, Any],
    whole: CrossValidation,
    *,
    fractions: Sequence[float] = CURVE_FRACTIONS,
    first_folds: int = 2,
    features: FeatureSettings | None = None,
    seed: int = 42,
) -> pd.DataFrame:
    """Errors in shuffled folds by share of the training rows that a model was fitted on.

    One row per fraction, and a last one for all rows: fraction, rows (fitted on), then of each metric its
    mean over folds and its lowest and highest fold. Preprocessing is fitted on the same fewer rows.

    Args:
        train: Featured training rows with the target.
        family: Model family.
        hyperparameters: Its settings.
        whole: The setting's shuffled cross-validation on these rows with this seed: the last point.
        fractions: Shares below one, in ascending order.
        first_folds: How many of its folds are used; they bound the time.
        features: Which features there are.
        seed: Of the folds, the preprocessing and the models.
    """
    used = min(first_folds, whole.n_folds)
    folds = [
        prepare_folds(
            train, whole.n_folds, seed, splitter=thinned(shuffled_rows, fraction, used), features=features
        )
        for fraction in fractions
    ]
    tasks = [(dict(hyperparameters), fold) for of_fraction in folds for fold in of_fraction]
    scores = score_folds(family, tasks, seed)
    # Not the rows of the matrix, in which some come twice.
    all_rows = len(train) - len(whole.scores[0].predicted)
    points = [
        (fraction, round(fraction * all_rows), scores[place * used : (place + 1) * used])
        for place, fraction in enumerate(fractions)
    ]
    return pd.DataFrame([_point(*point) for point in [*points, (1.0, all_rows, whole.scores[:used])]])


def _point(fraction: float, rows: int, scores: Sequence[FoldScore]) -> dict[str, float]:
    means = mean_metrics(scores)
    point: dict[str, float] = {"fraction": fraction, "rows": rows}
    for name in CURVE_METRICS:
        found = [score.metrics[name] for score in scores]
        point |= {name: means[name], f"{name}_lowest": min(found), f"{name}_highest": max(found)}
    return point
