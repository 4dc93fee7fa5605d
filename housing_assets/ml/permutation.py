"""How much worse a fitted model gets when it is given one input of other rows.

Permutation importance (Breiman, Random Forests, Machine Learning 45, 2001, section 10) of raw inputs: every
feature computed from an input follows it, so features that say the same do not hide each other.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from housing_assets.ml.metrics import regression_metrics
from housing_assets.ml.splitters import Positions
from housing_serving.features import RAW_FEATURES, TARGET, FloatArray

Price = Callable[[pd.DataFrame], FloatArray]

# Longitude and latitude move together: one alone would put block groups into the sea.
PLACE = ("longitude", "latitude")
COUNTS = ("total_rooms", "total_bedrooms", "population", "households")
# Counts are dealt out one by one and together. One alone makes ratios that no block group has, such as a
# hundred rooms per household, and a model that never saw such rows guesses; together, ratios stay as they are
# (Hooker, Mentch and Zhou, Unrestricted permutation forces extrapolation, Statistics and Computing 31, 2021).
INPUTS: Mapping[str, tuple[str, ...]] = {
    "place": PLACE,
    "all_counts": COUNTS,
    **{name: (name,) for name in RAW_FEATURES if name not in PLACE},
}


def permutation_importances(
    price: Price, rows: pd.DataFrame, *, repeats: int = 5, max_rows: int = 2_000, seed: int = 42
) -> pd.DataFrame:
    """Rise of the mean absolute error when an input is dealt out anew among the rows, largest first.

    One row per entry of `INPUTS`: input, mae_increase (dollars, mean over repeats), std (over repeats).
    Inputs that tell the same, as place and ocean proximity do, stand in for each other and look small.

    Args:
        price: The model, from raw columns to prices.
        rows: Rows with the target that it was not fitted on.
        repeats: How often each input is dealt out.
        max_rows: Rows beyond these are left out, at random.
        seed: Of the choice of rows and of every deal.
    """
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(rows))[:max_rows]
    sample = rows.iloc[chosen].reset_index(drop=True)
    actual = sample[TARGET].to_numpy(dtype=np.float64)
    before = regression_metrics(actual, price(sample))["mae"]
    found = []
    for name, columns in INPUTS.items():
        orders = [generator.permutation(len(sample)) for _ in range(repeats)]
        dealt = [price(_dealt(sample, columns, order)) for order in orders]
        found.append((name, [regression_metrics(actual, one)["mae"] - before for one in dealt]))
    return _table(found)


def _dealt(sample: pd.DataFrame, columns: tuple[str, ...], order: Positions) -> pd.DataFrame:
    return sample.assign(**{name: sample[name].to_numpy()[order] for name in columns})


def _table(found: list[tuple[str, list[float]]]) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "input": [name for name, _ in found],
            "mae_increase": [float(np.mean(increases)) for _, increases in found],
            "std": [float(np.std(increases)) for _, increases in found],
        }
    )
    return table.sort_values("mae_increase", ascending=False, kind="stable", ignore_index=True)
