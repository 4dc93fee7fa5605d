"""Many small files of a day's predictions into one table, each answered instance exactly once.

Two passes over the files. The first keeps 40 bytes of each row: which it is, and when it was answered. From
these it is decided which rows stay; the second writes them, in the order of the files' names. So memory
hardly depends on the day, and the same files give the same bytes.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

from housing_assets.monitoring.prediction_rows import SCHEMA, Mask, WrongFile, in_schema, problems
from housing_serving.features import CATEGORICAL_FEATURE

# Rows of a row group: so many are in memory at once while the table is written and read.
ROW_GROUP_ROWS = 131_072
REPEATING = ["model_version", CATEGORICAL_FEATURE, "level"]
# Rejected rows that are kept with their content; all are counted.
MAX_LISTED = 100_000
REUSED = "request_id and instance were answered before"
# Two keys of the hash make 128 bits of a name: no two of 10 million differ and agree by chance (1 in 10^24).
HASH_KEYS = ("housing-predict1", "housing-predict2")


@dataclass(frozen=True)
class RawFile:
    """A file of the service: its object name, and how to read it."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Compaction:
    """What became of every row that was read.

    `rows_read` is the sum of `rows`, `duplicates` and the rejected ones.

    Attributes:
        files: files that were read, wrong ones included.
        rows_read: rows in them.
        rows: rows in the table.
        duplicates: rows that were stored twice: same request, instance and moment.
        rejected: rejected rows by reason.
        wrong_files: files that hold no rows of the log, and why.
        rejected_rows: the rejected rows with `reason`, `file` and `row` (from 1); the first of very many.
    """

    files: int
    rows_read: int
    rows: int
    duplicates: int
    rejected: dict[str, int]
    wrong_files: dict[str, str]
    rejected_rows: pa.Table

    @property
    def rows_rejected(self) -> int:
        """All rejected rows."""
        return sum(self.rejected.values())


def compact(files: Sequence[RawFile], day: date, sink: BinaryIO) -> Compaction:
    """Write the table of a day to a file as Parquet, and account for every row.

    Of rows with the same request id and instance the one that was answered first stays. The others are
    duplicates when they were answered at that same moment (a file that was stored twice), and rejected when
    not: a caller used a request id again.
    """
    ordered = sorted(files, key=lambda file: file.name)
    keys, wrong_files = _keys_of(ordered, day)
    kept, reused = _decide(keys)
    rejected: list[pa.Table] = []
    reasons: Counter[str] = Counter()
    with parquet.ParquetWriter(sink, SCHEMA, compression="zstd", use_dictionary=REPEATING) as writer:
        pieces = _pieces(ordered, wrong_files, day, kept, reused, reasons, rejected)
        for group in _row_groups(pieces):
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
    return Compaction(
        files=len(ordered),
        rows_read=len(kept),
        rows=int(kept.sum()),
        duplicates=len(kept) - int(kept.sum()) - sum(reasons.values()),
        rejected=dict(sorted(reasons.items())),
        wrong_files=wrong_files,
        rejected_rows=pa.concat_tables(rejected) if rejected else REJECTED_SCHEMA.empty_table(),
    )


REJECTED_SCHEMA = pa.schema([("reason", pa.string()), ("file", pa.string()), ("row", pa.int64()), *SCHEMA])


@dataclass(frozen=True)
class _Keys:
    """One element per row that was read."""

    first: NDArray[np.uint64]
    second: NDArray[np.uint64]
    answered_at: NDArray[np.int64]
    valid: Mask


def _keys_of(files: Sequence[RawFile], day: date) -> tuple[_Keys, dict[str, str]]:
    parts: list[_Keys] = [_keys(SCHEMA.empty_table(), day)]
    wrong_files: dict[str, str] = {}
    for file in files:
        try:
            parts.append(_keys(_read(file), day))
        except WrongFile as error:
            wrong_files[file.name] = str(error)
    fields = ("first", "second", "answered_at", "valid")
    return _Keys(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields)), wrong_files


