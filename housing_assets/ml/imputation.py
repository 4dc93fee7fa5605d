"""Imputation of `total_bedrooms`: the strategies, their comparison on hidden known values, and the imputer.

Fitted on training rows; the price is never a predictor. The arithmetic is that of
`housing_serving.imputation`, so training and service fill a null alike.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from threadpoolctl import ThreadpoolController, threadpool_limits

from housing_assets.ml.columns import columns_of
from housing_assets.ml.warning_filters import keep_warning_filters
from housing_serving.features import NULLABLE_FEATURE, Columns, FloatArray, row_features
from housing_serving.imputation import (
    ConstantImputer,
    Imputer,
    NeighboursImputer,
    fill_bedrooms,
    imputer_matrix,
    whole_bedrooms,
)

keep_warning_filters()

# The four published strategies, then the better one.
STRATEGIES = ("median", "mean", "knn", "iterative_forest", "ratio_boosting")
DEFAULT_STRATEGY = "ratio_boosting"
NEIGHBOURS = 5
FOREST_TREES = 100


@cache
def _threadpools() -> ThreadpoolController:
    """The process's thread pools, looked up once: that takes longer than a prediction."""
    return ThreadpoolController()


@dataclass(frozen=True)
class EstimatorImputer:
    """A fitted regression as the imputer; `per_household` when it answers bedrooms per household."""

    estimator: Any
    per_household: bool

    def estimate(self, columns: Columns) -> FloatArray:
        """One estimate per row, not yet whole."""
        # Threads for a few rows cost more than they save, a hundredfold on a busy machine.
        with _threadpools().limit(limits=1, user_api="openmp"):
            answer: FloatArray = self.estimator.predict(imputer_matrix(columns))
        return answer * columns["households"] if self.per_household else answer


class BedroomImputer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Fills null `total_bedrooms` of a frame with whole counts, and recomputes the ratios that use them.

    Attributes after `fit`, by strategy:
        constant_: median, mean: the value.
        reference_, values_, mean_, scale_: knn: standardised training rows, their bedrooms, the scaling.
        estimator_: iterative_forest, ratio_boosting: the regression.
    """

    def __init__(self, strategy: str = DEFAULT_STRATEGY, random_state: int = 42) -> None:
        self.strategy = strategy
        self.random_state = random_state

    @property
    def per_household(self) -> bool:
        """Whether `estimator_` answers bedrooms per household."""
        return bool(self.strategy == "ratio_boosting")

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:  # noqa: ARG002
        """Learn from the rows whose bedrooms are known; no column but the imputer's inputs is looked at.

        Raises:
            ValueError: the strategy is unknown, or no row has known bedrooms.
        """
        known = columns_of(X[X[NULLABLE_FEATURE].notna()])
        if len(known[NULLABLE_FEATURE]) == 0:
            raise ValueError(f"no row has a known {NULLABLE_FEATURE}: there is nothing to learn from")
        _fit_of(self.strategy)(self, known)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """A copy without null bedrooms; known values are untouched, ratios recomputed where X has them."""
        filled = fill_bedrooms(columns_of(X), self.as_imputer())
        ratios = {name: values for name, values in row_features(filled).items() if name in X.columns}
        return X.assign(**{NULLABLE_FEATURE: filled[NULLABLE_FEATURE]}, **ratios)

    def as_imputer(self) -> Imputer:
        """What was fitted, in the form of the service's imputers."""
        if self.strategy in ("median", "mean"):
            return ConstantImputer(self.constant_)
        if self.strategy == "knn":
            k = min(NEIGHBOURS, len(self.values_))
            return NeighboursImputer(self.reference_, self.values_, self.mean_, self.scale_, k)
        return EstimatorImputer(self.estimator_, self.per_household)

    def _fit_median(self, known: Columns) -> None:
        self.constant_ = float(np.median(known[NULLABLE_FEATURE]))

    def _fit_mean(self, known: Columns) -> None:
        self.constant_ = float(np.mean(known[NULLABLE_FEATURE]))

    def _fit_knn(self, known: Columns) -> None:
        matrix = imputer_matrix(known)
        spread = matrix.std(axis=0)
        self.mean_ = matrix.mean(axis=0)
        # A constant column says nothing; dividing by its spread would say infinity.
        self.scale_ = np.where(spread > 0, spread, 1.0)
        self.reference_ = (matrix - self.mean_) / self.scale_
        self.values_ = known[NULLABLE_FEATURE]

    def _fit_iterative_forest(self, known: Columns) -> None:
        """What IterativeImputer comes to when one column has nulls: one forest on that column.

        The class itself refits every column and takes ten times as long for the same answer.
        """
        forest = RandomForestRegressor(FOREST_TREES, random_state=self.random_state, n_jobs=-1)
        forest.fit(imputer_matrix(known), known[NULLABLE_FEATURE])
        # Threads add the trees' answers in any order; one thread always gives the same bits.
        self.estimator_ = forest.set_params(n_jobs=1)

    def _fit_ratio_boosting(self, known: Columns) -> None:
        """Boosted trees on bedrooms per household, which varies far less than the count.

        The absolute error keeps the few resorts and barracks with many rooms per household from ruling.
        """
        boosting = HistGradientBoostingRegressor(
            loss="absolute_error", early_stopping=False, random_state=self.random_state
        )
        # Parallel sums round by the number of threads.
        with threadpool_limits(limits=1):
            boosting.fit(imputer_matrix(known), known[NULLABLE_FEATURE] / known["households"])
        self.estimator_ = boosting


