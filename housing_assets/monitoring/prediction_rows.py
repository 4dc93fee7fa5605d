"""What a row of the prediction log is, and when one is wrong.

The columns are those that the service writes (`housing_serving.prediction_files`); limits and categories are
its own, so a row that it can have answered is right.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from housing_serving.features import (
    CATEGORICAL_FEATURE,
    CATEGORIES,
    LIMITS,
    NULLABLE_FEATURE,
    NUMERIC_FEATURES,
)

Mask = NDArray[np.bool_]

SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("instance", pa.int32()),
        ("answered_at", pa.timestamp("us", tz="UTC")),
        ("latency_ms", pa.float64()),
        ("model_version", pa.string()),
        *((name, pa.float64()) for name in NUMERIC_FEATURES),
        (CATEGORICAL_FEATURE, pa.string()),
        ("predicted_price", pa.float64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("level", pa.float64()),
    ]
)
PREDICTED = "predicted_price"
VERSION_PATTERN = r"^[1-9][0-9]*$"


class WrongFile(ValueError):
    """A file that holds no rows of the prediction log; the message says why."""


def in_schema(table: pa.Table) -> pa.Table:
    """The columns of the log in their order and types; further ones are left out.

    Raises:
        WrongFile: a column is missing or of another type.
    """
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise WrongFile(f"has no column {', '.join(missing)}")
    try:
        return table.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise WrongFile(f"has a column of another type: {str(error).splitlines()[0]}") from error


def problems(table: pa.Table, day: date) -> NDArray[np.object_]:
    """Why each row cannot be used, None for the rows that can; of several reasons the first."""
    reasons = np.full(table.num_rows, None, dtype=object)
    for reason, wrong in _rules(table, day):
        reasons[wrong & pd.isna(reasons)] = reason
    return reasons


def _rules(table: pa.Table, day: date) -> Iterator[tuple[str, Mask]]:
    for name in SCHEMA.names:
        if name != NULLABLE_FEATURE:
            yield f"{name} is null", _true(pc.is_null(table[name]))
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    answered = table["answered_at"]
    yield (
        f"answered_at is not on {day}",
        ~_within(answered, midnight, midnight + timedelta(days=1) - timedelta(microseconds=1)),
    )
    yield "request_id is empty", _true(pc.equal(table["request_id"], ""))
    yield "instance is negative", _true(pc.less(table["instance"], 0))
    yield (
        "model_version is not a version's number",
        ~_true(pc.match_substring_regex(table["model_version"], VERSION_PATTERN)),
    )
    for name, (lowest, highest) in LIMITS.items():
        values = table[name]
        # Null bedrooms are as good as a number.
        allowed = _within(values, lowest, highest) | _true(pc.is_null(values))
        yield f"{name} is not between {lowest:,.12g} and {highest:,.12g}", ~allowed
    known = pc.is_in(table[CATEGORICAL_FEATURE], value_set=pa.array(CATEGORIES))
    yield f"{CATEGORICAL_FEATURE} is not one of {', '.join(CATEGORIES)}", ~_true(known)
    price = table[PREDICTED]
    yield f"{PREDICTED} is not finite", ~_true(pc.is_finite(price))
    ordered = pc.and_(
        pc.and_(pc.less_equal(table["lower"], price), pc.less_equal(price, table["upper"])),
        pc.and_(pc.is_finite(table["lower"]), pc.is_finite(table["upper"])),
    )
    yield f"{PREDICTED} is not between lower and upper", ~_true(ordered)
    yield "level is not between 0 and 1", ~_within(table["level"], 0.0, 1.0)
    yield "latency_ms is negative or not finite", ~_within(table["latency_ms"], 0.0, float("1e12"))


def _within(values: pa.ChunkedArray, lowest: object, highest: object) -> Mask:
    kind = values.type
    low, high = pa.scalar(lowest, kind), pa.scalar(highest, kind)
    return _true(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high)))


def _true(condition: pa.ChunkedArray) -> Mask:
    """As a mask; null, which is what a comparison with null gives, is false."""
    mask: Mask = pc.fill_null(condition, False).to_numpy(zero_copy_only=False)
    return mask
