"""The final model: fit, prediction, interval, evaluation and feature importances.

Which family with which hyperparameters is decided elsewhere, from training rows alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from housing_assets.ml.cleaning import ID_COLUMN
from housing_assets.ml.families import build_estimator, predict_with
from housing_assets.ml.metrics import regression_metrics
from housing_assets.ml.preprocessing import RowFeatures
from housing_assets.ml.selection import Fold
from housing_serving.features import CATEGORICAL_FEATURE, RAW_FEATURES, TARGET, FloatArray

CATEGORY_METRICS = ("mae", "rmse", "mape", "wmape", "within_10pct")


@dataclass(frozen=True)
class Interval:
    """A price's interval: from `price + lower_offset`, never below zero, to `price + upper_offset`."""

    level: float
    lower_offset: float
    upper_offset: float

    def contains(self, actual: FloatArray, predicted: FloatArray) -> NDArray[np.bool_]:
        """Whether each actual price lies in its prediction's interval."""
        lower = np.maximum(predicted + self.lower_offset, 0.0)
        return (lower <= actual) & (actual <= predicted + self.upper_offset)


@dataclass(frozen=True)
class Evaluation:
    """How a model did on rows it has not seen.

    Attributes:
        metrics: the ten figures.
        coverage: share of prices that lie in their interval.
        by_category: one row per `ocean_proximity`: rows, mae, rmse, mape, wmape, within_10pct, coverage.
        predictions: block_group_id, longitude, latitude, actual, predicted, residual (actual - predicted).
    """

    metrics: dict[str, float]
    coverage: float
    by_category: pd.DataFrame
    predictions: pd.DataFrame


def fit_model(
    preprocessing: Pipeline,
    train: pd.DataFrame,
    family: str,
    hyperparameters: Mapping[str, Any],
    seed: int = 42,
) -> Pipeline:
    """Fit a family on the training rows, and return all of it as one pipeline on the nine raw columns.

    Args:
        preprocessing: Fitted already; it is not fitted again.
        train: Training rows with the target.
        family: Model family.
        hyperparameters: Its settings.
        seed: Its seed.
    """
    row_features = RowFeatures()
    matrix = preprocessing.transform(row_features.transform(train))
    estimator = build_estimator(family, hyperparameters, seed)
    # Threads within linear algebra change the last bits; a forest's own threads do not.
    with threadpool_limits(limits=1):
        estimator.fit(matrix, train[TARGET].to_numpy(dtype=np.float64))
    if "n_jobs" in estimator.get_params():
        # Several threads would add a forest's trees in a varying order when it predicts.
        estimator.set_params(n_jobs=1)
    return Pipeline([("row_features", row_features), ("preprocessing", preprocessing), ("model", estimator)])


def predict(pipeline: Pipeline, frame: pd.DataFrame) -> FloatArray:
    """Prices of the rows, the same to the last bit every time; columns beyond the raw nine are ignored."""
    predicted: FloatArray = pipeline.predict(frame[list(RAW_FEATURES)])
    return predicted


def residual_interval(
    folds: Sequence[Fold],
    family: str,
    hyperparameters: Mapping[str, Any],
    seed: int = 42,
    level: float = 0.9,
) -> Interval:
    """The interval that out-of-fold residuals give: as many misses below as above.

    Finite-sample quantiles: for rows like these, a new price lies within it with at least the probability
    `level`, as long as there are enough residuals for such a quantile to exist (else their extremes).

    Raises:
        ValueError: the level is not between 0 and 1, or there are no folds.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, not {level}")
    if not folds:
        raise ValueError("no folds: an interval needs out-of-fold residuals")
    residuals = np.sort(np.concatenate([_residuals(fold, family, hyperparameters, seed) for fold in folds]))
    lower, upper = _tail_ranks(len(residuals), level)
    # A prediction lies in its own interval, however biased the residuals are.
    return Interval(level, min(float(residuals[lower]), 0.0), max(float(residuals[upper]), 0.0))


def _residuals(fold: Fold, family: str, hyperparameters: Mapping[str, Any], seed: int) -> FloatArray:
    with threadpool_limits(limits=1):
        estimator = build_estimator(family, hyperparameters, seed).fit(fold.x_train, fold.y_train)
    residuals: FloatArray = fold.y_valid - predict_with(estimator, fold.x_valid)
    return residuals


def _tail_ranks(rows: int, level: float) -> tuple[int, int]:
    """Positions in ascending residuals that cut off at most `(1 - level) / 2` of `rows + 1` on each side."""
    # Rounded first: (1 - 0.9) / 2 * 100 is a hair off 5, and must not cost a rank.
    cut = int(np.floor(round((rows + 1) * (1 - level) / 2, 9)))
    return max(cut, 1) - 1, rows - max(cut, 1)


def evaluate(pipeline: Pipeline, test: pd.DataFrame, interval: Interval) -> Evaluation:
    """Score a fitted pipeline on held-out rows."""
    predicted = predict(pipeline, test)
    actual = test[TARGET].to_numpy(dtype=np.float64)
    covered = interval.contains(actual, predicted)
    predictions = pd.DataFrame(
        {
            ID_COLUMN: test[ID_COLUMN].to_numpy(),
            "longitude": test["longitude"].to_numpy(),
            "latitude": test["latitude"].to_numpy(),
            "actual": actual,
            "predicted": predicted,
            "residual": actual - predicted,
        }
    )
    return Evaluation(
        metrics=regression_metrics(actual, predicted),
        coverage=float(covered.mean()),
        by_category=_by_category(predictions, test[CATEGORICAL_FEATURE].to_numpy(), covered),
        predictions=predictions,
    )


def _by_category(
    predictions: pd.DataFrame,
    category: NDArray[Any],
    covered: NDArray[np.bool_],
) -> pd.DataFrame:
    rows = []
    for name, group in predictions.assign(covered=covered).groupby(category):
        metrics = regression_metrics(group["actual"], group["predicted"])
        chosen = {metric: metrics[metric] for metric in CATEGORY_METRICS}
        coverage = float(group["covered"].mean())
        rows.append({CATEGORICAL_FEATURE: name, "rows": len(group), **chosen, "coverage": coverage})
    return pd.DataFrame(rows)


def feature_importances(pipeline: Pipeline) -> pd.DataFrame:
    """Share of each feature in the model, largest first: feature, importance (sums to one).

    Trees: how much of the squared error their splits remove. Linear models: size of the coefficient on
    standardised features.

    Raises:
        TypeError: the model has neither.
    """
    names = pipeline.named_steps["preprocessing"].named_steps["encoder"].get_feature_names_out()
    sizes = _importance_sizes(pipeline.named_steps["model"])
    total = float(sizes.sum())
    # A model that only knows the mean uses no feature at all.
    shares = sizes / total if total > 0 else sizes
    table = pd.DataFrame({"feature": names, "importance": shares})
    return table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def _importance_sizes(model: BaseEstimator) -> FloatArray:
    last = model.steps[-1][1] if isinstance(model, Pipeline) else model
    if hasattr(last, "feature_importances_"):
        return np.asarray(last.feature_importances_, dtype=np.float64)
    if hasattr(last, "coef_"):
        return np.abs(np.asarray(last.coef_, dtype=np.float64))
    raise TypeError(f"{type(last).__name__} has neither feature_importances_ nor coef_")
