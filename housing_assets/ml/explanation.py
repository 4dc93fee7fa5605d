"""What a bundle needs to explain its prices, and how far each input moves prices on average.

How prices are explained is `housing_serving.explanation`; which trees a fitted model consists of,
`onnx_compiler`.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Lasso, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from housing_assets.ml.families import predict_with
from housing_assets.ml.onnx_compiler import FlatTree, UnsupportedEstimator, additive_trees, forest_trees
from housing_serving.explanation import AdditiveModel, Explainer
from housing_serving.features import RAW_FEATURES


def explanation_file(estimator: BaseEstimator, n_features: int) -> bytes:
    """The content of a bundle's `explanation.npz`; the same estimator always gives the same bytes.

    Args:
        estimator: A fitted tree model that `compile_estimator` takes, or a Ridge or Lasso behind
            StandardScalers.
        n_features: Width of its input.

    Raises:
        UnsupportedEstimator: it has no additive form, or does not know its training rows' means.
        ValueError: its trees are not what the format says.
    """
    model = _additive_model(estimator, n_features)
    if problem := model.problem(n_features):
        raise ValueError(f"{type(estimator).__name__} cannot be explained: {problem}")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vars(model))
    return buffer.getvalue()


def mean_contributions(pipeline: Pipeline, frame: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    """How far each input moves prices: mean absolute Shapley value over a sample of rows, largest first.

    Args:
        pipeline: From `training.fit_model`.
        frame: Rows with the raw features.
        rows: Size of the random sample; all rows where there are no more.
        seed: Of the sample.

    Returns:
        feature (an input, a ratio, or `location`), mean_absolute_contribution (dollars).

    Raises:
        UnsupportedEstimator: the model has no additive form.
    """
    sample = frame.sample(min(rows, len(frame)), random_state=seed)
    matrix = pipeline[:-1].transform(sample[list(RAW_FEATURES)])
    names = pipeline["preprocessing"]["encoder"].spec_.names
    explainer = Explainer(_additive_model(pipeline["model"], len(names)), names)
    explanation = explainer.explain(matrix, predict_with(pipeline["model"], matrix))
    sizes = np.abs(explanation.by_group).mean(axis=0)
    table = pd.DataFrame({"feature": explanation.groups, "mean_absolute_contribution": sizes})
    return table.sort_values("mean_absolute_contribution", ascending=False, kind="stable", ignore_index=True)


def _additive_model(estimator: BaseEstimator, n_features: int) -> AdditiveModel:
    if isinstance(estimator, Pipeline | Ridge | Lasso):
        return _scaled_line(estimator)
    if isinstance(estimator, RandomForestRegressor):
        trees = forest_trees(estimator)
        return _sum_of_trees(trees, n_features, factor=1 / len(trees))
    return _sum_of_trees(additive_trees(estimator), n_features)


def _scaled_line(estimator: Pipeline | Ridge | Lasso) -> AdditiveModel:
    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    *scalers, line = steps
    if not isinstance(line, Ridge | Lasso) or not all(isinstance(step, StandardScaler) for step in scalers):
        raise UnsupportedEstimator("of pipelines, only StandardScalers and a Ridge or Lasso can be explained")
    means = scalers[0].mean_ if scalers else None
    if means is None:
        name = type(line).__name__
        raise UnsupportedEstimator(f"{name} without a StandardScaler does not know its training rows' means")
    slopes = np.asarray(line.coef_, dtype=np.float64)
    for scaler in scalers:
        slopes = slopes / (scaler.scale_ if scaler.with_std else 1.0)
    at_means = np.float64(estimator.predict(means.reshape(1, -1)).item())
    no_trees = _sum_of_trees([], len(means))
    return replace(no_trees, constant=np.asarray(at_means), coefficients=slopes, means=means)


def _sum_of_trees(trees: Sequence[FlatTree], n_features: int, factor: float = 1.0) -> AdditiveModel:
    """Trees whose leaves count `factor` times, their nodes numbered through."""
    sizes = [len(tree.left) for tree in trees]
    starts = np.repeat(np.cumsum([0, *sizes])[:-1], sizes)
    left, right = (_joined(trees, name, np.int32) for name in ("left", "right"))
    return AdditiveModel(
        constant=np.zeros(()),
        coefficients=np.zeros(n_features),
        means=np.zeros(n_features),
        feature=_joined(trees, "feature", np.int32),
        threshold=_joined(trees, "threshold", np.float64),
        left=np.where(left < 0, -1, left + starts).astype(np.int32),
        right=np.where(right < 0, -1, right + starts).astype(np.int32),
        value=_joined(trees, "value", np.float64) * factor,
        cover=_joined(trees, "cover", np.float64),
    )


def _joined(trees: Sequence[FlatTree], name: str, kind: type[np.generic]) -> NDArray[Any]:
    # Of no trees at all, too.
    return np.concatenate([np.empty(0, kind), *(getattr(tree, name) for tree in trees)]).astype(kind)
