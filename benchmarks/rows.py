"""The rows that are measured on: the packaged table or another, prepared as the asset graph prepares it."""

import numpy as np
import pandas as pd

from housing_assets.ml.cleaning import add_row_features, process
from housing_assets.ml.split import split
from housing_assets.sources import fetch, packaged_source, parse


def training_rows() -> pd.DataFrame:
    """All training rows; they are sorted by a hash, so the first of them are as good as a sample."""
    train, _ = split(add_row_features(process(parse(packaged_source())).frame))
    return train.reset_index(drop=True)


def raw_table(source: str, rows: int | None) -> pd.DataFrame:
    """The table at a location, or so many of its rows, spread evenly since they are sorted by place."""
    raw = parse(fetch(source))
    if rows is None:
        return raw
    return raw.iloc[np.linspace(0, len(raw) - 1, rows).astype(np.int64)].reset_index(drop=True)
