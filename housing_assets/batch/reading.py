"""Reading rows piece by piece: CSV, Parquet and JSON lines, each row kept whatever is wrong with it."""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePath
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from housing_assets.batch.errors import BatchError
from housing_serving.features import NULLABLE_FEATURE, RAW_FEATURES

# What a quarter of a million rows take; a piece is read, priced and written before the next one.
CSV_BYTES = 16 * 1024 * 1024
PIECE_ROWS = 250_000
MAX_ROW_BYTES = 4 * CSV_BYTES
OTHER_DELIMITERS = (";", "\t", "|")
SHOWN_CHARACTERS = 60


class Format(StrEnum):
    """How rows are written down."""

    CSV = "csv"
    PARQUET = "parquet"
    JSONL = "jsonl"


SUFFIXES = {
    ".csv": Format.CSV,
    ".parquet": Format.PARQUET,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
}


@dataclass(frozen=True)
class Piece:
    """Some consecutive rows of a table.

    Attributes:
        first_row: Number of the first of them; data rows count from 1.
        table: The columns as they were read; all text where they come from CSV.
        unreadable: Why a row has no values at all, by its position in this piece.
        input_bytes: How much of the input these rows are, in Parquet nearly.
    """

    first_row: int
    table: pa.Table
    unreadable: Mapping[int, str] = field(default_factory=dict)
    input_bytes: int = 0


