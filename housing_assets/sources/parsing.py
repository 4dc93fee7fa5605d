"""Reading a source's bytes as the ten published columns: csv or parquet, plain or packed."""

import csv
import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from housing_assets.sources.archive import unpack
from housing_assets.sources.errors import (
    EmptySource,
    HeaderOnly,
    NotANumber,
    RaggedRow,
    UnreadableParquet,
    UnreadableSource,
    WrongDelimiter,
)
from housing_assets.sources.fetching import MAX_BYTES, Source
from housing_assets.sources.table import (
    NUMERIC_COLUMNS,
    SOURCE_COLUMNS,
    BadCell,
    check_columns,
    numbers,
    refuse_bad_cells,
)

PARQUET_MAGIC = b"PAR1"
OTHER_DELIMITERS = (";", "\t", "|", " ")


def parse(source: Source) -> pd.DataFrame:
    """The rows as published: nine feature columns and the target, numbers as float64, text as it stands.

    Accepted as they are: a byte-order mark, CRLF, columns in any order, blank lines. Whether values make
    sense is not asked here.

    Raises:
        SourceError: the file is not such a table; the message names column, row and line.
    """
    name = f"{source.location} ({source.member})" if source.member else source.location
    data = unpack(source.data, source.location, MAX_BYTES)
    if not data.strip(b" \t\r\n\xef\xbb\xbf"):
        raise EmptySource(f"{name}: the file is empty")
    if data.startswith(PARQUET_MAGIC) or name.removesuffix(")").lower().endswith(".parquet"):
        return _parse_parquet(data, name)
    return _parse_csv(data, name)


def _parse_csv(data: bytes, location: str) -> pd.DataFrame:
    header, rows, lines = _read_csv(_decoded(data, location), location)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    frame: dict[str, NDArray[np.float64] | list[str | None]] = {}
    bad: list[BadCell] = []
    for name in SOURCE_COLUMNS:
        if name in NUMERIC_COLUMNS:
            frame[name], unreadable = numbers(name, columns[name])
            bad += unreadable
        else:
            frame[name] = [cell or None for cell in columns[name]]
    refuse_bad_cells(bad, location, lines)
    return pd.DataFrame(frame)


def _decoded(data: bytes, location: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UnreadableSource(f"{location}: line {line} is not UTF-8 text") from error


def _read_csv(text: str, location: str) -> tuple[list[str], list[list[str]], list[int]]:
    """The header, the data rows and the file line each row ends on."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for fields in reader:
            if not fields:
                continue
            if not header:
                header = fields
                _check_header(header, location)
                continue
            if len(fields) != len(header):
                raise RaggedRow(
                    f"{location}: row {len(rows) + 1} (line {reader.line_num}) has {len(fields)} fields, "
                    f"the header has {len(header)}"
                )
            rows.append(fields)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise UnreadableSource(f"{location}: line {reader.line_num}: {error}") from error
    if not rows:
        raise HeaderOnly(f"{location}: a header and no rows")
    return header, rows, lines


def _check_header(header: Sequence[str], location: str) -> None:
    line = ",".join(header)
    for delimiter in OTHER_DELIMITERS:
        found = {field.strip().strip('"') for field in line.split(delimiter)}
        if len(found & set(SOURCE_COLUMNS)) > 1:
            raise WrongDelimiter(f"{location}: line 1: fields are separated by {delimiter!r}, expected ','")
    check_columns(header, location)


def _parse_parquet(data: bytes, location: str) -> pd.DataFrame:
    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        check_columns(file.schema_arrow.names, location)
        table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise UnreadableParquet(f"{location}: not a readable parquet file: {error}") from error
    if table.num_rows == 0:
        raise HeaderOnly(f"{location}: columns and no rows")
    return _parquet_frame(table, location)


def _parquet_frame(table: pa.Table, location: str) -> pd.DataFrame:
    frame: dict[str, NDArray[np.float64] | list[str | None]] = {}
    bad: list[BadCell] = []
    for name in SOURCE_COLUMNS:
        column = table.column(name)
        if name not in NUMERIC_COLUMNS:
            frame[name] = [None if cell is None else str(cell) for cell in column.to_pylist()]
        elif _holds_numbers(column.type):
            frame[name] = column.cast(pa.float64(), safe=False).to_numpy()
        elif _holds_text(column.type):
            frame[name], unreadable = numbers(name, column.to_pylist())
            bad += unreadable
        else:
            raise NotANumber(f"{location}: column {name} holds {column.type}, expected numbers")
    refuse_bad_cells(bad, location, None)
    return pd.DataFrame(frame)


def _holds_numbers(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind)
    )


def _holds_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))
