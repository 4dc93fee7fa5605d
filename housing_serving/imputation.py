"""Filling null `total_bedrooms` with what training fitted: numpy and a compiled model, nothing pickled.

Training uses the same functions for the same arithmetic, so an imputed row is imputed alike on both sides.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from housing_serving.features import NULLABLE_FEATURE, Columns, FloatArray, round_to_float32, row_features

# The target is never among them: it does not exist when a price is asked for.
IMPUTER_INPUTS = (
    "longitude",
    "latitude",
    "housing_median_age",
    "total_rooms",
    "population",
    "households",
    "median_income",
    "rooms_per_household",
    "population_per_household",
)
# Rows whose distances to the whole reference are in memory at once (64 x 16,000 doubles = 8 MB).
NEIGHBOUR_CHUNK = 64


def imputer_matrix(columns: Columns) -> FloatArray:
    """The imputer's input, C-contiguous float64 of shape (n, 9), rounded through float32."""
    known = {**columns, **row_features(columns)}
    return round_to_float32(np.column_stack([known[name] for name in IMPUTER_INPUTS]))


def whole_bedrooms(values: FloatArray) -> FloatArray:
    """Bedrooms as a census counts them: whole numbers of at least one."""
    return np.maximum(np.rint(values), 1.0)


def neighbours_mean(
    matrix: FloatArray,
    *,
    reference: FloatArray,
    values: FloatArray,
    mean: FloatArray,
    scale: FloatArray,
    k: int,
) -> FloatArray:
    """The plain mean of the k nearest reference rows' values.

    Args:
        matrix: Rows to answer for, shape (n, 7), as `imputer_matrix` gives them.
        reference: Training rows, shape (m, 7), already standardised with `mean` and `scale`.
        values: The training rows' bedrooms, shape (m,).
        mean: Per input, shape (7,).
        scale: Per input, shape (7,).
        k: Number of neighbours; of equally distant rows the first wins.
    """
    rows = (matrix - mean) / scale
    answers = np.empty(len(rows), dtype=np.float64)
    for start in range(0, len(rows), NEIGHBOUR_CHUNK):
        distances = _squared_distances(rows[start : start + NEIGHBOUR_CHUNK], reference)
        for offset, row in enumerate(distances):
            answers[start + offset] = values[_nearest(row, k)].mean()
    return answers


def _squared_distances(rows: FloatArray, reference: FloatArray) -> FloatArray:
    # Summed column by column, not as a matrix product: its bits would depend on the number of rows.
    total = np.zeros((len(rows), len(reference)), dtype=np.float64)
    for column in range(reference.shape[1]):
        difference = rows[:, column, np.newaxis] - reference[np.newaxis, :, column]
        total += difference * difference
    return total


def _nearest(distances: FloatArray, k: int) -> NDArray[np.intp]:
    # Partitioning first makes the stable sort one of a few rows instead of all of them.
    furthest = np.partition(distances, k - 1)[k - 1]
    candidates = np.flatnonzero(distances <= furthest)
    order = np.argsort(distances[candidates], kind="stable")
    return candidates[order[:k]]


class Imputer(Protocol):
    """Estimates `total_bedrooms` of rows where it is null; not yet rounded to whole bedrooms."""

    def estimate(self, columns: Columns) -> FloatArray:
        """One estimate per row."""


@dataclass(frozen=True)
class ConstantImputer:
    """The same value for every row (median or mean of the training rows)."""

    value: float

    def estimate(self, columns: Columns) -> FloatArray:
        """The constant, once per row."""
        return np.full(len(columns[NULLABLE_FEATURE]), self.value, dtype=np.float64)


@dataclass(frozen=True)
class NeighboursImputer:
    """The mean of the most similar training rows."""

    reference: FloatArray
    values: FloatArray
    mean: FloatArray
    scale: FloatArray
    k: int

    def estimate(self, columns: Columns) -> FloatArray:
        """The mean of each row's `k` nearest training rows."""
        return neighbours_mean(
            imputer_matrix(columns),
            reference=self.reference,
            values=self.values,
            mean=self.mean,
            scale=self.scale,
            k=self.k,
        )


@dataclass(frozen=True)
class CompiledImputer:
    """A compiled regression; `per_household` when it was trained on bedrooms per household."""

    # An onnxruntime session (it ships no types): input "features" (n, 7), output (n, 1), both double.
    session: Any
    per_household: bool

    def estimate(self, columns: Columns) -> FloatArray:
        """The model's answer, times the households where it was trained on the ratio."""
        (answer,) = self.session.run(None, {"features": imputer_matrix(columns)})
        estimate: FloatArray = answer[:, 0]
        return estimate * columns["households"] if self.per_household else estimate


def fill_bedrooms(columns: Columns, imputer: Imputer) -> dict[str, NDArray[Any]]:
    """A copy of the columns with null bedrooms filled; known ones are never changed."""
    filled = dict(columns)
    null = np.isnan(columns[NULLABLE_FEATURE])
    if not null.any():
        return filled
    bedrooms = columns[NULLABLE_FEATURE].copy()
    missing = {name: values[null] for name, values in columns.items()}
    bedrooms[null] = whole_bedrooms(imputer.estimate(missing))
    filled[NULLABLE_FEATURE] = bedrooms
    return filled
