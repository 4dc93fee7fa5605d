"""The rows that are measured on: the packaged table, prepared as the asset graph prepares it."""

import pandas as pd

from housing_assets.ml.cleaning import add_row_features, process
from housing_assets.ml.split import split
from housing_assets.sources import packaged_source, parse


def training_rows() -> pd.DataFrame:
    """All training rows; they are sorted by a hash, so the first of them are as good as a sample."""
    train, _ = split(add_row_features(process(parse(packaged_source())).frame))
    return train.reset_index(drop=True)