def _read(file: RawFile) -> pa.Table:
    try:
        return in_schema(parquet.read_table(BytesIO(file.read())))
    except (pa.ArrowException, OSError) as error:
        raise WrongFile(f"is not a readable Parquet file: {str(error).splitlines()[0]}") from error


def _keys(table: pa.Table, day: date) -> _Keys:
    names = table["request_id"].to_numpy()
    instances = pc.fill_null(table["instance"], -1).to_numpy().astype(np.uint64)
    hashes = (
        pd.util.hash_array(names, hash_key=key, categorize=False).astype(np.uint64) for key in HASH_KEYS
    )
    # An odd multiplier keeps all 64 bits of what it is added to.
    first, second = (one + instances * np.uint64(0x9E3779B97F4A7C15) for one in hashes)
    moments = pc.fill_null(table["answered_at"].cast(pa.int64()), 0).to_numpy()
    return _Keys(first, second, moments, _absent(problems(table, day)))


def _absent(reasons: NDArray[np.object_]) -> Mask:
    absent: Mask = pd.isna(reasons)
    return absent


def _decide(keys: _Keys) -> tuple[Mask, Mask]:
    """Which rows stay, and which have an id that another row answered before at another moment."""
    rows = np.flatnonzero(keys.valid)
    # Stable: among rows of the same moment, the first in the order of the files.
    order = rows[np.lexsort((keys.answered_at[rows], keys.second[rows], keys.first[rows]))]
    first, second, moments = keys.first[order], keys.second[order], keys.answered_at[order]
    leads = np.ones(len(order), dtype=bool)
    leads[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    kept = np.zeros(len(keys.valid), dtype=bool)
    kept[order[leads]] = True
    # Moments are sorted within an id: one that differs from the row before is a further answer.
    again = np.zeros(len(order), dtype=bool)
    again[1:] = ~leads[1:] & (moments[1:] != moments[:-1])
    reused = np.zeros(len(keys.valid), dtype=bool)
    reused[order[again]] = True
    return kept, reused


def _pieces(
    files: Sequence[RawFile],
    wrong_files: dict[str, str],
    day: date,
    kept: Mask,
    reused: Mask,
    reasons: "Counter[str]",
    rejected: list[pa.Table],
) -> Iterator[pa.Table]:
    """The rows of each file that stay; what is rejected is counted and listed on the way."""
    start, listed = 0, 0
    for file in files:
        if file.name in wrong_files:
            continue
        table = _read(file)
        rows = slice(start, start + table.num_rows)
        start = rows.stop
        yield table.filter(pa.array(kept[rows]))
        if kept[rows].all():
            continue
        why = problems(table, day)
        why[reused[rows]] = REUSED
        wrong = np.flatnonzero(~_absent(why))
        reasons.update(why[wrong].tolist())
        shown = wrong[: MAX_LISTED - listed]
        listed += len(shown)
        if len(shown):
            rejected.append(_listed(table, why, shown, file.name))


def _listed(table: pa.Table, why: NDArray[np.object_], rows: NDArray[np.int64], name: str) -> pa.Table:
    columns = [pa.array(why[rows].tolist(), pa.string()), pa.array([name] * len(rows)), pa.array(rows + 1)]
    return pa.table([*columns, *table.take(pa.array(rows)).columns], schema=REJECTED_SCHEMA)


def _row_groups(pieces: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of one row group each, whatever sizes they come in."""
    waiting: list[pa.Table] = []
    rows = 0
    for piece in pieces:
        waiting.append(piece)
        rows += piece.num_rows
        if rows >= ROW_GROUP_ROWS:
            table = pa.concat_tables(waiting).combine_chunks()
            whole = rows - rows % ROW_GROUP_ROWS
            yield table.slice(0, whole)
            waiting, rows = [table.slice(whole)], rows - whole
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()