def _fit_of(strategy: str) -> Callable[[BedroomImputer, Columns], None]:
    fits = {
        "median": BedroomImputer._fit_median,
        "mean": BedroomImputer._fit_mean,
        "knn": BedroomImputer._fit_knn,
        "iterative_forest": BedroomImputer._fit_iterative_forest,
        "ratio_boosting": BedroomImputer._fit_ratio_boosting,
    }
    if strategy not in fits:
        raise ValueError(f"unknown imputation strategy {strategy!r}, choose one of {', '.join(STRATEGIES)}")
    return fits[strategy]


@dataclass(frozen=True)
class ImputationComparison:
    """How the strategies did.

    Attributes:
        table: one row per strategy: strategy, rmse, mae (bedrooms), seconds.
        best: the strategy with the lowest RMSE.
    """

    table: pd.DataFrame
    best: str


def compare_strategies(
    train: pd.DataFrame, mask_fraction: float = 0.2, repeats: int = 1, seed: int = 42
) -> ImputationComparison:
    """Hide known values, let every strategy fill them, and measure the error on them.

    Args:
        train: Training rows.
        mask_fraction: Share of the known values that is hidden.
        repeats: How many random masks the errors are pooled over.
        seed: Seed of the masks and models.

    Raises:
        ValueError: the mask would hide no known value, or all of them.
    """
    known = train[train[NULLABLE_FEATURE].notna()]
    hidden = round(mask_fraction * len(known))
    if not 0 < hidden < len(known):
        raise ValueError(f"mask_fraction {mask_fraction} hides {hidden} of {len(known)} known values")
    orders = (np.random.default_rng([seed, repeat]).permutation(len(known)) for repeat in range(repeats))
    masks = [np.isin(np.arange(len(known)), order[:hidden]) for order in orders]
    rows = [_masked_errors(strategy, known, masks, seed) for strategy in STRATEGIES]
    table = pd.DataFrame(rows)
    return ImputationComparison(table, str(table.loc[table["rmse"].idxmin(), "strategy"]))


def _masked_errors(
    strategy: str, known: pd.DataFrame, masks: list[NDArray[np.bool_]], seed: int
) -> dict[str, object]:
    started = time.perf_counter()
    errors = []
    for hidden in masks:
        imputer = BedroomImputer(strategy, seed).fit(known[~hidden])
        asked = known[hidden]
        answer = whole_bedrooms(imputer.as_imputer().estimate(columns_of(asked)))
        errors.append(answer - asked[NULLABLE_FEATURE].to_numpy())
    pooled = np.concatenate(errors)
    return {
        "strategy": strategy,
        "rmse": float(np.sqrt(np.mean(pooled**2))),
        "mae": float(np.mean(np.abs(pooled))),
        "seconds": time.perf_counter() - started,
    }
