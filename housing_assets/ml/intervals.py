"""Price intervals: conformal, wider where prices are harder to tell, and not symmetric.

Conformal prediction with normalised residuals (Papadopoulos et al. 2002; Lei et al. 2018), on residuals of
cross-validation folds: a second model learns how far off a price may be, and the quantiles of the residuals
in these units, one for each side, give the interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from lightgbm import LGBMRegressor
from numpy.typing import NDArray
from sklearn.model_selection import KFold
from threadpoolctl import threadpool_limits

from housing_assets.ml.families import HUBER_DOLLARS, LIGHTGBM_OPTIONS
from housing_serving.features import FloatArray

# The error of an error is noisy: small steps, large leaves, and outliers that do not rule.
SPREAD_MODEL: Mapping[str, Any] = {
    **LIGHTGBM_OPTIONS,
    "alpha": HUBER_DOLLARS,
    "n_estimators": 150,
    "learning_rate": 0.08,
    "num_leaves": 15,
    "min_child_samples": 100,
    "subsample": 0.8,
    "colsample_bytree": 0.3,
    "reg_lambda": 1.0,
}
SPREAD_FOLDS = 5
# Models of fewer rows are worse than the final one, and their residuals would make its intervals too wide.
RESIDUAL_FOLDS = 5
# Below so many residuals a second model would learn nothing: every price then has the same interval.
LEAST_ROWS = 1_000
# Dollars; no price is surer than this.
LEAST_SPREAD = 5_000.0


@dataclass(frozen=True, eq=False)
class Interval:
    """A price's interval: from `price + lower_offset`, never below zero, to `price + upper_offset`.

    Attributes:
        level: Share of prices that it is built to cover.
        lower_offset: Dollars, at most zero; with a spread model, a multiple of what that answers.
        upper_offset: The same, at least zero.
        highest: Dollars; nothing was ever published above, so no interval reaches further, unless its price
            does. None where that is not known.
        spread: Fitted model of the absolute error in dollars, on the model's own input matrix; None where
            every price has the same interval.
    """

    level: float
    lower_offset: float
    upper_offset: float
    highest: float | None = None
    spread: LGBMRegressor | None = None

    def bounds(
        self, predicted: FloatArray, matrix: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends.

        Args:
            predicted: Prices, shape (n,).
            matrix: What the model saw of the rows, shape (n, features); needed for a spread model.
        """
        spread = np.ones(len(predicted))
        if self.spread is not None and matrix is not None:
            spread = spread_of(self.spread, matrix)
        upper = predicted + self.upper_offset * spread
        if self.highest is not None:
            upper = np.maximum(np.minimum(upper, self.highest), predicted)
        return np.maximum(predicted + self.lower_offset * spread, 0.0), upper


def conformal_interval(
    residuals: FloatArray,
    matrix: FloatArray,
    level: float = 0.9,
    *,
    highest: float | None = None,
    seed: int = 42,
) -> Interval:
    """The interval that out-of-fold residuals give: as many misses below as above.

    Finite-sample quantiles: for rows like these, a new price lies within it with at least the probability
    `level`, as long as there are enough residuals for such a quantile to exist (else their extremes).

    Args:
        residuals: Actual less predicted, each by a model that did not see the row, shape (n,).
        matrix: What those models saw of the rows, shape (n, features).
        level: Share of prices to cover.
        highest: The highest price there is, dollars.
        seed: Of the spread model.

    Raises:
        ValueError: the level is not between 0 and 1, or there are no residuals.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, not {level}")
    if len(residuals) == 0:
        raise ValueError("there are no residuals: an interval needs some")
    if len(residuals) < LEAST_ROWS:
        return _interval(residuals, level, highest, None)
    with threadpool_limits(limits=1):
        spread, seen = _fit_spread(matrix, np.abs(residuals), seed)
    return _interval(residuals / seen, level, highest, spread)


def spread_of(model: LGBMRegressor, matrix: FloatArray) -> FloatArray:
    """How far off each price may be, dollars."""
    answer: FloatArray = model.predict(matrix)
    return np.maximum(answer, LEAST_SPREAD)


def _fit_spread(matrix: FloatArray, errors: FloatArray, seed: int) -> tuple[LGBMRegressor, FloatArray]:
    """The spread model of all rows, and what others like it say of rows that they have not seen."""

    def fit(rows: NDArray[np.int64]) -> LGBMRegressor:
        return LGBMRegressor(**SPREAD_MODEL, random_state=seed).fit(matrix[rows], errors[rows])

    everyone = np.arange(len(errors))
    splits = list(KFold(SPREAD_FOLDS, shuffle=True, random_state=seed).split(matrix))
    fitted = Parallel(n_jobs=-1, prefer="threads")(
        delayed(fit)(rows) for rows in [everyone, *(learned for learned, _ in splits)]
    )
    seen = np.empty(len(errors))
    for model, (_, asked) in zip(fitted[1:], splits, strict=True):
        seen[asked] = spread_of(model, matrix[asked])
    return fitted[0], seen


def _interval(
    scores: FloatArray, level: float, highest: float | None, spread: LGBMRegressor | None
) -> Interval:
    ordered = np.sort(scores)
    lower, upper = _tail_ranks(len(ordered), level)
    # A prediction lies in its own interval, however biased the residuals are.
    return Interval(level, min(float(ordered[lower]), 0.0), max(float(ordered[upper]), 0.0), highest, spread)


def _tail_ranks(rows: int, level: float) -> tuple[int, int]:
    """Positions in ascending scores that cut off at most `(1 - level) / 2` of `rows + 1` on each side."""
    # Rounded first: (1 - 0.9) / 2 * 100 is a hair off 5, and must not cost a rank.
    cut = int(np.floor(round((rows + 1) * (1 - level) / 2, 9)))
    return max(cut, 1) - 1, rows - max(cut, 1)
