"""Labels: prices that became known after they were predicted, read from files that anyone may have written.

A label names what it is about by `request_id` (and `instance`, where the request had several) or by
`block_group_id`, and says the `median_house_value`. `observed_at` is optional: of two labels of one thing the
later one counts. Nothing depends on the order in which files came.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow as arrow
from pyarrow import parquet

from housing_assets.ml.cleaning import ID_COLUMN
from housing_assets.ml.schemas import ID_PATTERN, TARGET_LIMITS, validate
from housing_serving.features import TARGET

REQUEST, INSTANCE, OBSERVED = "request_id", "instance", "observed_at"
COLUMNS = (REQUEST, INSTANCE, ID_COLUMN, TARGET, OBSERVED)
# Where a label is from: its file and its row in it (from 1).
ORIGIN = ("file", "row")
CONTENT = "content"
REJECTED_COLUMNS = ["reason", *ORIGIN, CONTENT]

CONTRADICTS = f"contradicts another label: say by {OBSERVED} which is the later one"
AMBIGUOUS = f"the request had several instances: say by {INSTANCE} which one"
UNKNOWN = "no prediction of that day or the days before has this id"


@dataclass(frozen=True)
class LabelFile:
    """A file of labels: its object name, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Labels:
    """What label files hold.

    Attributes:
        rows: usable labels: COLUMNS and ORIGIN; `instance` and the ids are null where not given.
        rejected: what is none: reason, file, row (null for a whole file), content.
        rows_read: all rows of readable files.
    """

    rows: pd.DataFrame
    rejected: pd.DataFrame
    rows_read: int


def read_labels(files: Sequence[LabelFile]) -> Labels:
    """Read and check every file; what cannot be used is listed, never silently left out."""
    parts = [_checked(file) for file in sorted(files, key=lambda file: file.name)]
    return Labels(
        rows=stacked([part.rows for part in parts], [*COLUMNS, *ORIGIN]),
        rejected=stacked([part.rejected for part in parts], REJECTED_COLUMNS),
        rows_read=sum(part.rows_read for part in parts),
    )


def rejected(rows: pd.DataFrame, reason: str) -> pd.DataFrame:
    """Usable-looking labels as rejected ones, for a reason that shows only beside other data."""
    content = [_content(row) for _, row in rows[list(COLUMNS)].iterrows()]
    listed = rows[list(ORIGIN)].assign(reason=reason, content=content)
    return listed[REJECTED_COLUMNS].reset_index(drop=True)


