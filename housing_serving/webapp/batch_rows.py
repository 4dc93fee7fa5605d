"""A table that a visitor uploads: read, judged row by row, priced in parts, and given back complete."""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from housing_serving.features import CATEGORICAL_FEATURE, NULLABLE_FEATURE, NUMERIC_FEATURES, RAW_FEATURES
from housing_serving.schemas import MAX_INSTANCES, Prediction
from housing_serving.webapp.api import PriceApi
from housing_serving.webapp.texts import Texts
from housing_serving.webapp.values import Problem, name_of, problems_of, warning_text

MAX_ROWS = 100_000
ADDED = ("predicted_price", "lower", "upper", "model_version", "warnings", "problem")


class TableRefused(Exception):
    """The file is no table that can be priced; the message says what to do, in the visitor's language."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be priced; `number` counts from 1, below the header."""

    number: int
    problems: tuple[Problem, ...]


@dataclass
class Batch:
    """An uploaded table and what is known of its rows, by their positions.

    Attributes:
        columns: Of the file, in its order.
        rows: Texts as the file has them.
        instances: The rows that can be priced, as the API takes them.
        bad: The others, in the order of the file.
        answers: What is priced so far, and the version that answered.
    """

    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    instances: dict[int, dict[str, Any]]
    bad: list[BadRow]
    answers: dict[int, tuple[Prediction, str]] = field(default_factory=dict)

    @property
    def pending(self) -> list[int]:
        """Positions that are still to be priced."""
        return [position for position in self.instances if position not in self.answers]

    def price(self, api: PriceApi) -> Iterator[int]:
        """Price what is pending, as many rows at once as the API takes; yields how many are priced by then.

        Raises:
            ApiUnavailable: there is no answer; what was answered before stays.
            ApiRefused: the API does not take the rows.
        """
        pending = self.pending
        for start in range(0, len(pending), MAX_INSTANCES):
            part = pending[start : start + MAX_INSTANCES]
            answer = api.predict([self.instances[position] for position in part])
            for position, prediction in zip(part, answer.predictions, strict=True):
                self.answers[position] = prediction, answer.model_version
            yield len(self.answers)

    @property
    def versions(self) -> list[str]:
        """Those that answered."""
        return sorted({version for _, version in self.answers.values()})

    @property
    def median_price(self) -> float:
        """Of what is priced, dollars."""
        return median(prediction.predicted_price for prediction, _ in self.answers.values())

    @property
    def warned(self) -> int:
        """Priced rows that are unlike the training rows."""
        return sum(bool(prediction.warnings) for prediction, _ in self.answers.values())

    def result(self, texts: Texts) -> list[dict[str, str]]:
        """Every row of the file, with its price or with what is wrong with it."""
        problems = {
            row.number - 1: "; ".join(f"{one.field}: {one.message}" for one in row.problems)
            for row in self.bad
        }
        return [
            {**row, **self._outcome(position, texts), "problem": problems.get(position, "")}
            for position, row in enumerate(self.rows)
        ]

    def _outcome(self, position: int, texts: Texts) -> dict[str, str]:
        if position not in self.answers:
            return dict.fromkeys(ADDED[:-1], "")
        prediction, version = self.answers[position]
        interval = prediction.confidence_interval
        return {
            "predicted_price": f"{prediction.predicted_price:.2f}",
            "lower": f"{interval.lower:.2f}",
            "upper": f"{interval.upper:.2f}",
            "model_version": version,
            "warnings": "; ".join(warning_text(warning, texts) for warning in prediction.warnings),
        }

    def to_csv(self, texts: Texts) -> bytes:
        """The result as a file that `read_table` could read again."""
        return _csv((*(name for name in self.columns if name not in ADDED), *ADDED), self.result(texts))


def template(examples: list[Mapping[str, Any]]) -> bytes:
    """A file to begin with."""
    rows = [{name: "" if value is None else str(value) for name, value in row.items()} for row in examples]
    return _csv(RAW_FEATURES, rows)


def _csv(columns: tuple[str, ...], rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def read_table(data: bytes, texts: Texts) -> Batch:
    """The rows of a CSV file, each of them judged.

    Raises:
        TableRefused: the file is no such table.
    """
    try:
        # Spreadsheets begin their files with a mark.
        lines = io.StringIO(data.decode("utf-8-sig"), newline="")
        reader = csv.DictReader(lines, restkey="", restval="", strict=True)
        columns = tuple(name.strip() for name in reader.fieldnames or ())
        reader.fieldnames = columns
        rows = [{name: value for name, value in row.items() if name} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        problem = "UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise TableRefused(texts.unreadable.format(problem=problem)) from error
    missing = [name for name in RAW_FEATURES if name not in columns and name != NULLABLE_FEATURE]
    if missing:
        raise TableRefused(texts.missing_columns.format(columns=", ".join(missing)))
    if not rows:
        raise TableRefused(texts.empty_file)
    if len(rows) > MAX_ROWS:
        raise TableRefused(texts.too_many_rows.format(rows=f"{len(rows):,}", limit=f"{MAX_ROWS:,}"))
    return _judged(columns, rows, texts)


def _judged(columns: tuple[str, ...], rows: list[dict[str, str]], texts: Texts) -> Batch:
    batch = Batch(columns, rows, {}, [])
    for position, row in enumerate(rows):
        instance = _instance(row)
        if problems := problems_of(instance, texts):
            batch.bad.append(BadRow(position + 1, tuple(problems)))
        else:
            batch.instances[position] = instance
    return batch


def _instance(row: Mapping[str, str]) -> dict[str, Any]:
    numbers = {name: _number(row.get(name, "")) for name in NUMERIC_FEATURES}
    return {**numbers, CATEGORICAL_FEATURE: row[CATEGORICAL_FEATURE] or None}


def _number(text: str) -> float | str | None:
    """The number, None for nothing, or a text that is none, for the schema to refuse."""
    if not text.strip():
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def problem_rows(batch: Batch, texts: Texts) -> list[dict[str, str]]:
    """What is wrong with which row, for a table beside which the values stand."""
    return [
        {
            texts.row: f"{row.number:,}",
            texts.column: f"{name_of(problem.field, texts)} ({problem.field})",
            texts.value: batch.rows[row.number - 1].get(problem.field, ""),
            texts.problem: problem.message,
        }
        for row in batch.bad
        for problem in row.problems
    ]
