"""From the files of a source to the split, part by part.

Ids are hashes, so the parts of clean rows are ranges of ids: of about one size, in the order of the whole
table, and with every row of an id in one of them. Whatever follows needs only its own part.
"""

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandera.pandas import DataFrameSchema

from housing_assets.datasets.dataset import PART_ROWS, Dataset, Part, parts_folder, read_part, write_part
from housing_assets.engines import Engine
from housing_assets.formats import decode, encode
from housing_assets.ml import cleaning
from housing_assets.ml.cleaning import (
    ID_COLUMN,
    combined_hash,
    content_hash,
    identify,
    refuse_contradictions,
    unify,
)
from housing_assets.ml.schemas import ValidationReport, combine, validate
from housing_assets.ml.split import split
from housing_assets.sources import fetch, parse
from housing_assets.storage import open_store

# Where rows wait on their way to their part; may be deleted whenever nobody processes.
SCRATCH = "scratch"
ROW_COLUMN = "source_row"
ID_BITS = 64
# Failing cells of one part that are told of.
MOST_FAILURES = 1_000


@dataclass(frozen=True)
class SourceFile:
    """A file of the source.

    Attributes:
        location: where it was fetched.
        size: in bytes.
        sha256: checksum of its bytes.
    """

    location: str
    size: int
    sha256: str


def read_files(
    locations: Sequence[str], root: str, name: str, engine: Engine
) -> tuple[Dataset, list[SourceFile]]:
    """Read the files of a source into a dataset, in their order.

    Args:
        locations: of the files; each is read by one worker, in memory.
        root: the storage root.
        name: of the table if it were one object.
        engine: who reads.

    Raises:
        SourceError: a file is no such table; the message names file, column and row.
    """
    read = engine.map(partial(_read_file, root, parts_folder(name)), list(enumerate(locations)))
    return stored_table(root, [part for _, parts in read for part in parts], engine), [
        file for file, _ in read
    ]


def _read_file(root: str, folder: str, numbered: tuple[int, str]) -> tuple[SourceFile, list[Part]]:
    number, location = numbered
    source = fetch(location)
    frame = parse(source)
    starts = range(0, len(frame), PART_ROWS)
    pieces = [frame.iloc[start : start + PART_ROWS].reset_index(drop=True) for start in starts]
    folder = f"{folder}/{number:06d}"
    parts = [write_part(root, folder, index, piece) for index, piece in enumerate(pieces)]
    return SourceFile(location, len(source.data), source.sha256), parts


