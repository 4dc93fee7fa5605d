"""Prices beside the rows they belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from housing_assets.batch.checking import CheckedRows, check
from housing_assets.batch.errors import BatchError
from housing_assets.batch.reading import Piece
from housing_serving.bundle import Bundle
from housing_serving.features import RAW_FEATURES, FloatArray

PRICE_COLUMNS = ("predicted_price", "lower", "upper")
RESULT_COLUMNS = (*PRICE_COLUMNS, "warnings", "model_version", "error")


@dataclass(frozen=True)
class PricedPiece:
    """Some rows, and what the model says of them.

    Attributes:
        piece: The rows as they were read.
        checked: Their features, and what is wrong with rows that have no price.
        prices: Price, lower and upper end of its interval in dollars, NaN where there is none, shape (3, n).
        warnings: What training saw nothing like, by row.
        version: Of the model.
    """

    piece: Piece
    checked: CheckedRows
    prices: FloatArray
    warnings: Mapping[int, str]
    version: int

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self.piece.table.num_rows)

    def table(self, *, as_read: bool = False) -> pa.Table:
        """The input's columns, and those of the result.

        Args:
            as_read: Whether features stay what they were read as, rather than become numbers (null where
                they are none).
        """
        table = self.piece.table if as_read else self._typed()
        results = [pa.array(values, from_pandas=True) for values in self.prices]
        results.append(_texts(self.warnings, self.rows, ""))
        results.append(pa.repeat(pa.scalar(str(self.version)), self.rows))
        results.append(_texts(self.checked.problems, self.rows, ""))
        for name, values in zip(RESULT_COLUMNS, results, strict=True):
            table = table.append_column(name, values)
        return table

    def _typed(self) -> pa.Table:
        table = self.piece.table
        for name in RAW_FEATURES:
            values = self.checked.columns[name]
            kind = pa.string() if values.dtype == object else pa.float64()
            column = pa.array(values, kind, from_pandas=True)
            place = table.schema.get_field_index(name)
            table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
        return table


def price(piece: Piece, bundle: Bundle, origin: str) -> PricedPiece:
    """Check a piece's rows, and price those that can be priced.

    Raises:
        BatchError: the rows have a column already that the result would have.
    """
    refuse_taken_names(piece.table.column_names, origin)
    checked = check(piece)
    usable = checked.usable
    prices = np.full((3, len(usable)), np.nan)
    warnings: dict[int, list[str]] = {}
    if usable.any():
        columns = {name: values[usable] for name, values in checked.columns.items()}
        found = bundle.predict(columns)
        prices[:, usable] = found.price, found.lower, found.upper
        places = np.flatnonzero(usable)
        for departure in bundle.domain.departures(columns):
            warnings.setdefault(int(places[departure.row]), []).append(f"{departure.field} {departure.code}")
    told = {at: "; ".join(some) for at, some in warnings.items()}
    return PricedPiece(piece, checked, prices, told, bundle.manifest.model_version)


def refuse_taken_names(names: Sequence[str], origin: str) -> None:
    """Refuse a table that has columns of the result already, as one that was priced before has.

    Raises:
        BatchError: naming them.
    """
    if taken := [name for name in RESULT_COLUMNS if name in names]:
        raise BatchError(
            f"{origin}: column {', '.join(taken)} is there already, and would be of the result too: "
            "rename or remove it"
        )


def _texts(by_row: Mapping[int, str], rows: int, other: str) -> pa.Array:
    if not by_row:
        return pa.repeat(pa.scalar(other), rows)
    texts = np.full(rows, other, dtype=object)
    texts[list(by_row)] = list(by_row.values())
    return pa.array(texts, pa.string())
