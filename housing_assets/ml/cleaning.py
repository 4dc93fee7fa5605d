"""From source rows to clean rows: typed, without duplicates, identified, in an order of their own.

Whether values are possible is judged by `schemas`, before and after; nothing is fitted here.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from housing_assets.ml.columns import columns_of
from housing_serving.features import CATEGORICAL_FEATURE, NUMERIC_FEATURES, RAW_FEATURES, TARGET, row_features

ID_COLUMN = "block_group_id"
# Where a block group is and how large: unique over the published rows, and free of what is corrected or
# imputed later.
IDENTITY = ("longitude", "latitude", "total_rooms", "population", "households")
IDENTITY_TEXT = b"|".join([b"%.4f"] * len(IDENTITY))
# Published prices stop here: the value stands for "this much or more".
PRICE_CAP = 500_001.0
SHOWN_ROWS = 10
# Rows that are hashed as one; changing it changes the hash of every larger table.
BLOCK_ROWS = 2**19


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
    processed, contradictions = unify(identify(raw))
    refuse_contradictions(contradictions)
    return processed


def identify(raw: pd.DataFrame, first_row: int = 0) -> pd.DataFrame:
    """Typed rows with their ids; the index counts the rows of the source, on from `first_row`."""
    typed = _typed(raw)
    typed.insert(0, ID_COLUMN, block_group_ids(typed))
    return typed.set_axis(pd.RangeIndex(first_row, first_row + len(typed)))


def unify(identified: pd.DataFrame) -> tuple[Processed, list[tuple[int, ...]]]:
    """Rows of `identify` without duplicates, sorted by id, and the rows that contradict each other.

    Every row of an id has to be among them: tables that have no id in common can be unified one by one.

    Returns:
        The clean rows, and for each id that occurs with differing values its row numbers from 1.
    """
    unique = identified.drop_duplicates()
    processed = Processed(
        frame=unique.sort_values(ID_COLUMN, ignore_index=True),
        duplicates_dropped=len(identified) - len(unique),
        capped_rows=int((unique[TARGET] >= PRICE_CAP).sum()),
    )
    clashing = unique[unique.duplicated(ID_COLUMN, keep=False)]
    groups = clashing.groupby(ID_COLUMN, sort=False)
    return processed, [tuple(row + 1 for row in group.index) for _, group in groups]


def _typed(raw: pd.DataFrame) -> pd.DataFrame:
    numbers = {name: raw[name].astype("float64") for name in (*NUMERIC_FEATURES, TARGET)}
    frame = pd.DataFrame({**numbers, CATEGORICAL_FEATURE: raw[CATEGORICAL_FEATURE].astype(str)})
    return frame[[*RAW_FEATURES, TARGET]].reset_index(drop=True)


def block_group_ids(frame: pd.DataFrame) -> list[str]:
    """One id per row: 16 hexadecimal digits of a hash over place and size.

    Four decimals are finer than the published coordinates and coarser than any storage format's rounding.
    """
    rows = zip(*(frame[name].astype("float64").tolist() for name in IDENTITY), strict=True)
    return [hashlib.blake2b(IDENTITY_TEXT % row, digest_size=8).hexdigest() for row in rows]


def refuse_contradictions(contradictions: Sequence[tuple[int, ...]]) -> None:
    """Refuse source rows, by their numbers, that describe the same block group with differing values."""
    if not contradictions:
        return
    numbers = [", ".join(str(row) for row in rows) for rows in sorted(contradictions)]
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
    """SHA-256 of column names, types and values, in order; the index does not count.

    A table of more than `BLOCK_ROWS` rows has the hash of its blocks' hashes, so that no process has to hold
    the whole of it.
    """
    starts = range(0, max(len(frame), 1), BLOCK_ROWS)
    return combined_hash([_block_hash(frame.iloc[start : start + BLOCK_ROWS]) for start in starts])


def combined_hash(blocks: Sequence[str]) -> str:
    """The content hash of a table from those of its blocks, which hold `BLOCK_ROWS` rows but for the last."""
    return blocks[0] if len(blocks) == 1 else hashlib.sha256("\n".join(blocks).encode()).hexdigest()


def _block_hash(frame: pd.DataFrame) -> str:
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
    known = column.notna().to_numpy()
    texts = pa.array(column.astype(object).map(str, na_action="ignore"), pa.large_string(), from_pandas=True)
    _, offsets, data = texts.buffers()
    # Lengths keep "ab","c" apart from "a","bc", and a null apart from an empty text.
    lengths = np.where(known, np.diff(np.frombuffer(offsets, dtype=np.int64, count=len(column) + 1)), -1)
    return lengths.tobytes() + (data.to_pybytes() if data is not None else b"")
