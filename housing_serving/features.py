"""The feature contract and the one implementation of every feature, in numpy alone.

Training transformers and the service both call this module; a feature is written nowhere else. Everything
is elementwise (no matrix product), so a row gives the same bits alone as within any batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
# One-dimensional arrays by column name: float64 for numerics, str (object or <U) for the category.
Columns = Mapping[str, NDArray[Any]]

NUMERIC_FEATURES = (
    "longitude",
    "latitude",
    "housing_median_age",
    "total_rooms",
    "total_bedrooms",
    "population",
    "households",
    "median_income",
)
CATEGORICAL_FEATURE = "ocean_proximity"
RAW_FEATURES = (*NUMERIC_FEATURES, CATEGORICAL_FEATURE)
# The one column that may be null: the imputer fills it.
NULLABLE_FEATURE = "total_bedrooms"
TARGET = "median_house_value"
CATEGORIES = ("<1H OCEAN", "INLAND", "ISLAND", "NEAR BAY", "NEAR OCEAN")

# Inclusive bounds; values outside are impossible, not merely unusual, and are refused in data and requests.
LIMITS: dict[str, tuple[float, float]] = {
    # California's bounding box.
    "longitude": (-124.5, -114.0),
    "latitude": (32.4, 42.1),
    "housing_median_age": (0.0, 120.0),
    "total_rooms": (1.0, 1e6),
    "total_bedrooms": (1.0, 1e6),
    "population": (1.0, 1e6),
    "households": (1.0, 1e6),
    # Tens of thousands of dollars.
    "median_income": (0.0, 100.0),
}

ROW_FEATURES = (
    "rooms_per_household",
    "population_per_household",
    "bedrooms_per_household",
    "bedrooms_per_room",
)


def row_features(columns: Columns) -> dict[str, FloatArray]:
    """The ratios of one row's own counts; null bedrooms give null ratios."""
    rooms, bedrooms = columns["total_rooms"], columns["total_bedrooms"]
    households = columns["households"]
    # IEEE results (inf, NaN) rather than warnings: impossible counts are refused before they get here.
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "rooms_per_household": rooms / households,
            "population_per_household": columns["population"] / households,
            "bedrooms_per_household": bedrooms / households,
            "bedrooms_per_room": bedrooms / rooms,
        }


def rbf_similarity(
    latitude: FloatArray, longitude: FloatArray, centers: FloatArray, gamma: float
) -> FloatArray:
    """Closeness of each row to each centre, `exp(-gamma * squared distance in degrees)`.

    Args:
        latitude: Shape (n,).
        longitude: Shape (n,).
        centers: Shape (k, 2), rows of (latitude, longitude).
        gamma: How fast the similarity fades.

    Returns:
        Shape (n, k).
    """
    north = latitude[:, np.newaxis] - centers[np.newaxis, :, 0]
    east = longitude[:, np.newaxis] - centers[np.newaxis, :, 1]
    return np.exp(-gamma * (north * north + east * east))


def round_to_float32(values: FloatArray) -> FloatArray:
    """The float64 values nearest to what float32 can hold.

    Tree libraries compare float32 features with float64 thresholds; on these values every runtime sees
    the same bits and takes the same branch.
    """
    return values.astype(np.float32).astype(np.float64)


@dataclass(frozen=True)
class FeatureSpec:
    """The fitted values that turn raw columns into a feature matrix."""

    categories: tuple[str, ...]
    # Rows of (latitude, longitude).
    cluster_centers: tuple[tuple[float, float], ...]
    gamma: float

    @cached_property
    def centers(self) -> FloatArray:
        """The cluster centres as an array of shape (k, 2)."""
        return np.asarray(self.cluster_centers, dtype=np.float64).reshape(-1, 2)

    @cached_property
    def known_categories(self) -> NDArray[np.object_]:
        """The categories as an array."""
        return np.array(self.categories, dtype=object)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the matrix columns, in order."""
        return (
            *NUMERIC_FEATURES,
            *ROW_FEATURES,
            *(f"cluster_similarity_{index}" for index in range(len(self.cluster_centers))),
            *(f"{CATEGORICAL_FEATURE}={category}" for category in self.categories),
        )

    @cached_property
    def size(self) -> int:
        """Number of matrix columns."""
        return len(NUMERIC_FEATURES) + len(ROW_FEATURES) + len(self.cluster_centers) + len(self.categories)


def feature_matrix(columns: Columns, spec: FeatureSpec) -> FloatArray:
    """The model's input, one row per block group, rounded through float32.

    Args:
        columns: The raw features, `total_bedrooms` already imputed.
        spec: The fitted values.

    Returns:
        C-contiguous float64 of shape (n, spec.size); a category unknown to `spec` is all zeros.
    """
    latitude, longitude = columns["latitude"], columns["longitude"]
    category = np.asarray(columns[CATEGORICAL_FEATURE], dtype=object)
    # Assigning to float32 rounds as `round_to_float32` does.
    matrix = np.empty((len(latitude), spec.size), dtype=np.float32)
    ratios = row_features(columns)
    for index, values in enumerate((*(columns[name] for name in NUMERIC_FEATURES), *ratios.values())):
        matrix[:, index] = values
    similarities = len(NUMERIC_FEATURES) + len(ratios)
    indicators = similarities + len(spec.cluster_centers)
    matrix[:, similarities:indicators] = rbf_similarity(latitude, longitude, spec.centers, spec.gamma)
    matrix[:, indicators:] = category[:, np.newaxis] == spec.known_categories
    return matrix.astype(np.float64)
