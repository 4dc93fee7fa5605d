"""The shape of a source table: its ten columns, and numbers where numbers belong."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from housing_assets.cells import NULLS, NUMBER
from housing_assets.sources.errors import DuplicateColumn, ExtraColumn, MissingColumn, NotANumber
from housing_serving.features import NUMERIC_FEATURES, RAW_FEATURES, TARGET

SOURCE_COLUMNS: tuple[str, ...] = (*RAW_FEATURES, TARGET)
NUMERIC_COLUMNS: tuple[str, ...] = (*NUMERIC_FEATURES, TARGET)
SHOWN_CELLS = 10


@dataclass(frozen=True)
class BadCell:
    """A cell with text where a number belongs; `position` counts data rows from zero."""

    column: str
    position: int
    value: str


def check_columns(names: Sequence[str], location: str) -> None:
    """Refuse a header that is not the ten expected columns, in any order."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    missing = [name for name in SOURCE_COLUMNS if name not in names]
    extra = [name for name in names if name not in SOURCE_COLUMNS]
    if missing:
        raise MissingColumn(
            f"{location}: missing column {_listed(missing)}"
            + (f"; unexpected {_listed(extra)}" if extra else "")
        )
    if extra:
        raise ExtraColumn(
            f"{location}: unexpected column {_listed(extra)}; expected {', '.join(SOURCE_COLUMNS)}"
        )
    if repeated:
        raise DuplicateColumn(f"{location}: column {_listed(repeated)} is there more than once")


def numbers(column: str, cells: Iterable[str | None]) -> tuple[NDArray[np.float64], list[BadCell]]:
    """The cells as numbers, null where there is none, and the cells that are neither."""
    values: list[float] = []
    bad: list[BadCell] = []
    for position, cell in enumerate(cells):
        text = "" if cell is None else cell.strip()
        if text in NULLS:
            values.append(math.nan)
        elif NUMBER.fullmatch(text):
            values.append(float(text))
        else:
            values.append(math.nan)
            bad.append(BadCell(column, position, text))
    return np.array(values, dtype=np.float64), bad


def refuse_bad_cells(bad: Sequence[BadCell], location: str, lines: Sequence[int] | None) -> None:
    """Name column, row and value of text that stands where a number belongs, the first ones of many."""
    if not bad:
        return
    first = sorted(bad, key=lambda cell: cell.position)[:SHOWN_CELLS]
    shown = "; ".join(
        f"column {cell.column}, row {cell.position + 1}"
        + (f" (line {lines[cell.position]})" if lines is not None else "")
        + f": {cell.value[:80]!r}"
        for cell in first
    )
    more = f"; and {len(bad) - len(first)} more" if len(bad) > len(first) else ""
    raise NotANumber(f"{location}: text where a number belongs: {shown}{more}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