def format_of(name: str) -> Format:
    """The format that a file name ends with.

    Raises:
        BatchError: it ends with none that is known.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise BatchError(f"{name}: its format is not known by its name, which ends with none of {known()}")
    return SUFFIXES[suffix]


def known() -> str:
    """The known suffixes, for messages."""
    return ", ".join(SUFFIXES)


def read_pieces(file: BinaryIO, kind: Format, name: str) -> Iterator[Piece]:
    """The rows of a file, some at a time; at least one piece, which is empty where there are no rows.

    Args:
        file: What to read; Parquet must be seekable, for its description is at its end.
        kind: Its format.
        name: Names it in errors.

    Raises:
        BatchError: it is no such file, or a column is missing.
    """
    read = {Format.CSV: _csv_pieces, Format.PARQUET: _parquet_pieces, Format.JSONL: _json_pieces}[kind]
    return read(file, name)


def check_columns(names: Sequence[str], origin: str) -> None:
    """Refuse a table without the columns that a price needs, or with a column that comes twice.

    Raises:
        BatchError: naming the columns.
    """
    missing = [name for name in RAW_FEATURES if name not in names and name != NULLABLE_FEATURE]
    twice = sorted({name for name in names if names.count(name) > 1})
    if missing:
        raise BatchError(
            f"{origin}: missing column {', '.join(missing)}; a price needs {', '.join(RAW_FEATURES)} "
            f"(only {NULLABLE_FEATURE} may be left out)"
        )
    if twice:
        raise BatchError(f"{origin}: column {', '.join(twice)} comes more than once: rename it")


def _csv_pieces(file: BinaryIO, origin: str) -> Iterator[Piece]:
    header = _header(file.readline(), origin)
    first_row = 1
    for block in _blocks(file, origin):
        piece = _csv_piece(block, header, first_row, origin)
        first_row += piece.table.num_rows
        yield piece
    if first_row == 1:
        yield Piece(1, pa.table({name: pa.array([], pa.string()) for name in header}))


def _blocks(file: BinaryIO, origin: str) -> Iterator[bytes]:
    """Whole rows, some megabytes at a time.

    Not Arrow's own reader: it waits for the input where neither Ctrl-C nor SIGTERM reaches it.
    """
    left = b""
    while more := file.read(CSV_BYTES):
        block = left + more
        end = block.rfind(b"\n")
        # A line that ends within quotes does not end its row.
        quotes = block.count(b'"', 0, max(end, 0))
        while end >= 0 and quotes % 2:
            before = block.rfind(b"\n", 0, end)
            quotes -= block.count(b'"', max(before, 0), end)
            end = before
        if end < 0 and len(block) > MAX_ROW_BYTES:
            raise BatchError(f"{origin}: a row does not end: a quotation mark is opened and never closed")
        left = block[end + 1 :]
        if block[: end + 1].strip():
            yield block[: end + 1]
    if left.strip():
        yield left


def _csv_piece(block: bytes, header: list[str], first_row: int, origin: str) -> Piece:
    ragged: list[arrow_csv.InvalidRow] = []

    def keep(row: arrow_csv.InvalidRow) -> str:
        ragged.append(row)
        return "skip"

    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(block),
            # In one thread: only then are the rows of the wrong length numbered.
            arrow_csv.ReadOptions(column_names=header, use_threads=False, block_size=len(block) + 1),
            arrow_csv.ParseOptions(invalid_row_handler=keep, newlines_in_values=True),
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string())),
        )
    except pa.ArrowInvalid as error:
        raise BatchError(
            f"{origin}: from row {first_row:,} on it is not CSV in UTF-8 with commas between the fields "
            f"({error}): export it as such; iconv changes an encoding"
        ) from error
    unreadable = {
        row.number - 1: f"it has {row.actual_columns} fields, the header has {row.expected_columns}: "
        f"{_shown(row.text)}"
        for row in ragged
    }
    return Piece(first_row, _with_gaps(table, unreadable), unreadable, len(block))


def _with_gaps(table: pa.Table, gaps: Mapping[int, str]) -> pa.Table:
    """A table with rows of nulls put in, whose positions are given."""
    if not gaps:
        return table
    kept = iter(range(table.num_rows))
    places = [None if at in gaps else next(kept) for at in range(table.num_rows + len(gaps))]
    return table.take(pa.array(places, pa.int64()))


def _header(line: bytes, origin: str) -> list[str]:
    try:
        text = line.decode("utf-8-sig").strip("\r\n")
    except UnicodeDecodeError as error:
        raise BatchError(f"{origin}: its first line is not UTF-8 text: export it as CSV in UTF-8") from error
    if not text.strip():
        raise BatchError(f"{origin}: the file is empty: its first line must name the columns")
    for delimiter in OTHER_DELIMITERS:
        if len({part.strip(' "') for part in text.split(delimiter)} & set(RAW_FEATURES)) > 1:
            raise BatchError(f"{origin}: fields are separated by {delimiter!r}: export it with commas")
    [header] = csv.reader([text])
    header = [name.strip() for name in header]
    check_columns(header, origin)
    return header


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…")


def _parquet_pieces(file: BinaryIO, origin: str) -> Iterator[Piece]:
    try:
        opened = parquet.ParquetFile(file)
        check_columns(opened.schema_arrow.names, origin)
        first_row = 1
        row_bytes = file.seek(0, io.SEEK_END) / max(opened.metadata.num_rows, 1)
        for batch in opened.iter_batches(PIECE_ROWS):
            table = pa.Table.from_batches([batch])
            yield Piece(first_row, table, input_bytes=round(row_bytes * batch.num_rows))
            first_row += batch.num_rows
        if first_row == 1:
            yield Piece(1, opened.schema_arrow.empty_table())
    except (pa.ArrowException, OSError) as error:
        raise BatchError(f"{origin}: not a readable Parquet file ({error}): write it again") from error


def _json_pieces(file: Iterable[bytes], origin: str) -> Iterator[Piece]:
    first_row, lines = 1, (line for line in file if line.strip())
    while some := list(itertools.islice(lines, PIECE_ROWS)):
        rows: list[dict[str, Any]] = []
        unreadable: dict[int, str] = {}
        for at, line in enumerate(some):
            row = _json_row(line)
            if isinstance(row, str):
                unreadable[at] = row
            rows.append({} if isinstance(row, str) else row)
        yield Piece(first_row, _json_table(rows), unreadable, sum(map(len, some)))
        first_row += len(some)
    if first_row == 1:
        raise BatchError(f"{origin}: the file is empty: each line must be a JSON object")


def _json_row(line: bytes) -> dict[str, Any] | str:
    """The object in a line, or why there is none."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"it is no JSON ({error}): {_shown(line.decode(errors='replace').strip())}"
    return row if isinstance(row, dict) else f"it is no JSON object: {_shown(str(row))}"


def _json_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    names = list(dict.fromkeys([*RAW_FEATURES, *(name for row in rows for name in row)]))
    return pa.table({name: _json_column([row.get(name) for row in rows]) for name in names})


def _json_column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        # Values of several types: as the text that stands in the file.
        texts = [one if one is None or isinstance(one, str) else orjson.dumps(one).decode() for one in values]
        return pa.array(texts, pa.string())
