"""Tables of block groups with known faults, and the hand-made bundle that prices them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from housing_assets_tests.serving.bundles import INSTANCE, bundle_files, random_columns, write_files
from housing_serving.bundle import Bundle
from housing_serving.features import RAW_FEATURES

# Of the instance above an income of 4, and of the same at most there.
RICH, POOR = 300_000.0, 100_000.0
HEADER = ",".join(RAW_FEATURES)
GOOD = ",".join(str(INSTANCE[name]) for name in RAW_FEATURES)


def csv_row(**changes: object) -> str:
    """The example instance as a line of CSV."""
    return ",".join(str({**INSTANCE, **changes}[name]) for name in RAW_FEATURES)


def csv_bytes(*rows: str, header: str = HEADER) -> bytes:
    """A CSV file."""
    return "\n".join([header, *rows, ""]).encode()


def bundle() -> Bundle:
    """The stumps of `bundles`."""
    return Bundle.from_files(bundle_files(), origin="bundle")


def bundle_folder(folder: Path, version: int = 1) -> Path:
    """The same in a folder."""
    return write_files(folder, bundle_files(version=version))


def random_frame(rows: int, seed: int = 7) -> pd.DataFrame:
    """Plausible block groups, with a name for each, some of them without bedrooms."""
    frame = pd.DataFrame(random_columns(rows, seed)).round(6)
    return frame.assign(name=[f"block, no. {row}" for row in range(rows)])


def as_file(frame: pd.DataFrame, suffix: str) -> bytes:
    """The frame in one of the three formats."""
    if suffix == "csv":
        return frame.to_csv(index=False).encode()
    if suffix == "parquet":
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        return buffer.getvalue()
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read(data: bytes, suffix: str) -> pd.DataFrame:
    """What was written, texts where there are texts."""
    if suffix == "csv":
        options = {"dtype": {"model_version": str}, "keep_default_na": False, "na_values": [""]}
        return pd.read_csv(io.BytesIO(data), **options)
    if suffix == "parquet":
        return pd.read_parquet(io.BytesIO(data))
    return pd.DataFrame([json.loads(line) for line in data.splitlines()])


def expected(frame: pd.DataFrame, priced_by: Bundle) -> Any:
    """Prices of rows without faults, shape (3, n)."""
    columns = {name: frame[name].to_numpy() for name in RAW_FEATURES}
    found = priced_by.predict(columns)
    return np.array([found.price, found.lower, found.upper])
