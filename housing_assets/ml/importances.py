"""How much of a fitted estimator rests on each of its features, whatever its family."""

import numpy as np
from lightgbm import LGBMRegressor
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline

from housing_serving.features import FloatArray


def importance_shares(model: BaseEstimator) -> FloatArray | None:
    """Share of each feature, in the order of the columns; they sum to one, or are all zero.

    Trees: how much of the loss their splits remove. Linear models: size of the coefficient on
    standardised features. None for an estimator that has neither.
    """
    sizes = _sizes(model.steps[-1][1] if isinstance(model, Pipeline) else model)
    if sizes is None:
        return None
    total = float(sizes.sum())
    # A model that only knows the mean uses no feature at all.
    return sizes / total if total > 0 else sizes


def _sizes(model: BaseEstimator) -> FloatArray | None:
    if isinstance(model, LGBMRegressor):
        # Its own default counts splits, whatever they are good for.
        return np.asarray(model.booster_.feature_importance("gain"), dtype=np.float64)
    if isinstance(model, HistGradientBoostingRegressor):
        return _gains(model)
    if hasattr(model, "feature_importances_"):
        return np.asarray(model.feature_importances_, dtype=np.float64)
    if hasattr(model, "coef_"):
        return np.abs(np.asarray(model.coef_, dtype=np.float64))
    return None


def _gains(model: HistGradientBoostingRegressor) -> FloatArray:
    # Private, but the only place where scikit-learn keeps them.
    nodes = np.concatenate([tree.nodes for stage in model._predictors for tree in stage])
    splits = nodes[nodes["is_leaf"] == 0]
    gains = np.bincount(splits["feature_idx"], splits["gain"], minlength=model.n_features_in_)
    return gains.astype(np.float64)
