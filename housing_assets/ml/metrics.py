"""The ten error figures that every model is judged by, defined once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Values = NDArray[Any] | Sequence[float] | pd.Series
# Percent by which a prediction may miss and still count as close.
WITHIN = (5, 10, 15)
METRICS = (
    "mae",
    "rmse",
    "r2",
    "mape",
    "smape",
    "wmape",
    "median_ape",
    *(f"within_{percent}pct" for percent in WITHIN),
)


def regression_metrics(actual: Values, predicted: Values) -> dict[str, float]:
    """The errors of predictions: `mae` and `rmse` in the target's unit, `r2` plain, all else in percent.

    `r2` is NaN when the actual values are all the same.

    Raises:
        ValueError: there is nothing to score, lengths differ, a value is not finite, or an actual value is
            zero, for which no percentage exists.
    """
    y, p = _scorable(actual, predicted)
    error = np.abs(y - p)
    share = 100 * error / np.abs(y)
    spread = float(np.sum((y - y.mean()) ** 2))
    return {
        "mae": float(error.mean()),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "r2": 1 - float(np.sum(error**2)) / spread if spread > 0 else float("nan"),
        "mape": float(share.mean()),
        "smape": float(np.mean(200 * error / (np.abs(y) + np.abs(p)))),
        "wmape": float(100 * error.sum() / np.abs(y).sum()),
        "median_ape": float(np.median(share)),
        **{f"within_{percent}pct": float(100 * np.mean(share <= percent)) for percent in WITHIN},
    }


def _scorable(actual: Values, predicted: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, p = np.asarray(actual, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if y.shape != p.shape or y.ndim != 1:
        raise ValueError(
            f"actual and predicted must be two flat lists of one length, not {y.shape} and {p.shape}"
        )
    if len(y) == 0:
        raise ValueError("there is nothing to score: no rows")
    for name, values in (("actual", y), ("predicted", p)):
        if bad := int(np.sum(~np.isfinite(values))):
            raise ValueError(f"{bad} of {len(values)} {name} values are not finite")
    if zeros := int(np.sum(y == 0)):
        raise ValueError(
            f"{zeros} of {len(y)} actual values are zero: a percentage error needs values above zero"
        )
    return y, p
