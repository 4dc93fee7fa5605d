"""What is typical where: the block groups of 1990, put together by twentieths of a degree."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from housing_serving.features import CATEGORICAL_FEATURE, NULLABLE_FEATURE, NUMERIC_FEATURES, TARGET
from housing_serving.neighbours import LONGITUDE_SCALE

FILE = "places.csv"

Values = Mapping[str, float | str | None]


@dataclass(frozen=True)
class Places:
    """Medians of the block groups of each place.

    Attributes:
        longitude: Degrees, shape (n,).
        latitude: Degrees, shape (n,).
        price: Median published price, dollars of 1990, shape (n,).
        typical: Every value that a price is asked for by, one mapping a place.
    """

    longitude: NDArray[np.float64]
    latitude: NDArray[np.float64]
    price: NDArray[np.float64]
    typical: tuple[Values, ...]

    def typical_near(self, longitude: float, latitude: float) -> Values:
        """What is typical at the known place nearest to a point."""
        east = (self.longitude - longitude) * LONGITUDE_SCALE
        return self.typical[int(np.argmin(east**2 + (self.latitude - latitude) ** 2))]


@cache
def known_places() -> Places:
    """All places of the package's file."""
    with files(__package__).joinpath(FILE).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def column(name: str) -> NDArray[np.float64]:
        return np.array([float(row[name]) for row in rows])

    return Places(
        column("longitude"), column("latitude"), column(TARGET), tuple(_typical(row) for row in rows)
    )


def _typical(row: Mapping[str, str]) -> Values:
    numbers = {name: float(row[name]) for name in NUMERIC_FEATURES if name in row}
    # The file has no bedrooms: the service estimates them better than a median of neighbours does.
    return {**numbers, NULLABLE_FEATURE: None, CATEGORICAL_FEATURE: row[CATEGORICAL_FEATURE]}
