"""Where batches lie in the storage root, and how those of a day are priced.

| object | what it is |
|---|---|
| `batch/inputs/<day>/*.{csv,parquet,jsonl}` | rows to price, put there by anybody |
| `batch/predictions/<day>/<name of the input>.parquet` | its columns, price, interval, version |
| `batch/rejected/<day>.parquet` | rows of the day that have no price: file, number, reason, values |
"""

import json
import time
from dataclasses import dataclass
from datetime import date
from tempfile import TemporaryFile

import pyarrow as pa
from pyarrow import parquet

from housing_assets.batch.pricing import PricedPiece
from housing_assets.batch.reading import format_of, read_pieces
from housing_assets.batch.run import Outcome, price_rows
from housing_assets.batch.writing import Closing, ParquetWriter
from housing_assets.storage import ObjectStore
from housing_serving.bundle import Bundle

REJECTED = pa.schema(
    [("file", pa.string()), ("row", pa.int64()), ("error", pa.string()), ("values", pa.string())]
)


@dataclass(frozen=True)
class PricedDay:
    """What became of a day's inputs, by file name."""

    files: dict[str, Outcome]
    seconds: float

    @property
    def rows(self) -> int:
        """Rows that were read."""
        return sum(one.rows for one in self.files.values())

    @property
    def priced(self) -> int:
        """Rows that have a price."""
        return sum(one.priced for one in self.files.values())

    @property
    def rejected(self) -> int:
        """Rows that have none."""
        return self.rows - self.priced

    @property
    def unusual(self) -> int:
        """Rows with a value that training saw nothing like."""
        return sum(one.unusual for one in self.files.values())


def inputs_folder(day: date) -> str:
    """Where a day's inputs are put."""
    return f"batch/inputs/{day}"


def predictions_folder(day: date) -> str:
    """Where their prices are found."""
    return f"batch/predictions/{day}"


def rejected_rows_name(day: date) -> str:
    """The object name of the rows without a price."""
    return f"batch/rejected/{day}.parquet"


def price_day(store: ObjectStore, day: date, bundle: Bundle) -> PricedDay:
    """Price every input of a day.

    Done again, it gives the same objects, and takes away those of inputs that went.

    Raises:
        BatchError: an input cannot be read; the message names it.
    """
    started, done, written = time.perf_counter(), dict[str, Outcome](), set[str]()
    with TemporaryFile() as rejects:
        with parquet.ParquetWriter(rejects, REJECTED, compression="zstd") as rejected:
            for name in store.list(f"{inputs_folder(day)}/"):
                file = name.removeprefix(f"{inputs_folder(day)}/")
                target = f"{predictions_folder(day)}/{file}.parquet"
                done[file] = _price_file(store, name, target, bundle, file, rejected)
                written.add(target)
        seconds = time.perf_counter() - started
        priced = PricedDay(done, seconds)
        if priced.rejected:
            store.write_file(rejected_rows_name(day), rejects)
        else:
            store.delete(rejected_rows_name(day))
    for name in store.list(f"{predictions_folder(day)}/"):
        if name not in written:
            store.delete(name)
    return priced


def _price_file(
    store: ObjectStore, name: str, target: str, bundle: Bundle, file: str, rejected: parquet.ParquetWriter
) -> Outcome:
    uri = store.uri(name)
    with store.open(name) as source, TemporaryFile() as result:
        with Closing(ParquetWriter(result, priced_only=True)) as writer:

            def write(priced: PricedPiece) -> None:
                writer.write(priced)
                if priced.checked.problems:
                    rejected.write_table(_rejected(priced, file))

            outcome = price_rows(read_pieces(source, format_of(name), uri), bundle, uri, write)
        store.write_file(target, result)
    return outcome


def _rejected(priced: PricedPiece, file: str) -> pa.Table:
    problems = priced.checked.problems
    values = priced.piece.table.take(pa.array(list(problems), pa.int64())).to_pylist()
    return pa.table(
        {
            "file": [file] * len(problems),
            "row": [priced.piece.first_row + at for at in problems],
            "error": list(problems.values()),
            "values": [json.dumps(one, default=str, ensure_ascii=False) for one in values],
        },
        REJECTED,
    )
