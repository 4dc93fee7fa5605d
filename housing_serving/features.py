"""The feature contract and the one implementation of every feature, in numpy alone.

Training transformers and the service both call this module; a feature is written nowhere else. Everything
is elementwise (no matrix product), so a row gives the same bits alone as within any batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing_serving.neighbours import (
    ALIKE_FEATURES,
    LONGITUDE_SCALE,
    NEAREST,
    TRAITS,
    Nearest,
    Neighbourhood,
    closeness,
    comparable,
)
from housing_serving.neighbours import FEATURES as NEIGHBOUR_FEATURES
from housing_serving.places import PlaceMemory

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


def rotated_coordinates(latitude: FloatArray, longitude: FloatArray, directions: FloatArray) -> FloatArray:
    """How far each row lies in other directions than north and east, along which alone trees can cut.

    Args:
        latitude: Shape (n,).
        longitude: Shape (n,).
        directions: Cosine and sine of each direction's angle, shape (2, r).

    Returns:
        Degrees, shape (n, r).
    """
    along: FloatArray = latitude[:, np.newaxis] * directions[0] + longitude[:, np.newaxis] * directions[1]
    return along


def distances(latitude: FloatArray, longitude: FloatArray, places: FloatArray) -> FloatArray:
    """Degrees of latitude from each row to each place, shape (n, len(places)).

    Args:
        latitude: Shape (n,).
        longitude: Shape (n,).
        places: Rows of (latitude, longitude).
    """
    north = latitude[:, np.newaxis] - places[np.newaxis, :, 0]
    east = (longitude[:, np.newaxis] - places[np.newaxis, :, 1]) * LONGITUDE_SCALE
    return np.sqrt(north * north + east * east)


@dataclass(frozen=True)
class FeatureSpec:
    """The fitted values that turn raw columns into a feature matrix.

    Attributes:
        categories: Known values of `ocean_proximity`.
        cluster_centers: Rows of (latitude, longitude); none for no similarities.
        gamma: Of the similarity to a centre.
        ratios: Whether the ratios within a row are features.
        rotations: Number of rotated coordinates.
        cities: Name, latitude and longitude of the places to which distances are features.
        neighbourhood: The block groups whose prices are features; None for none.
        reach: Degrees of latitude within which a few of these must be for a place to be a known one. Of any
            other place, everything that neighbours, rotated coordinates and cities tell is 0. None: without
            end.
    """

    categories: tuple[str, ...]
    cluster_centers: tuple[tuple[float, float], ...]
    gamma: float
    ratios: bool = True
    rotations: int = 0
    cities: tuple[tuple[str, float, float], ...] = ()
    neighbourhood: Neighbourhood | None = None
    reach: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What is stored: never what follows from it."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def centers(self) -> FloatArray:
        """The cluster centres as an array of shape (k, 2)."""
        return np.asarray(self.cluster_centers, dtype=np.float64).reshape(-1, 2)

    @cached_property
    def places(self) -> FloatArray:
        """The cities as an array of shape (c, 2)."""
        return np.array([place for _, *place in self.cities], dtype=np.float64).reshape(-1, 2)

    @cached_property
    def directions(self) -> FloatArray:
        """Those of the rotated coordinates, evenly between north and south, shape (2, rotations)."""
        angles = np.arange(1, self.rotations + 1) * np.pi / (self.rotations + 1)
        return np.vstack([np.cos(angles), np.sin(angles)])

    @cached_property
    def known_categories(self) -> NDArray[np.object_]:
        """The categories as an array."""
        return np.array(self.categories, dtype=object)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the matrix columns, in order."""
        return (
            *NUMERIC_FEATURES,
            *(ROW_FEATURES if self.ratios else ()),
            *(f"cluster_similarity_{index}" for index in range(len(self.cluster_centers))),
            *(f"{CATEGORICAL_FEATURE}={category}" for category in self.categories),
            *(f"rotated_coordinate_{index}" for index in range(self.rotations)),
            *(f"distance_{name}" for name, *_ in self.cities),
            *((*NEIGHBOUR_FEATURES, *ALIKE_FEATURES) if self.neighbourhood is not None else ()),
        )

    @cached_property
    def size(self) -> int:
        """Number of matrix columns."""
        return len(self.names)

    @cached_property
    def place_size(self) -> int:
        """Number of the columns that follow from the place alone."""
        others = len(NUMERIC_FEATURES) + len(ROW_FEATURES) * self.ratios + len(self.categories)
        return self.size - others - len(ALIKE_FEATURES) * (self.neighbourhood is not None)

    @cached_property
    def remembered(self) -> PlaceMemory:
        """What there is to know of places that were asked for before."""
        compared = 0 if self.neighbourhood is None else self.neighbourhood.compared
        return PlaceMemory(
            lambda latitude, longitude: describe_places(latitude, longitude, self),
            self.place_size + 2 * compared,
        )