def process(raw: Dataset, name: str, engine: Engine) -> tuple[Dataset, int, int]:
    """Type, de-duplicate, identify and sort the source rows, as `cleaning.process` does.

    Args:
        raw: the source rows.
        name: of the clean table if it were one object.
        engine: who works.

    Returns:
        The clean rows, how many duplicates were dropped, and how many prices are the cap.

    Raises:
        ValueError: rows describe the same block group with differing values.
    """
    buckets = -(-len(raw) // PART_ROWS)
    scratch = f"{SCRATCH}/{parts_folder(name)}/{secrets.token_hex(8)}"
    first_rows = itertools.accumulate((part.rows for part in raw.parts), initial=0)
    sources = list(enumerate(zip(raw.parts, first_rows, strict=False)))
    try:
        filled = engine.map(partial(_deal, raw.root, scratch, buckets), sources)
        hands = [
            (
                bucket,
                [_waiting(scratch, bucket, source) for source, found in enumerate(filled) if bucket in found],
            )
            for bucket in sorted(frozenset().union(*filled))
        ]
        dealt = engine.map(partial(_unify, raw.root, parts_folder(name)), hands)
    finally:
        _delete_all(raw.root, scratch)
    refuse_contradictions([rows for _, _, _, groups in dealt for rows in groups])
    dataset = stored_table(raw.root, [part for part, *_ in dealt], engine)
    return dataset, sum(dropped for _, dropped, _, _ in dealt), sum(capped for _, _, capped, _ in dealt)


def _deal(root: str, scratch: str, buckets: int, numbered: tuple[int, tuple[Part, int]]) -> frozenset[int]:
    """Store the rows of a source part by the part of clean rows they belong to; returns which those are."""
    source, (part, first_row) = numbered
    identified = identify(read_part(root, part), first_row).rename_axis(ROW_COLUMN).reset_index()
    of = _buckets(identified[ID_COLUMN], buckets)
    store = open_store(root)
    for bucket, rows in identified.groupby(of, sort=False):
        name = _waiting(scratch, int(str(bucket)), source)
        store.write(name, encode(name, rows.reset_index(drop=True)))
    return frozenset(map(int, np.unique(of)))


def _buckets(ids: "pd.Series[str]", buckets: int) -> NDArray[np.int64]:
    """Which of so many equal ranges of ids each id is in, from 0."""
    return np.array([int(one, 16) * buckets >> ID_BITS for one in ids], dtype=np.int64)


def _waiting(scratch: str, bucket: int, source: int) -> str:
    return f"{scratch}/{bucket:06d}/{source:06d}.parquet"


def _unify(
    root: str, folder: str, hand: tuple[int, list[str]]
) -> tuple[Part, int, int, list[tuple[int, ...]]]:
    bucket, names = hand
    store = open_store(root)
    rows = pd.concat([pd.DataFrame(decode(name, store.read(name))) for name in names], ignore_index=True)
    processed, contradictions = unify(rows.set_index(ROW_COLUMN))
    part = write_part(root, folder, bucket, processed.frame)
    return part, processed.duplicates_dropped, processed.capped_rows, contradictions


def _delete_all(root: str, prefix: str) -> None:
    store = open_store(root)
    for name in store.list(f"{prefix}/"):
        store.delete(name)


def add_row_features(processed: Dataset, name: str, engine: Engine) -> Dataset:
    """The table with the stateless ratios of each row appended, as `cleaning.add_row_features` does."""
    work = partial(_add_row_features, processed.root, parts_folder(name))
    return stored_table(processed.root, engine.map(work, list(enumerate(processed.parts))), engine)


def _add_row_features(root: str, folder: str, numbered: tuple[int, Part]) -> Part:
    number, part = numbered
    return write_part(root, folder, number, cleaning.add_row_features(read_part(root, part)))


def split_sets(
    featured: Dataset, names: tuple[str, str], test_fraction: float, engine: Engine
) -> tuple[Dataset, Dataset, list[str]]:
    """Training rows, test rows as `split.split` deals them, and ids that are wrongly on both sides.

    Args:
        featured: rows with ids and features.
        names: of the training and of the test rows if each were one object.
        test_fraction: share of block groups held out.
        engine: who works.
    """
    folders = parts_folder(names[0]), parts_folder(names[1])
    work = partial(_split, featured.root, folders, test_fraction)
    train, test, shared = zip(*engine.map(work, list(enumerate(featured.parts))), strict=True)
    sides = [stored_table(featured.root, side, engine) for side in (train, test)]
    return sides[0], sides[1], sorted(set().union(*shared))


def _split(
    root: str, folders: tuple[str, str], test_fraction: float, numbered: tuple[int, Part]
) -> tuple[Part, Part, set[str]]:
    number, part = numbered
    sides = split(read_part(root, part), test_fraction)
    train, test = (
        write_part(root, folder, number, side) for folder, side in zip(folders, sides, strict=True)
    )
    # An id is in one part alone, so whatever is on both sides shows here.
    return train, test, set(sides[0][ID_COLUMN]) & set(sides[1][ID_COLUMN])


def validate_parts(dataset: Dataset, schema: DataFrameSchema, engine: Engine) -> ValidationReport:
    """Check a table against a schema, as `schemas.validate` does; of each part the first failures are kept.

    Exact duplicates are counted within parts, and ids told apart within parts: all rows of an id are in one.
    """
    reports = engine.map(partial(_validate, dataset.root, schema), list(dataset.parts))
    return combine(str(schema.name), reports)


def _validate(root: str, schema: DataFrameSchema, part: Part) -> ValidationReport:
    report = validate(read_part(root, part), schema)
    return replace(report, failures=report.failures.head(MOST_FAILURES))


def stored_table(root: str, parts: Sequence[Part], engine: Engine) -> Dataset:
    """The table of these parts, hashed; empty ones are left out unless all are."""
    dataset = Dataset(root, tuple(part for part in parts if part.rows) or tuple(parts[:1]), "")
    blocks = engine.map(partial(_hash_block, root), list(dataset.blocks()))
    return replace(dataset, content_hash=combined_hash(blocks))


def _hash_block(root: str, slices: list[tuple[Part, int, int]]) -> str:
    return content_hash(pd.concat([read_part(root, *one) for one in slices], ignore_index=True))
