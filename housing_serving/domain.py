"""Where a model has no experience: values it can price, but never saw the like of in training."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from housing_serving.features import CATEGORICAL_FEATURE, CATEGORIES, NUMERIC_FEATURES, Columns
from housing_serving.manifest import BundleManifest


@dataclass(frozen=True)
class Departure:
    """One value of one row that lies outside what the model was trained on."""

    row: int
    field: str
    code: Literal["below_training_range", "above_training_range", "unseen_category"]
    message: str


class TrainingDomain:
    """The ranges and categories of a model's training rows."""

    def __init__(self, manifest: BundleManifest) -> None:
        self._lowest = np.array([[feature.minimum] for feature in manifest.features])
        self._highest = np.array([[feature.maximum] for feature in manifest.features])
        self._unseen = frozenset(CATEGORIES) - frozenset(manifest.categories)

    def departures(self, columns: Columns) -> list[Departure]:
        """What is unusual about these rows, by row and in the order of the features; null is not."""
        values = np.array([columns[name] for name in NUMERIC_FEATURES])
        outside = (values < self._lowest) | (values > self._highest)
        found = (
            [
                self._outside(int(feature), int(row), float(values[feature, row]))
                # Transposed, so that they come row by row.
                for row, feature in np.argwhere(outside.T)
            ]
            if outside.any()
            else []
        )
        if self._unseen:
            found += [
                Departure(row, CATEGORICAL_FEATURE, "unseen_category", f"No training row was {category}.")
                for row, category in enumerate(columns[CATEGORICAL_FEATURE])
                if category in self._unseen
            ]
        return found

    def _outside(self, feature: int, row: int, value: float) -> Departure:
        name = NUMERIC_FEATURES[feature]
        lowest, highest = float(self._lowest[feature, 0]), float(self._highest[feature, 0])
        if value < lowest:
            message = f"{value:g} is below {lowest:g}, the lowest in training."
            return Departure(row, name, "below_training_range", message)
        return Departure(
            row, name, "above_training_range", f"{value:g} is above {highest:g}, the highest in training."
        )
