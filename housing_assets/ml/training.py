"""The final model: fit, prediction, interval, evaluation and feature importances.

Which family with which hyperparameters is decided elsewhere, from training rows alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from housing_assets.ml.cleaning import ID_COLUMN
from housing_assets.ml.families import build_estimator
from housing_assets.ml.importances import importance_shares
from housing_assets.ml.intervals import Interval
from housing_assets.ml.metrics import regression_metrics
from housing_assets.ml.preprocessing import RowFeatures, training_matrix
from housing_serving.features import CATEGORICAL_FEATURE, RAW_FEATURES, TARGET, FloatArray


@dataclass(frozen=True)
class Evaluation:
    """How a model did on rows it has not seen.

    Attributes:
        metrics: the ten figures.
        coverage: share of prices that lie in their interval.
        predictions: block_group_id, longitude, latitude, ocean_proximity, median_income, actual, predicted,
            residual (actual - predicted), lower and upper end of the interval, covered (whether it holds
            the price).
    """

    metrics: dict[str, float]
    coverage: float
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
    matrix, target = training_matrix(preprocessing, train)
    estimator = build_estimator(family, hyperparameters, seed)
    # Threads within linear algebra change the last bits; a forest's own threads do not.
    with threadpool_limits(limits=1):
        estimator.fit(matrix, target)
    if "n_jobs" in estimator.get_params():
        # Several threads would add a forest's trees in a varying order when it predicts.
        estimator.set_params(n_jobs=1)
    return Pipeline([("row_features", row_features), ("preprocessing", preprocessing), ("model", estimator)])


def predict(pipeline: Pipeline, frame: pd.DataFrame) -> FloatArray:
    """Prices of the rows, the same to the last bit every time; columns beyond the raw nine are ignored."""
    predicted: FloatArray = pipeline.predict(frame[list(RAW_FEATURES)])
    return predicted


def evaluate(pipeline: Pipeline, test: pd.DataFrame, interval: Interval) -> Evaluation:
    """Score a fitted pipeline on held-out rows."""
    predicted = predict(pipeline, test)
    actual = test[TARGET].to_numpy(dtype=np.float64)
    matrix = None if interval.spread is None else pipeline[:-1].transform(test[list(RAW_FEATURES)])
    lower, upper = interval.bounds(predicted, matrix)
    covered = (lower <= actual) & (actual <= upper)
    predictions = pd.DataFrame(
        {
            ID_COLUMN: test[ID_COLUMN].to_numpy(),
            "longitude": test["longitude"].to_numpy(),
            "latitude": test["latitude"].to_numpy(),
            CATEGORICAL_FEATURE: test[CATEGORICAL_FEATURE].to_numpy(),
            "median_income": test["median_income"].to_numpy(),
            "actual": actual,
            "predicted": predicted,
            "residual": actual - predicted,
            "lower": lower,
            "upper": upper,
            "covered": covered,
        }
    )
    return Evaluation(
        metrics=regression_metrics(actual, predicted),
        coverage=float(covered.mean()),
        predictions=predictions,
    )


def feature_importances(pipeline: Pipeline) -> pd.DataFrame:
    """Share of each feature in the model, largest first: feature, importance (sums to one).

    Raises:
        TypeError: the model has neither importances nor coefficients.
    """
    model = pipeline.named_steps["model"]
    shares = importance_shares(model)
    if shares is None:
        raise TypeError(f"{type(model).__name__} has neither feature_importances_ nor coef_")
    names = pipeline.named_steps["preprocessing"].named_steps["encoder"].get_feature_names_out()
    table = pd.DataFrame({"feature": names, "importance": shares})
    return table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)
