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
    """

    first_row: int
    table: pa.Table
    unreadable: Mapping[int, str] = field(default_factory=dict)


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
    buffered = io.BufferedReader(file) if isinstance(file, io.RawIOBase) else file
    header = _header(buffered.readline(), origin)
    empty = pa.table({name: pa.array([], pa.string()) for name in header})
    ragged: list[arrow_csv.InvalidRow] = []

    def keep(row: arrow_csv.InvalidRow) -> str:
        ragged.append(row)
        return "skip"

    options = {
        # Row by row in one thread: only then are the rows of the wrong length numbered.
        "read_options": arrow_csv.ReadOptions(column_names=header, use_threads=False, block_size=CSV_BYTES),
        "parse_options": arrow_csv.ParseOptions(invalid_row_handler=keep, newlines_in_values=True),
        "convert_options": arrow_csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string())),
    }
    first_row = 1
    for table in _csv_tables(buffered, empty, options, origin):
        piece = _with_ragged(first_row, table, ragged)
        first_row += piece.table.num_rows
        yield piece
    if ragged:
        yield _with_ragged(first_row, empty, ragged)


def _csv_tables(file: BinaryIO, empty: pa.Table, options: dict[str, Any], origin: str) -> Iterator[pa.Table]:
    first = file.readline()
    while first and not first.strip():
        first = file.readline()
    if not first:
        yield empty
        return
    try:
        with arrow_csv.open_csv(pa.PythonFile(_Joined(first, file), mode="r"), **options) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])
    except pa.ArrowInvalid as error:
        raise BatchError(
            f"{origin}: not a CSV file in UTF-8 with commas between the fields ({error}): "
            "export it as such; iconv changes an encoding"
        ) from error


class _Joined(io.RawIOBase):
    """A line that was read already, and the rest of its file."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        self._first, self._rest = first, rest

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        if not self._first:
            return self._rest.read(size)
        if size < 0:
            taken, self._first = self._first + self._rest.read(), b""
        else:
            taken, self._first = self._first[:size], self._first[size:]
        return taken


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


def _with_ragged(first_row: int, table: pa.Table, ragged: list[arrow_csv.InvalidRow]) -> Piece:
    """A piece with its rows of the wrong length in their places, which are taken from the list."""
    size, unreadable = table.num_rows, dict[int, str]()
    while ragged and ragged[0].number - first_row - len(unreadable) <= size:
        row = ragged.pop(0)
        unreadable[row.number - first_row] = (
            f"it has {row.actual_columns} fields, the header has {row.expected_columns}: {_shown(row.text)}"
        )
    if not unreadable:
        return Piece(first_row, table)
    kept = iter(range(size))
    places = [None if at in unreadable else next(kept) for at in range(size + len(unreadable))]
    return Piece(first_row, table.take(pa.array(places, pa.int64())), unreadable)


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…")


def _parquet_pieces(file: BinaryIO, origin: str) -> Iterator[Piece]:
    try:
        opened = parquet.ParquetFile(file)
        check_columns(opened.schema_arrow.names, origin)
        first_row = 1
        for batch in opened.iter_batches(PIECE_ROWS):
            yield Piece(first_row, pa.Table.from_batches([batch]))
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
        yield Piece(first_row, _json_table(rows), unreadable)
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
