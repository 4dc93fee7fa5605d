"""Days of predictions made from training rows, as the service would have stored them."""

import io
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from housing_assets.ml.cleaning import add_row_features, process
from housing_assets.ml.columns import columns_of
from housing_assets.ml.split import split
from housing_assets.monitoring.compaction import RawFile, compact
from housing_assets.monitoring.prediction_rows import SCHEMA
from housing_assets.monitoring.served import ServedDay
from housing_assets.monitoring.training_data import Reference
from housing_assets.sources import packaged_source, parse
from housing_assets_tests.serving.bundles import bundle_files
from housing_serving.bundle import Bundle
from housing_serving.features import RAW_FEATURES

DAY = date(2026, 3, 2)
Change = Callable[[pd.DataFrame], pd.DataFrame]


@cache
def train_rows() -> pd.DataFrame:
    """The training rows of the packaged table."""
    train, _ = split(add_row_features(process(parse(packaged_source())).frame))
    return train


@cache
def bundle(version: int = 3) -> Bundle:
    """A bundle whose prices depend on income and region."""
    return Bundle.from_files(bundle_files(kind="compiled", version=version), origin="the test's bundle")


@cache
def reference(version: int = 3) -> Reference:
    """The training data of that bundle."""
    return Reference.of(bundle(version), train_rows())


def resampled(rows: int, seed: int) -> pd.DataFrame:
    """Raw features of training rows, drawn with replacement."""
    chosen = np.random.default_rng(seed).integers(0, len(train_rows()), rows)
    return train_rows()[list(RAW_FEATURES)].iloc[chosen].reset_index(drop=True)


def answered(
    features: pd.DataFrame,
    *,
    day: date = DAY,
    version: int = 3,
    request: str = "request",
    seconds: float = 1.0,
) -> pd.DataFrame:
    """The rows that the service logs: requests of ten instances, one a second."""
    numbers = np.arange(len(features))
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    moments = pd.to_datetime([midnight + timedelta(seconds=n // 10 + 1) for n in range(len(features))])
    priced = bundle(version).predict(columns_of(features))
    return pd.DataFrame(
        {
            "request_id": [f"{request}-{number // 10}" for number in numbers],
            "instance": (numbers % 10).astype(np.int32),
            "answered_at": moments,
            "latency_ms": 4.0,
            "model_version": str(version),
            **{name: features[name].to_numpy() for name in RAW_FEATURES},
            "predicted_price": priced.price,
            "lower": priced.lower,
            "upper": priced.upper,
            "level": 0.9,
        }
    )


def stored(frame: pd.DataFrame) -> bytes:
    """Logged rows as a file of the service."""
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pandas(frame, SCHEMA, preserve_index=False), buffer)
    return buffer.getvalue()


def raw_files(*parts: pd.DataFrame) -> list[RawFile]:
    """The rows as files with names of their own."""
    data = [stored(part) for part in parts]
    return [RawFile(f"{number:06d}.parquet", lambda one=one: one) for number, one in enumerate(data)]  # type: ignore[misc]


def served(parts: Sequence[pd.DataFrame], day: date = DAY) -> ServedDay:
    """The rows as the compacted table of their day."""
    sink = io.BytesIO()
    assert compact(raw_files(*parts), day, sink).rows == sum(len(part) for part in parts)
    sink.seek(0)
    return ServedDay(sink)
