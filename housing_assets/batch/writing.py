"""Writing priced rows piece by piece, and putting a finished file in its place in one go."""

import csv
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import orjson
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from housing_assets.batch.errors import BatchError
from housing_assets.batch.pricing import PricedPiece
from housing_assets.batch.reading import Format


class Writer(Protocol):
    """Takes pieces, and completes the file when it is closed."""

    def write(self, priced: PricedPiece) -> None:
        """Append a piece.

        Raises:
            BatchError: it has other columns than the ones before.
        """

    def close(self) -> None:
        """Write what is still to be written; the file itself stays open."""


def open_writer(file: BinaryIO, kind: Format) -> Writer:
    """What writes a format to a file."""
    if kind is Format.CSV:
        return CsvWriter(file)
    return ParquetWriter(file) if kind is Format.PARQUET else JsonWriter(file)


class CsvWriter:
    """Comma-separated values; the input's own columns keep the text they had."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._schema: pa.Schema | None = None

    def write(self, priced: PricedPiece) -> None:
        """Append a piece, below a header that comes first."""
        table = priced.table(as_read=True)
        if self._schema is None:
            self._schema = table.schema
            header = io.StringIO()
            csv.writer(header, lineterminator="\n").writerow(table.column_names)
            self._file.write(header.getvalue().encode())
        table = _like(self._schema, table)
        try:
            written = _csv_bytes(table, "none")
        except pa.ArrowInvalid:
            # Some value holds a comma or a quote.
            written = _csv_bytes(table, "needed")
        self._file.write(written)

    def close(self) -> None:
        """There is nothing left to write."""


def _csv_bytes(table: pa.Table, quoting: str) -> memoryview:
    sink = pa.BufferOutputStream()
    options = arrow_csv.WriteOptions(include_header=False, quoting_style=quoting)
    try:
        arrow_csv.write_csv(table, sink, options)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise BatchError(f"a column cannot be written as CSV ({error}): choose another format") from error
    return memoryview(sink.getvalue())


class ParquetWriter:
    """Parquet: features as numbers, null where they are none."""

    def __init__(self, file: BinaryIO, *, priced_only: bool = False) -> None:
        """Write to a file; without the rows that have no price, where those are kept elsewhere."""
        self._file = file
        self._priced_only = priced_only
        self._writer: parquet.ParquetWriter | None = None

    def write(self, priced: PricedPiece) -> None:
        """Append a piece as a row group."""
        table = priced.table()
        if self._priced_only:
            table = table.filter(pa.array(priced.checked.usable)).drop_columns("error")
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._file, table.schema, compression="zstd")
        self._writer.write_table(_like(self._writer.schema, table))

    def close(self) -> None:
        """Write the file's description, which is at its end."""
        if self._writer is not None:
            self._writer.close()


class JsonWriter:
    """A JSON object a line: features as numbers, null where they are none."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, priced: PricedPiece) -> None:
        """Append a piece."""
        for batch in priced.table().to_batches(10_000):
            self._file.write(
                b"".join(
                    orjson.dumps(row, default=str, option=orjson.OPT_APPEND_NEWLINE)
                    for row in batch.to_pylist()
                )
            )

    def close(self) -> None:
        """There is nothing left to write."""


def _like(schema: pa.Schema, table: pa.Table) -> pa.Table:
    """The table with the columns of the pieces before, of which it may lack some."""
    if table.schema.equals(schema):
        return table
    if more := sorted(set(table.column_names) - set(schema.names)):
        raise BatchError(
            f"column {', '.join(more)} is not in the first rows, so there is no room for it: "
            "give it in every row, or write JSON lines"
        )
    columns = {
        name: table.column(name) if name in table.column_names else pa.nulls(table.num_rows)
        for name in schema.names
    }
    try:
        return pa.table({name: column.cast(schema.field(name).type) for name, column in columns.items()})
    except pa.ArrowException as error:
        raise BatchError(
            f"a column has other values than in the first rows ({error}): write JSON lines"
        ) from error


@contextmanager
def put_in_place(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of the one at `path` when it is complete; no trace is left of another.

    Raises:
        BatchError: nothing can be written there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise BatchError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


class Closing:
    """A writer that is closed at the end of a block, unless that fails."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def __enter__(self) -> Writer:
        return self._writer

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._writer.close()
