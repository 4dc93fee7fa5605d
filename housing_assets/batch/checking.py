"""Whether rows can be priced: every value is a number within what is possible, or has its reason why not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from housing_assets.batch.reading import Piece
from housing_assets.cells import NULLS, NUMBER
from housing_serving.features import (
    CATEGORICAL_FEATURE,
    CATEGORIES,
    LIMITS,
    NULLABLE_FEATURE,
    NUMERIC_FEATURES,
    FloatArray,
)

_NULLS = pa.array(sorted(NULLS))
_NUMBER = f"^(?:{NUMBER.pattern})$"
SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class CheckedRows:
    """The nine features of some rows.

    Attributes:
        columns: By name, shape (n,); a value that cannot be used is NaN, or None for the category.
        problems: What is wrong with a row, by its position; rows without an entry can be priced.
    """

    columns: Mapping[str, NDArray[Any]]
    problems: Mapping[int, str]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which rows can be priced, shape (n,)."""
        usable = np.ones(len(self.columns[CATEGORICAL_FEATURE]), dtype=np.bool_)
        usable[list(self.problems)] = False
        return usable


def check(piece: Piece) -> CheckedRows:
    """The features of a piece, each value checked; all problems of a row are named."""
    found: dict[int, list[str]] = {at: [why] for at, why in piece.unreadable.items()}
    columns: dict[str, NDArray[Any]] = {}
    for name in (*NUMERIC_FEATURES, CATEGORICAL_FEATURE):
        read = _category if name == CATEGORICAL_FEATURE else _numeric
        columns[name], problems = read(name, _column(piece.table, name))
        for at, problem in problems.items():
            if at not in piece.unreadable:
                found.setdefault(at, []).append(f"{name} {problem}")
    return CheckedRows(columns, {at: "; ".join(found[at]) for at in sorted(found)})


def _column(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        return pa.nulls(table.num_rows)
    column = table.column(name).combine_chunks()
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _numeric(name: str, column: pa.Array) -> tuple[FloatArray, dict[int, str]]:
    values, problems = _numbers(column)
    lowest, highest = LIMITS[name]
    for at in np.flatnonzero(values < lowest).tolist():
        problems[at] = f"{values[at]:g} is impossible: the least is {lowest:g}"
    for at in np.flatnonzero(values > highest).tolist():
        problems[at] = f"{values[at]:g} is impossible: the most is {highest:g}"
    if name != NULLABLE_FEATURE:
        for at in np.flatnonzero(np.isnan(values)).tolist():
            problems.setdefault(at, "is missing")
    if problems:
        values[list(problems)] = np.nan
    return values, problems


def _numbers(column: pa.Array) -> tuple[FloatArray, dict[int, str]]:
    """The values, NaN where there is none, and what is wrong with those that are no numbers."""
    kind, types = column.type, pa.types
    if types.is_string(kind) or types.is_large_string(kind):
        return _parsed(column)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
        return _as_numpy(column.cast(pa.float64(), safe=False)), {}
    problems = {at: f"{_shown(value)} is no number" for at, value in _known(column)}
    return np.full(len(column), np.nan), problems


def _parsed(column: pa.Array) -> tuple[FloatArray, dict[int, str]]:
    try:
        values = _as_numpy(column.cast(pa.float64()))
    except pa.ArrowInvalid:
        values = None
    # Arrow takes the words nan and inf in any spelling.
    if values is not None and np.isfinite(values).all():
        return values, {}
    text = pc.utf8_trim_whitespace(column)
    is_number = pc.match_substring_regex(text, _NUMBER)
    values = _as_numpy(pc.if_else(is_number, text, None).cast(pa.float64()))
    wrong = pc.invert(pc.or_(is_number, pc.is_in(text, _NULLS))).fill_null(False)
    places = np.flatnonzero(wrong.to_numpy(zero_copy_only=False)).tolist()
    return values, {at: f"{_shown(column[at].as_py())} is no number" for at in places}


def _as_numpy(column: pa.Array) -> FloatArray:
    values: FloatArray = column.to_numpy(zero_copy_only=False)
    # Arrow's own memory cannot be written to.
    return values if values.flags.writeable else values.copy()


def _category(_: str, column: pa.Array) -> tuple[NDArray[np.object_], dict[int, str]]:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        problems = {at: f"{_shown(value)} is no text" for at, value in _known(column)}
        missing = {at: "is missing" for at in range(len(column)) if at not in problems}
        return np.full(len(column), None, dtype=object), {**problems, **missing}
    encoded = column.dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    # The last stands for null.
    known = np.array([*map(_canonical, texts), None], dtype=object)
    places = encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
    values = known[places]
    problems = {}
    if None in known[np.unique(places)]:
        for at in np.flatnonzero(values == None).tolist():  # noqa: E711  (element by element)
            text = column[at].as_py()
            blank = text is None or text.strip() in NULLS
            choices = ", ".join(CATEGORIES)
            problems[at] = "is missing" if blank else f"{_shown(text)} is none of {choices}"
    return values, problems


def _canonical(text: str) -> str | None:
    # As the service does: upper and lower case are the same, and letters of other alphabets are not.
    name = text.strip().upper() if text.isascii() else ""
    return name if name in CATEGORIES else None


def _known(column: pa.Array) -> list[tuple[int, Any]]:
    return [(at, value) for at, value in enumerate(column.to_pylist()) if value is not None]


def _shown(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…")
