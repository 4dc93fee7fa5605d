"""Answered instances: one request as it is recorded, many of them as columns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from housing_serving.bundle import Predictions
from housing_serving.features import RAW_FEATURES, Columns, FloatArray

DAY_SECONDS = 86_400


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

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Self:
        """The instances of one or more answers, in their order."""
        sizes = np.array([len(answer.predictions.price) for answer in answers])
        starts = np.cumsum(sizes) - sizes

        def per_instance(values: list[Any], dtype: type[Any]) -> NDArray[Any]:
            return np.repeat(np.array(values, dtype=dtype), sizes)

        return cls(
            request_id=per_instance([answer.request_id for answer in answers], object),
            instance=(np.arange(sizes.sum()) - np.repeat(starts, sizes)).astype(np.int32),
            answered_at=per_instance([answer.answered_at for answer in answers], np.float64),
            latency_seconds=per_instance([answer.latency_seconds for answer in answers], np.float64),
            model_version=per_instance([answer.model_version for answer in answers], object),
            level=per_instance([answer.level for answer in answers], np.float64),
            columns={
                name: np.concatenate([answer.columns[name] for answer in answers]) for name in RAW_FEATURES
            },
            price=np.concatenate([answer.predictions.price for answer in answers]),
            lower=np.concatenate([answer.predictions.lower for answer in answers]),
            upper=np.concatenate([answer.predictions.upper for answer in answers]),
        )

    def __len__(self) -> int:
        return len(self.price)

    def by_day(self) -> Iterator[tuple[date, "AnswerBatch"]]:
        """The same rows, those of each UTC day apart."""
        days = self.answered_at // DAY_SECONDS
        for day in np.unique(days).tolist():
            chosen = days == day
            moment = datetime.fromtimestamp(day * DAY_SECONDS, UTC)
            yield moment.date(), self if chosen.all() else self._where(chosen)

    def _where(self, chosen: NDArray[np.bool_]) -> "AnswerBatch":
        arrays = {name: value[chosen] for name, value in vars(self).items() if name != "columns"}
        return AnswerBatch(columns={name: values[chosen] for name, values in self.columns.items()}, **arrays)
