"""Frames as the plain arrays that the feature and imputation code of the service works on."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from housing_serving.features import CATEGORICAL_FEATURE, NUMERIC_FEATURES


def columns_of(frame: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """The raw features of a frame, numerics as float64; columns beyond them are left out."""
    columns: dict[str, NDArray[Any]] = {
        name: frame[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in NUMERIC_FEATURES
    }
    columns[CATEGORICAL_FEATURE] = frame[CATEGORICAL_FEATURE].to_numpy(dtype=object)
    return columns
