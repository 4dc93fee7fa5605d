"""Real rows in training form, small enough for fast tests."""

from functools import cache

import numpy as np
import pandas as pd

from housing_assets.ml.cleaning import add_row_features, process
from housing_assets.ml.preprocessing import FeatureSettings
from housing_assets.ml.selection import Fold, prepare_folds
from housing_assets.sources import packaged_source, parse

# Few columns, and no row twice: for tests that are not about features.
PLAIN = FeatureSettings(n_clusters=4, gamma=0.3, rotations=0, city_distances=False, neighbours=False)


@cache
def _all_rows() -> pd.DataFrame:
    return add_row_features(process(parse(packaged_source())).frame)


def block_groups(rows: int) -> pd.DataFrame:
    """The first rows by id, which is as good as a random sample; some lack bedrooms."""
    return _all_rows().head(rows).copy()


@cache
def small_folds(rows: int = 600) -> tuple[Fold, ...]:
    """Three folds of real rows; never changed by anyone."""
    return tuple(prepare_folds(block_groups(rows), 3, 42, strategy="median", features=PLAIN))


def step_folds() -> tuple[Fold, ...]:
    """Two folds of one feature where a price steps from 100 to 300 at 5: a tree of depth 1 is exact."""
    x = np.arange(10, dtype=np.float64).reshape(-1, 1)
    y = np.where(x[:, 0] < 5, 100.0, 300.0)
    even, odd = np.arange(0, 10, 2), np.arange(1, 10, 2)
    return (
        Fold(x[even], y[even], x[odd], y[odd], odd),
        Fold(x[odd], y[odd], x[even], y[even], even),
    )
