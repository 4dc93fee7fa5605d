"""One day's table of predictions, read column by column: a day may be larger than memory allows for."""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

from housing_assets.monitoring.prediction_rows import SCHEMA, Mask
from housing_serving.features import CATEGORICAL_FEATURE, FloatArray

SEED = 42


class ServedDay:
    """The predictions of one UTC day, as `compaction.compact` wrote them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = parquet.ParquetFile(file, read_dictionary=["model_version", CATEGORICAL_FEATURE])
        self.rows = int(self._file.metadata.num_rows)

    def rows_by_version(self) -> dict[str, int]:
        """How many rows each model version answered, by its number."""
        counts: dict[str, int] = {}
        for batch in self._batches(["model_version"]):
            for entry in pc.value_counts(batch["model_version"]).to_pylist():
                counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
        return dict(sorted(counts.items(), key=lambda item: int(item[0])))

    def answered_by(self, version: str) -> Mask | None:
        """Which rows a version answered; None when it was all of them."""
        if list(self.rows_by_version()) == [version]:
            return None
        parts = [pc.equal(batch["model_version"], version) for batch in self._batches(["model_version"])]
        mask: Mask = pa.chunked_array(parts).to_numpy()
        return mask

    def numbers(self, name: str, rows: Mask | None = None) -> FloatArray:
        """A numeric column, null as NaN; all rows or some."""
        column = self._file.read([name])[name]
        values: FloatArray = column.to_numpy().astype(np.float64, copy=False)
        return values if rows is None else values[rows]

    def categories(self, rows: Mask | None = None) -> dict[str, int]:
        """How many rows are of each category; all rows or some."""
        column = self._file.read([CATEGORICAL_FEATURE])[CATEGORICAL_FEATURE]
        if rows is not None:
            column = column.filter(pa.array(rows))
        found = pc.value_counts(column).to_pylist()
        return {entry["values"]: entry["counts"] for entry in found}

    def frame(self, columns: list[str], keep: "pd.Index[str] | None" = None, by: str = "") -> pd.DataFrame:
        """Some columns as a frame, where asked only rows whose value in column `by` is among `keep`."""
        wanted = None if keep is None else pa.array(keep, pa.string())
        parts = [
            batch if wanted is None else batch.filter(pc.is_in(batch[by], value_set=wanted))
            for batch in self._batches(columns)
        ]
        return _frame(parts, columns)

    def distinct(self, columns: list[str]) -> pd.DataFrame:
        """Every combination of values that occurs in some columns, once."""
        parts = [_frame([batch], columns).drop_duplicates() for batch in self._batches(columns)]
        found: pd.DataFrame = pd.concat(parts).drop_duplicates(ignore_index=True)
        return found

    def matching(self, wanted: pd.DataFrame, on: list[str], columns: list[str]) -> pd.DataFrame:
        """Some columns of the rows that have the values of a wanted row in the columns `on`, and its own."""
        read = list(dict.fromkeys([*on, *columns]))
        parts = [_frame([batch], read).merge(wanted, on=on) for batch in self._batches(read)]
        found: pd.DataFrame = pd.concat(parts, ignore_index=True)
        return found

    def sample(self, columns: list[str], size: int) -> pd.DataFrame:
        """At most so many rows, drawn without order; the same rows every time."""
        chosen = np.arange(self.rows)
        if self.rows > size:
            chosen = np.sort(np.random.default_rng(SEED).choice(self.rows, size, replace=False))
        parts: list[pa.RecordBatch] = []
        start = 0
        for batch in self._batches(columns):
            inside: NDArray[np.int64] = chosen[(chosen >= start) & (chosen < start + len(batch))] - start
            parts.append(batch.take(pa.array(inside)))
            start += len(batch)
        return _frame(parts, columns)

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        batches: Iterator[pa.RecordBatch] = self._file.iter_batches(columns=columns)
        return batches


def _frame(batches: Sequence[pa.RecordBatch], columns: list[str]) -> pd.DataFrame:
    """Batches as one frame, repeating texts as plain ones again."""
    plain = pa.schema([SCHEMA.field(name) for name in columns])
    parts = [pa.Table.from_batches([batch]).cast(plain) for batch in batches]
    frame: pd.DataFrame = pa.concat_tables([plain.empty_table(), *parts]).to_pandas()
    return frame