def stacked(frames: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Frames on top of each other; empty ones, whose columns have no types, do not count."""
    some = [frame for frame in frames if len(frame)]
    return pd.concat(some, ignore_index=True) if some else pd.DataFrame(columns=columns, dtype=object)


def _checked(file: LabelFile) -> Labels:
    try:
        raw = _read(file)
    except (ValueError, TypeError, arrow.ArrowException, OSError) as error:
        return _wrong_file(file, f"is not a readable table: {str(error).splitlines()[0]}")
    if (problem := _wrong_columns(raw)) is not None:
        return _wrong_file(file, problem)
    raw = raw.reindex(columns=list(COLUMNS))
    converted, reasons = _converted(raw)
    numbers = np.arange(1, len(raw) + 1)
    usable = reasons.isna()
    bad = pd.DataFrame({"reason": reasons, "file": file.name, "row": numbers})[~usable]
    content = [_content(row) for _, row in raw[~usable].iterrows()]
    rows = converted.assign(file=file.name, row=numbers)[usable]
    return Labels(rows, bad.assign(content=content)[REJECTED_COLUMNS], len(raw))


def _wrong_file(file: LabelFile, problem: str) -> Labels:
    listed = pd.DataFrame([(problem, file.name, None, None)], columns=REJECTED_COLUMNS, dtype=object)
    return Labels(pd.DataFrame(), listed, 0)


def _read(file: LabelFile) -> pd.DataFrame:
    suffix = PurePosixPath(file.name).suffix
    if suffix not in READERS:
        raise ValueError(f"its name ends with {suffix or 'nothing'}, not with {', '.join(READERS)}")
    return READERS[suffix](file.data)


def _read_csv(data: bytes) -> pd.DataFrame:
    # As text: an id of digits is no number.
    return pd.read_csv(io.BytesIO(data), dtype=str, encoding="utf-8")


def _read_parquet(data: bytes) -> pd.DataFrame:
    frame: pd.DataFrame = parquet.read_table(io.BytesIO(data)).to_pandas()
    return frame


def _read_jsonl(data: bytes) -> pd.DataFrame:
    rows = [json.loads(line) for line in data.decode().splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no JSON object")
    return pd.DataFrame(rows, dtype=object)


READERS: dict[str, Callable[[bytes], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
}


def _wrong_columns(raw: pd.DataFrame) -> str | None:
    found = {str(name) for name in raw.columns}
    if unknown := sorted(found - set(COLUMNS)):
        return f"has unknown columns {', '.join(unknown)}; known are {', '.join(COLUMNS)}"
    if TARGET not in found:
        return f"has no column {TARGET}"
    if not found & {REQUEST, ID_COLUMN}:
        return f"has neither a column {REQUEST} nor {ID_COLUMN}"
    return None


def _converted(raw: pd.DataFrame) -> tuple[pd.DataFrame, "pd.Series[str]"]:
    """The typed columns, and why each row cannot be used (null for the rows that can)."""
    texts = {name: raw[name].map(_text).astype(object) for name in (REQUEST, ID_COLUMN)}
    value, instance = (_number(raw[name]) for name in (TARGET, INSTANCE))
    observed = pd.to_datetime(raw[OBSERVED], errors="coerce", utc=True, format="ISO8601")
    typed = pd.DataFrame({**texts, INSTANCE: instance, TARGET: value, OBSERVED: observed})[list(COLUMNS)]
    reasons = pd.Series(None, index=raw.index, dtype=object)
    for name, kind in ((TARGET, "number"), (INSTANCE, "number"), (OBSERVED, "moment in ISO 8601")):
        wrong = raw[name].notna() & typed[name].isna()
        reasons[wrong & reasons.isna()] = f"{name} is no {kind}"
    nameless = typed[REQUEST].isna() & typed[ID_COLUMN].isna()
    reasons[nameless & reasons.isna()] = f"neither {REQUEST} nor {ID_COLUMN} is given"
    if len(typed):
        failures = validate(typed, LABELS_SCHEMA).failures.dropna(subset="row")
        for column, check, row in zip(*(failures[name] for name in ("column", "check", "row")), strict=True):
            if reasons.isna()[row - 1]:
                reasons[row - 1] = f"{column}: expected {check}"
    return typed, reasons


def _text(value: Any) -> str | None:  # noqa: ANN401  (whatever a file holds)
    absent = pd.api.types.is_scalar(value) and pd.isna(value)
    return None if absent else str(value).strip() or None


def _number(column: "pd.Series[Any]") -> "pd.Series[float]":
    # True is no price, though Python would count it as 1.
    plain = column.where(~column.map(lambda value: isinstance(value, bool)), "")
    return pd.to_numeric(plain.map(_text), errors="coerce").astype("float64")


def _content(row: "pd.Series[Any]") -> str:
    return json.dumps({str(name): str(value) for name, value in row.dropna().items()})


LABELS_SCHEMA = pa.DataFrameSchema(
    {
        REQUEST: pa.Column(object, pa.Check.str_length(1, 64, error="1 to 64 characters"), nullable=True),
        INSTANCE: pa.Column(
            "float64",
            pa.Check(lambda values: (values >= 0) & (values % 1 == 0), error="a whole number from 0"),
            nullable=True,
        ),
        ID_COLUMN: pa.Column(
            object, pa.Check.str_matches(ID_PATTERN, error="16 hexadecimal digits"), nullable=True
        ),
        TARGET: pa.Column(
            "float64",
            pa.Check.in_range(
                *TARGET_LIMITS, error=f"between {TARGET_LIMITS[0]:,.0f} and {TARGET_LIMITS[1]:,.0f}"
            ),
        ),
        OBSERVED: pa.Column("datetime64[ns, UTC]", nullable=True),
    },
    name="labels",
    strict=True,
    ordered=True,
)