def describe_places(
    latitude: FloatArray, longitude: FloatArray, spec: FeatureSpec, nearest: Nearest | None = None
) -> NDArray[np.float32]:
    """What follows from the place alone, rounded to float32.

    Args:
        latitude: Shape (n,).
        longitude: Shape (n,).
        spec: The fitted values.
        nearest: The rows' neighbours, where training has looked for them itself.

    Returns:
        The features, `spec.place_size` columns; with a neighbourhood also the positions of those that rows
        are compared with, and their closeness, which is 0 where the place is beyond reach of them.
    """
    blocks = [
        rbf_similarity(latitude, longitude, spec.centers, spec.gamma),
        rotated_coordinates(latitude, longitude, spec.directions),
        distances(latitude, longitude, spec.places),
    ]
    if (around := spec.neighbourhood) is not None:
        found, distance = around.nearest(latitude, longitude) if nearest is None else nearest
        near = slice(around.compared)
        positions = found[:, near].astype(np.float64)
        blocks += [around.describe(found, distance), positions, closeness(distance[:, near])]
    # Rounds as `round_to_float32` does.
    told = np.hstack(blocks).astype(np.float32)
    if around is not None and spec.reach is not None:
        unknown = distance[:, : NEAREST[0]][:, -1] > spec.reach
        told[unknown, len(spec.cluster_centers) : spec.place_size] = 0.0
        told[unknown, -around.compared :] = 0.0
    return told


def feature_matrix(columns: Columns, spec: FeatureSpec, nearest: Nearest | None = None) -> FloatArray:
    """The model's input, one row per block group, rounded through float32.

    Args:
        columns: The raw features, `total_bedrooms` already imputed.
        spec: The fitted values.
        nearest: The rows' neighbours, where training has looked for them itself.

    Returns:
        C-contiguous float64 of shape (n, spec.size); a category unknown to `spec` is all zeros.
    """
    latitude, longitude = columns["latitude"], columns["longitude"]
    category = np.asarray(columns[CATEGORICAL_FEATURE], dtype=object)
    matrix = np.empty((len(latitude), spec.size), dtype=np.float32)
    ratios = row_features(columns)
    single = [columns[name] for name in NUMERIC_FEATURES]
    if spec.ratios:
        single += ratios.values()
    matrix[:, : len(single)] = np.array(single).T
    if nearest is None:
        place = spec.remembered(latitude, longitude)
    else:
        place = describe_places(latitude, longitude, spec, nearest)
    similarities = len(spec.cluster_centers)
    start = len(single)
    middle = start + similarities
    end = middle + len(spec.categories)
    last = end + spec.place_size - similarities
    matrix[:, start:middle] = place[:, :similarities]
    matrix[:, middle:end] = category[:, np.newaxis] == spec.known_categories
    matrix[:, end:last] = place[:, similarities : spec.place_size]
    if (around := spec.neighbourhood) is not None:
        near = spec.place_size + around.compared
        positions = place[:, spec.place_size : near].astype(np.int64)
        close = place[:, near:].astype(np.float64)
        traits = comparable([ratios[name] if name in ratios else columns[name] for name in TRAITS])
        matrix[:, last:] = around.ask_alike(positions, close, traits)
    return matrix.astype(np.float64)
