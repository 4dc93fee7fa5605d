"""Block groups like the published ones, as many as are wanted: the rows that scale is measured on.

A row is a published block group, drawn with replacement, moved by up to some kilometres and resized: its
counts are scaled by one random factor and rounded, income and price vary by up to ten percent. So columns
keep their spread and hang together as published, nearly every row has an id of its own, and every limit of
the schema holds. One row in a thousand is an exact copy of another one, as happens when sources are combined.

The rows of a file follow from the seed and its number alone: a large table begins with the files of a small
one.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from housing_assets.ml.cleaning import IDENTITY, PRICE_CAP
from housing_assets.sources import SOURCE_COLUMNS, packaged_source, parse
from housing_serving.features import LIMITS, TARGET, FloatArray

SEED = 20_261_126
FILE_ROWS = 250_000
MOVED_DEGREES = 0.05
VARIED = 0.2
DUPLICATES = 0.001


def block_groups(rows: int, number: int = 0, seed: int = SEED) -> pd.DataFrame:
    """The rows of one file: source columns, the last ones copies of the first.

    Args:
        rows: how many, at least one.
        number: of the file.
        seed: of the whole table.
    """
    random = np.random.default_rng([seed, number])
    copies = int(rows * DUPLICATES)
    base = parse(packaged_source()).sample(
        rows - copies, replace=True, random_state=random, ignore_index=True
    )
    frame = base.copy()
    size = np.exp(random.normal(0, 0.3, len(frame)))
    for name in ("total_rooms", "population", "households"):
        frame[name] = _within(name, (base[name] * size).round())
    for name in ("longitude", "latitude"):
        shift = random.uniform(-MOVED_DEGREES, MOVED_DEGREES, len(frame))
        frame[name] = _within(name, (base[name] + shift).round(4))
    bedrooms = (base["total_bedrooms"] * frame["total_rooms"] / base["total_rooms"]).round()
    varied_income, varied_price = _variations(frame)
    frame["total_bedrooms"] = _within("total_bedrooms", bedrooms)
    frame["median_income"] = _within("median_income", (base["median_income"] * varied_income).round(4))
    price = (base[TARGET] * varied_price).round(-2).clip(upper=PRICE_CAP)
    frame[TARGET] = price.where(base[TARGET] < PRICE_CAP, PRICE_CAP)
    return pd.concat([frame, frame.head(copies)], ignore_index=True)[list(SOURCE_COLUMNS)]


def write_files(rows: int, folder: Path, seed: int = SEED) -> None:
    """A table of so many rows as Parquet files in a folder, `FILE_ROWS` rows in each but the last."""
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, rows, FILE_ROWS)):
        frame = block_groups(min(FILE_ROWS, rows - start), number, seed)
        frame.to_parquet(folder / f"block-groups-{number:05d}.parquet", index=False)


def _variations(frame: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    """Two factors near one that follow from a row's identity, so that no block group contradicts itself."""
    keys = pd.util.hash_pandas_object(frame[list(IDENTITY)], index=False).to_numpy()
    halves = (keys >> np.uint64(32)) / 2**32, (keys & np.uint64(2**32 - 1)) / 2**32
    return np.exp(VARIED * (halves[0] - 0.5)), np.exp(VARIED * (halves[1] - 0.5))


def _within(name: str, values: "pd.Series[float]") -> "pd.Series[float]":
    return values.clip(*LIMITS[name])
