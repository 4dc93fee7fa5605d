"""A storage root as training leaves it behind: training rows, and bundles that name them."""

import io
from datetime import date

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from housing_assets.formats import encode
from housing_assets.ml.cleaning import content_hash
from housing_assets.monitoring.prediction_rows import SCHEMA
from housing_assets.storage import ObjectStore
from housing_assets_tests.monitoring.days import DAY, stored, train_rows
from housing_assets_tests.serving.bundles import bundle_files

SNAPSHOT = "2026-02-22"
OWN_METRICS = {"mape": 8.0, "within_10pct": 70.0, "mae": 20_000.0, "interval_coverage": 0.9}
TRAIN_NAME = f"data/04-split/{SNAPSHOT}/train/train.parquet"


def trained(store: ObjectStore, *versions: int) -> None:
    """Store the training rows, and a bundle for each version."""
    rows = train_rows()
    store.write(TRAIN_NAME, encode(TRAIN_NAME, rows))
    for version in versions:
        files = bundle_files(
            kind="compiled",
            version=version,
            snapshot=SNAPSHOT,
            data_hash=content_hash(rows),
            metrics=OWN_METRICS,
        )
        for name, data in files.items():
            store.write(f"models/housing_price_model/{version}/{name}", data)


def served(store: ObjectStore, *parts: pd.DataFrame, day: date = DAY, name: str = "000000") -> None:
    """Store rows as the service does, each part as a file."""
    for number, part in enumerate(parts):
        store.write(f"monitoring/predictions/{day}/{name}-{number:04d}.parquet", stored(part))


def logged(store: ObjectStore, day: date = DAY) -> pd.DataFrame:
    """The table of a day."""
    data = store.read(f"monitoring/prediction_log/{day}/predictions.parquet")
    table: pa.Table = parquet.read_table(io.BytesIO(data))
    assert table.schema.equals(SCHEMA)
    frame: pd.DataFrame = table.to_pandas()
    return frame
