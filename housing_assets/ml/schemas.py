"""What the tables of each step must look like, and a readable account of what does not.

Every limit and category comes from `housing_serving.features`, so data and requests are judged alike.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from housing_assets.ml.cleaning import ID_COLUMN
from housing_serving.features import (
    CATEGORICAL_FEATURE,
    CATEGORIES,
    LIMITS,
    NULLABLE_FEATURE,
    RAW_FEATURES,
    ROW_FEATURES,
    TARGET,
)

ID_PATTERN = r"^[0-9a-f]{16}\Z"
# Dollars; free houses and hundred-million medians are errors.
TARGET_LIMITS = (1.0, 1e8)
SHOWN_ROWS = 10
FAILURE_COLUMNS = ["column", "check", "row", "value"]
BEDROOM_RATIOS = tuple(name for name in ROW_FEATURES if "bedrooms" in name)
NOT_EMPTY = "at least one row"
RATIOS_AGREE = "bedroom ratios null exactly where total_bedrooms is"
# Pandera's names in words; the first ones are about whole columns.
TABLE_CHECKS = {
    "column_in_schema": "unexpected column",
    "column_in_dataframe": "missing column",
    "column_ordered": "not at its place in the column order",
}
COLUMN_CHECKS = {"not_nullable": "no nulls", "field_uniqueness": "no duplicates"}


@dataclass(frozen=True)
class ValidationReport:
    """The outcome of validating one table.

    Attributes:
        passed: whether nothing failed.
        failures: one row per failure: column, check, row (from 1; null where a whole column or table
            fails) and value.
        summary: the failures in words, the first rows of each named.
        rows: how many rows were looked at.
        duplicate_rows: exact copies of an earlier row; harmless in raw data, where they are dropped later.
    """

    passed: bool
    failures: pd.DataFrame
    summary: str
    rows: int
    duplicate_rows: int


def validate(frame: pd.DataFrame, schema: pa.DataFrameSchema) -> ValidationReport:
    """Check a table against a schema; all failures at once, the frame untouched."""
    numbered = frame.reset_index(drop=True)
    failures = pd.DataFrame(columns=FAILURE_COLUMNS, dtype=object)
    try:
        schema.validate(numbered, lazy=True)
    except SchemaErrors as error:
        failures = _failures(error.failure_cases, numbered)
    duplicates = int(numbered.duplicated().sum())
    return ValidationReport(
        passed=failures.empty,
        failures=failures,
        summary=_summary(str(schema.name), len(frame), duplicates, failures),
        rows=len(frame),
        duplicate_rows=duplicates,
    )


def combine(name: str, reports: Sequence[ValidationReport]) -> ValidationReport:
    """The reports on the parts of a table as one on the whole; rows are numbered through."""
    rows, duplicates = sum(one.rows for one in reports), sum(one.duplicate_rows for one in reports)
    firsts = itertools.accumulate((one.rows for one in reports), initial=0)
    shifted = [
        one.failures.assign(row=one.failures["row"] + first)
        for one, first in zip(reports, firsts, strict=False)
        if not one.passed
    ]
    failures = pd.concat(shifted, ignore_index=True) if shifted else reports[0].failures
    return ValidationReport(
        not shifted, failures, _summary(name, rows, duplicates, failures), rows, duplicates
    )


def _schema(name: str, columns: dict[str, pa.Column], *checks: pa.Check) -> pa.DataFrameSchema:
    some = pa.Check(lambda frame: len(frame) > 0, error=NOT_EMPTY)
    return pa.DataFrameSchema(columns, checks=[some, *checks], name=name, strict=True, ordered=True)


def _source_columns() -> dict[str, pa.Column]:
    columns = {name: _number(*limits, nullable=name == NULLABLE_FEATURE) for name, limits in LIMITS.items()}
    columns[CATEGORICAL_FEATURE] = pa.Column(
        str, pa.Check.isin(CATEGORIES, error=f"one of {', '.join(CATEGORIES)}")
    )
    columns[TARGET] = _number(*TARGET_LIMITS)
    return {name: columns[name] for name in (*RAW_FEATURES, TARGET)}


def _identified_columns() -> dict[str, pa.Column]:
    shape = pa.Check.str_matches(ID_PATTERN, error="16 hexadecimal digits")
    return {ID_COLUMN: pa.Column(str, shape, unique=True), **_source_columns()}


def _featured_columns() -> dict[str, pa.Column]:
    finite = pa.Check.in_range(0, float("inf"), include_min=False, include_max=False, error="above 0, finite")
    ratios = {name: pa.Column("float64", finite, nullable=name in BEDROOM_RATIOS) for name in ROW_FEATURES}
    return {**_identified_columns(), **ratios}


def _number(lowest: float, highest: float, *, nullable: bool = False) -> pa.Column:
    within = pa.Check.in_range(lowest, highest, error=f"between {lowest:,.12g} and {highest:,.12g}")
    return pa.Column("float64", within, nullable=nullable)


def _bedroom_ratios_known(frame: pd.DataFrame) -> "pd.Series[bool]":
    needed = [NULLABLE_FEATURE, *BEDROOM_RATIOS]
    if not set(needed) <= set(frame.columns):
        # Reported as a missing column already.
        return pd.Series(True, index=frame.index)
    nulls = frame[needed].isna()
    return nulls.all(axis=1) | ~nulls.any(axis=1)


def _failures(cases: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Pandera's failure cases as column, check, row from 1 and value, in the order of the columns."""
    found: dict[tuple[object, ...], None] = {}
    for case in zip(cases["column"], cases["check"], cases["failure_case"], cases["index"], strict=True):
        failure = _failure(*case, frame)
        if failure is not None:
            found[failure] = None
    failures = pd.DataFrame(list(found), columns=FAILURE_COLUMNS, dtype=object)
    order = {name: number for number, name in enumerate(frame.columns)}
    place = failures["column"].map(lambda name: order.get(name, -1))
    failures = failures.assign(place=place, row=failures["row"].astype("Int64"))
    return failures.sort_values(["place", "check", "row"], kind="stable", ignore_index=True).drop(
        columns="place"
    )


