"""From source rows to clean rows: typed, without duplicates, identified, in an order of their own.

Whether values are possible is judged by `schemas`, before and after; nothing is fitted here.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from housing_assets.ml.columns import columns_of
from housing_serving.features import CATEGORICAL_FEATURE, NUMERIC_FEATURES, RAW_FEATURES, TARGET, row_features

ID_COLUMN = "block_group_id"
# Where a block group is and how large: unique over the published rows, and free of what is corrected or
# imputed later.
IDENTITY = ("longitude", "latitude", "total_rooms", "population", "households")
# Published prices stop here: the value stands for "this much or more".
PRICE_CAP = 500_001.0
SHOWN_ROWS = 10


@dataclass(frozen=True)
class Processed:
    """Clean rows, and what cleaning met.

    Attributes:
        frame: id, raw features and target, sorted by id.
        duplicates_dropped: exact copies of an earlier row.
        capped_rows: rows whose price is the cap, not a price.
    """

    frame: pd.DataFrame
    duplicates_dropped: int
    capped_rows: int


def process(raw: pd.DataFrame) -> Processed:
    """Type, de-duplicate, identify and sort the source rows.

    Raises:
        ValueError: rows describe the same block group with differing values.
    """
    typed = _typed(raw)
    unique = typed.drop_duplicates()
    identified = unique.copy()
    identified.insert(0, ID_COLUMN, block_group_ids(unique))
    _refuse_contradictions(identified)
    return Processed(
        frame=identified.sort_values(ID_COLUMN, ignore_index=True),
        duplicates_dropped=len(typed) - len(unique),
        capped_rows=int((unique[TARGET] >= PRICE_CAP).sum()),
    )


def _typed(raw: pd.DataFrame) -> pd.DataFrame:
    numbers = {name: raw[name].astype("float64") for name in (*NUMERIC_FEATURES, TARGET)}
    frame = pd.DataFrame({**numbers, CATEGORICAL_FEATURE: raw[CATEGORICAL_FEATURE].astype(str)})
    return frame[[*RAW_FEATURES, TARGET]].reset_index(drop=True)


def block_group_ids(frame: pd.DataFrame) -> list[str]:
    """One id per row: 16 hexadecimal digits of a hash over place and size.

    Four decimals are finer than the published coordinates and coarser than any storage format's rounding.
    """
    rows = zip(*(frame[name].astype("float64") for name in IDENTITY), strict=True)
    return [_digest("|".join(f"{value:.4f}" for value in row)) for row in rows]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _refuse_contradictions(identified: pd.DataFrame) -> None:
    clashing = identified[identified.duplicated(ID_COLUMN, keep=False)]
    if clashing.empty:
        return
    groups = clashing.groupby(ID_COLUMN, sort=False)
    numbers = [", ".join(str(row + 1) for row in group.index) for _, group in groups]
    shown = "; ".join(f"rows {rows}" for rows in numbers[:SHOWN_ROWS])
    more = f"; and {len(numbers) - SHOWN_ROWS} more" if len(numbers) > SHOWN_ROWS else ""
    raise ValueError(
        f"{len(numbers)} block group(s) occur with differing values ({shown}{more}): "
        f"the same {', '.join(IDENTITY)} must describe one block group, so keep the right row of each"
    )


def add_row_features(processed: pd.DataFrame) -> pd.DataFrame:
    """The frame with the stateless ratios of each row appended; null bedrooms give null ratios."""
    return processed.assign(**row_features(columns_of(processed)))


def content_hash(frame: pd.DataFrame) -> str:
    """SHA-256 of column names, types and values, in order; the index does not count."""
    digest = hashlib.sha256(f"{len(frame)} rows".encode())
    for name, column in frame.items():
        digest.update(f"\n{name}:{column.dtype}\n".encode())
        digest.update(_column_bytes(column))
    return digest.hexdigest()


def _column_bytes(column: "pd.Series[Any]") -> bytes:
    if column.dtype.kind in "iufb":
        values = column.to_numpy()
        if column.dtype.kind == "f":
            # Every null and both zeros are one value each, whatever their bits.
            values = np.where(np.isnan(values), np.nan, values + 0.0)
        return np.ascontiguousarray(values).tobytes()
    texts = [None if null else str(value).encode() for value, null in zip(column, column.isna(), strict=True)]
    # Lengths keep "ab","c" apart from "a","bc", and a null apart from an empty text.
    lengths = np.array([-1 if text is None else len(text) for text in texts], dtype=np.int64)
    return lengths.tobytes() + b"".join(text for text in texts if text is not None)
