"""Errors of predictions by segment, and their calibration: all of it from one frame of predictions.

The frame is `training.Evaluation.predictions`: nothing here predicts again.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from housing_assets.ml.metrics import regression_metrics
from housing_serving.features import CATEGORICAL_FEATURE

DECILES = 10
QUINTILES = 5
SEGMENT_METRICS = ("mae", "rmse", "mape", "wmape", "within_10pct")
# Two lines from coast to border: north or south of 36 degrees, and west or east of a longitude, since the
# coast runs from north-west to south-east.
REGION_LATITUDE = 36.0
REGION_LONGITUDES = {"north": -121.5, "south": -117.9}
REGIONS = {
    ("north", "west"): "north-west (Bay Area, north coast)",
    ("north", "east"): "north-east (Central Valley, Sierra)",
    ("south", "west"): "south-west (Los Angeles, south coast)",
    ("south", "east"): "south-east (San Diego, Inland Empire)",
}
# Half-width of the 95 % interval of a mean, in standard errors.
TWO_SIDED_95 = 1.96

Labels = NDArray[Any]


def equal_parts(values: "pd.Series[float]", parts: int) -> NDArray[np.int64]:
    """Which part each value falls in, from 0 for the lowest, shape (n,).

    By rank, so that the parts are of one size however many rows share a value.
    """
    ranks: NDArray[np.int64] = values.rank(method="first").to_numpy().astype(np.int64) - 1
    return ranks * parts // max(len(values), 1)


def price_deciles(predictions: pd.DataFrame) -> Labels:
    """Tenths by published price.

    Any model prices the cheapest too high and the dearest too low: a price is known by its outcome here. For
    whether a model is right on average where it says so, see `calibration`.
    """
    return _named_parts(predictions["actual"], DECILES, "${:,.0f}", 1.0)


def income_quintiles(predictions: pd.DataFrame) -> Labels:
    """Fifths by median income, which the data gives in tens of thousands of dollars."""
    return _named_parts(predictions["median_income"], QUINTILES, "${:,.0f}", 1e4)


def _named_parts(values: "pd.Series[float]", parts: int, form: str, unit: float) -> Labels:
    part = equal_parts(values, parts)
    names = {}
    for number in np.unique(part):
        within = values.to_numpy()[part == number] * unit
        # Two digits, so that ten come after nine.
        names[number] = f"{number + 1:02d}: {form.format(within.min())} to {form.format(within.max())}"
    return np.array([names[number] for number in part], dtype=object)


def regions(predictions: pd.DataFrame) -> Labels:
    """Quarters of California by latitude and longitude."""
    side = np.where(predictions["latitude"] >= REGION_LATITUDE, "north", "south")
    west_of = np.array([REGION_LONGITUDES[one] for one in side], dtype=np.float64)
    coast = np.where(predictions["longitude"] <= west_of, "west", "east")
    return np.array([REGIONS[key] for key in zip(side, coast, strict=True)], dtype=object)


def ocean_proximity(predictions: pd.DataFrame) -> Labels:
    """The published categories."""
    return predictions[CATEGORICAL_FEATURE].to_numpy(dtype=object)


# Every segmentation by its column in the tables.
SEGMENTATIONS: Mapping[str, Callable[[pd.DataFrame], Labels]] = {
    CATEGORICAL_FEATURE: ocean_proximity,
    "price_decile": price_deciles,
    "income_quintile": income_quintiles,
    "region": regions,
}


def segment_tables(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """One table per segmentation, by its name: see `errors_by`."""
    return {name: errors_by(predictions, labels(predictions), name) for name, labels in SEGMENTATIONS.items()}


def errors_by(predictions: pd.DataFrame, labels: Labels, name: str) -> pd.DataFrame:
    """One row per label, sorted: label, rows, mae, rmse, mape, wmape, within_10pct, bias, coverage, width.

    Args:
        predictions: actual, predicted, lower and upper end of the interval, covered (whether it holds the
            price).
        labels: Segment of each row, shape (n,).
        name: Column of the label.
    """
    return pd.DataFrame(
        [{name: label, **_errors(group)} for label, group in predictions.groupby(labels, sort=True)]
    )


def _errors(group: pd.DataFrame) -> dict[str, float]:
    """Errors of some rows; `bias` is the mean of predicted - actual, in dollars."""
    metrics = regression_metrics(group["actual"], group["predicted"])
    return {
        "rows": len(group),
        **{metric: metrics[metric] for metric in SEGMENT_METRICS},
        "bias": float((group["predicted"] - group["actual"]).mean()),
        "coverage": float(group["covered"].mean()),
        # Dollars, of the interval, on average.
        "width": float((group["upper"] - group["lower"]).mean()),
    }


def calibration(predictions: pd.DataFrame, parts: int = DECILES) -> pd.DataFrame:
    """Whether rows that are priced alike cost that on average: one row per part by predicted price.

    part, rows, predicted (mean), actual (mean), low and high (95 % interval of the mean of actual, normal
    approximation).

    Args:
        predictions: actual, predicted.
        parts: How many parts of one size.
    """
    part = equal_parts(predictions["predicted"], parts)
    table = predictions.groupby(part).agg(
        rows=("actual", "size"),
        predicted=("predicted", "mean"),
        actual=("actual", "mean"),
        error=("actual", "sem"),
    )
    # A part of one row has no standard error, and so no width that is known.
    half = TWO_SIDED_95 * table["error"]
    table = table.assign(low=table["actual"] - half, high=table["actual"] + half).drop(columns="error")
    return table.rename_axis("part").reset_index().assign(part=lambda frame: frame["part"] + 1)