def _failure(
    column: str, check: str, value: object, index: float | None, frame: pd.DataFrame
) -> tuple[object, ...] | None:
    """One failure as column, check, row, value; None for what only repeats another one."""
    if check in TABLE_CHECKS:
        return str(value), TABLE_CHECKS[check], None, None
    if check.startswith("dtype("):
        kind = check.removeprefix("dtype('").removesuffix("')")
        return column, f"type {kind}", None, str(frame[column].dtype)
    if check == NOT_EMPTY:
        return None, check, None, None
    # A check without a row broke on a column of the wrong type; a row that fails is listed cell by cell.
    if index is None or pd.isna(index) or (check == RATIOS_AGREE and column != NULLABLE_FEATURE):
        return None
    return column, COLUMN_CHECKS.get(check, check), int(index) + 1, value


def _summary(name: str, rows: int, duplicates: int, failures: pd.DataFrame) -> str:
    if failures.empty:
        return f"{name}: {rows} rows, nothing wrong" + (
            f"; {duplicates} exact duplicates" if duplicates else ""
        )
    groups = failures.groupby(["column", "check"], sort=False, dropna=False)
    problems = [_problem(group) for _, group in groups]
    return f"{name}: {len(failures)} failure(s) in {rows} rows: " + "; ".join(problems)


def _problem(group: pd.DataFrame) -> str:
    column, check = group["column"].iloc[0], group["check"].iloc[0]
    where = "table" if column is None else f"column {column}"
    if group["row"].isna().all():
        value = group["value"].iloc[0]
        return f"{where}: {check}" + ("" if value is None else f" expected, found {value}")
    first = group.head(SHOWN_ROWS)
    shown = ", ".join(f"row {row} ({value})" for row, value in zip(first["row"], first["value"], strict=True))
    more = f" and {len(group) - len(first)} more" if len(group) > len(first) else ""
    return f"{where}: expected {check}, not so in {shown}{more}"


# Rows with a null are asked too: a null in the wrong place is what this is about.
RATIOS_CHECK = pa.Check(_bedroom_ratios_known, error=RATIOS_AGREE, ignore_na=False)
# Source rows as published, exact duplicates allowed; processed adds a unique id, featured the stateless
# ratios; each side of the split looks like the featured table.
RAW_SCHEMA = _schema("raw", _source_columns())
PROCESSED_SCHEMA = _schema("processed", _identified_columns())
FEATURED_SCHEMA = _schema("featured", _featured_columns(), RATIOS_CHECK)
SPLIT_SCHEMA = _schema("split", _featured_columns(), RATIOS_CHECK)
