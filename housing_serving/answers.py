"""Answered instances: one request as it is recorded, many of them as columns."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from housing_serving.bundle import Predictions
from housing_serving.features import CATEGORICAL_FEATURE, NUMERIC_FEATURES, Columns, FloatArray

DAY_SECONDS = 86_400
FLOAT_BYTES = 8


class Answer(NamedTuple):
    """One answered request. A named tuple, because a frozen dataclass takes three times as long to make."""

    request_id: str
    # Seconds since 1970.
    answered_at: float
    latency_seconds: float
    model_version: str
    # Of the intervals.
    level: float
    # The raw features as sent, null bedrooms as NaN.
    columns: Columns
    predictions: Predictions


@dataclass(frozen=True)
class AnswerBatch:
    """Columns of equal length, one element per instance."""

    request_id: NDArray[np.object_]
    # Position within the request.
    instance: NDArray[np.int32]
    answered_at: FloatArray
    latency_seconds: FloatArray
    model_version: NDArray[np.object_]
    level: FloatArray
    columns: Columns
    price: FloatArray
    lower: FloatArray
    upper: FloatArray

    def __len__(self) -> int:
        return len(self.price)

    def by_day(self) -> Iterator[tuple[date, "AnswerBatch"]]:
        """The same rows, those of each UTC day apart."""
        days = self.answered_at // DAY_SECONDS
        for day in np.unique(days).tolist():
            chosen = days == day
            moment = datetime.fromtimestamp(day * DAY_SECONDS, UTC)
            yield moment.date(), self if chosen.all() else self.part(chosen)

    def part(self, chosen: slice | NDArray[np.bool_]) -> "AnswerBatch":
        """Some of the rows."""
        arrays = {name: value[chosen] for name, value in vars(self).items() if name != "columns"}
        return AnswerBatch(columns={name: values[chosen] for name, values in self.columns.items()}, **arrays)


class AnswerColumns:
    """Answers one after the other, kept as columns.

    As objects, a dozen arrays each, they would be ten times as large, and a thread that makes files of them
    would fetch every one from the processor that made it, with the interpreter's lock in its hands.
    """

    def __init__(self) -> None:
        # Per answer.
        self._request_ids: list[str] = []
        self._sizes = array("q")
        self._answered_at = array("d")
        self._latency_seconds = array("d")
        self._versions: list[str] = []
        self._levels = array("d")
        # Per answer its columns one after the other: the numeric features, price, lower and upper.
        self._numbers = bytearray()
        # Per instance.
        self._categories: list[str] = []

    def __len__(self) -> int:
        """Their instances."""
        return len(self._categories)

    def add(self, answer: Answer) -> None:
        """Add an answer; nothing of it is added where this raises.

        Raises:
            KeyError: a feature is missing.
            ValueError: its columns have different lengths.
        """
        columns = [answer.columns[name].tobytes() for name in NUMERIC_FEATURES]
        columns += [values.tobytes() for values in answer.predictions]
        numbers = b"".join(columns)
        categories = answer.columns[CATEGORICAL_FEATURE].tolist()
        if len(numbers) != len(columns) * FLOAT_BYTES * len(categories):
            raise ValueError("an answer's columns have different lengths")
        self._request_ids.append(answer.request_id)
        self._sizes.append(len(categories))
        self._answered_at.append(answer.answered_at)
        self._latency_seconds.append(answer.latency_seconds)
        self._versions.append(answer.model_version)
        self._levels.append(answer.level)
        self._numbers += numbers
        self._categories += categories

    def batch(self) -> AnswerBatch:
        """The instances of all answers, in their order; nothing can be added afterwards."""
        sizes = np.array(self._sizes)
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        instance = np.arange(len(starts)) - starts
        names = (*NUMERIC_FEATURES, *Predictions._fields)
        numbers = np.frombuffer(self._numbers)
        places = len(names) * starts + instance
        rows = np.repeat(sizes, sizes)
        columns = {name: numbers[places + number * rows] for number, name in enumerate(names)}
        ends = {name: columns.pop(name) for name in Predictions._fields}
        return AnswerBatch(
            request_id=np.repeat(np.array(self._request_ids, dtype=object), sizes),
            instance=instance.astype(np.int32),
            answered_at=np.repeat(self._answered_at, sizes),
            latency_seconds=np.repeat(self._latency_seconds, sizes),
            model_version=np.repeat(np.array(self._versions, dtype=object), sizes),
            level=np.repeat(self._levels, sizes),
            columns=columns | {CATEGORICAL_FEATURE: np.array(self._categories, dtype=object)},
            **ends,
        )
