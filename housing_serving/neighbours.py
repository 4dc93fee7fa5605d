"""The block groups nearest to a place, and what their prices tell about it: exact, in numpy alone.

A search tree would need a library as large as the rest of the service. Block groups stand still, so the
plane is cut into small cells, and each cell remembers which block groups can be among the nearest of any
place within it; the nearest of one place are then found among some dozens instead of all.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Cell = tuple[int, int]
# Positions of places, and where these are.
Candidates = tuple[IntArray, FloatArray, FloatArray]
# Positions of the places nearest to each row, the nearest first, and how far they are in degrees of latitude.
Nearest = tuple[IntArray, FloatArray]

# So many of the nearest are looked at, for features that are more and more of the surroundings'.
NEAREST = (5, 15, 40)
# What is known of each block group beside its price.
TRAITS = (
    "median_income",
    "housing_median_age",
    "rooms_per_household",
    "population_per_household",
    "bedrooms_per_room",
)
FEATURES = (
    *(
        f"{name}_{number}"
        for number in NEAREST
        for name in ("nearby_price", "nearby_price_per_income", "nearby_distance")
    ),
    *(f"nearby_median_price_{number}" for number in NEAREST[:-1]),
    *(f"nearby_{trait}_{number}" for number in NEAREST[:-1] for trait in TRAITS),
)
# What a row's own traits tell of those nearby; everything else here follows from its place alone.
ALIKE_FEATURES = ("nearby_price_of_alike", "nearby_alike")
# So many of the nearest are compared with the row.
COMPARED = 25
# By how much a trait may differ for two block groups to be alike still: of the logarithm of all but the age,
# which is in years.
ALIKE = {
    "median_income": 0.3,
    "housing_median_age": 12.0,
    "rooms_per_household": 0.3,
    "population_per_household": 0.3,
    "bedrooms_per_room": 0.3,
}
DIFFERENCES = np.array([[ALIKE[trait]] for trait in TRAITS])
INCOME, AGE = TRAITS.index("median_income"), TRAITS.index("housing_median_age")
# What the least alike count, so that there is always someone to ask.
LEAST_ALIKE = 1e-6
# Positions are remembered as float32, which holds no larger whole numbers exactly.
MOST_BLOCK_GROUPS = 2**24
# Degrees that are added to every distance: prices at the very same place are not the only ones to count.
NEAR = 0.01
# The least published income, in tens of thousands of dollars: prices are divided by no less.
LEAST_INCOME = 0.4999

# How much shorter a degree of longitude is than one of latitude in the middle of California.
LONGITUDE_SCALE = 0.8
# Of latitude.
KM_PER_DEGREE = 111.2
# Degrees; about 2 km. Smaller cells have fewer candidates, and more of them are to be remembered.
CELL = 0.02
# The cells of a region choose their candidates among those of the region, a twentieth of all.
CELLS_PER_REGION = 16
# A candidate at the very edge must not be lost to rounding.
SLACK = 1.0 + 1e-9
# About 5 MB; where more are asked for, all are forgotten and looked up again.
MAX_CELLS = 2_000
# Rows that are worked on at once, for the sake of memory.
CHUNK = 4_096


class NeighbourIndex:
    """Finds the `k` nearest of fixed places, by degrees of latitude."""

    def __init__(self, latitude: FloatArray, longitude: FloatArray, k: int) -> None:
        """Index places.

        Args:
            latitude: Of the places, shape (m,).
            longitude: Of the places, shape (m,).
            k: How many are asked for, at most m.

        Raises:
            ValueError: there are fewer than k places.
        """
        if not 1 <= k <= len(latitude):
            raise ValueError(f"{len(latitude)} places have no {k} nearest: give more rows or a smaller k")
        self.k = k
        self._north = np.ascontiguousarray(latitude, dtype=np.float64)
        self._east = np.asarray(longitude, dtype=np.float64) * LONGITUDE_SCALE
        self._everyone = np.arange(len(latitude)), self._north, self._east
        self._cells: dict[Cell, Candidates] = {}
        self._regions: dict[Cell, Candidates] = {}

    def nearest(self, latitude: FloatArray, longitude: FloatArray) -> Nearest:
        """The nearest places of each row, and how far they are.

        Args:
            latitude: Shape (n,).
            longitude: Shape (n,).

        Returns:
            Positions of the places, the nearest first and of equally far ones the first, and their
            distances in degrees of latitude; both of shape (n, k).
        """
        north, east = latitude, longitude * LONGITUDE_SCALE
        if len(north) == 1:
            return self._nearest_to_one(float(north[0]), float(east[0]))
        found = np.empty((len(north), self.k), dtype=np.int64)
        squared = np.empty((len(north), self.k), dtype=np.float64)
        for cell, members in _members(north, east):
            candidates, theirs_north, theirs_east = self._candidates(cell)
            up = north[members, np.newaxis] - theirs_north
            right = east[members, np.newaxis] - theirs_east
            away = up * up + right * right
            order = np.argsort(away, axis=1, kind="stable")[:, : self.k]
            found[members] = candidates[order]
            squared[members] = np.take_along_axis(away, order, axis=1)
        return found, np.sqrt(squared)

    def _nearest_to_one(self, north: float, east: float) -> Nearest:
        """The same of one place, with half the overhead; the arithmetic is the same to the bit."""
        candidates, theirs_north, theirs_east = self._candidates((floor(north / CELL), floor(east / CELL)))
        up, right = north - theirs_north, east - theirs_east
        squared = up * up + right * right
        order = squared.argsort(kind="stable")[: self.k]
        return candidates[order][np.newaxis], np.sqrt(squared[order])[np.newaxis]

    def _candidates(self, cell: Cell) -> Candidates:
        known = self._cells.get(cell)
        if known is None:
            region = cell[0] // CELLS_PER_REGION, cell[1] // CELLS_PER_REGION
            around = self._regions.get(region)
            if around is None:
                # There are no more than the state has room for: nobody needs to forget them.
                around = self._regions[region] = self._within(region, CELL * CELLS_PER_REGION, self._everyone)
            known = self._within(cell, CELL, around)
            if len(self._cells) >= MAX_CELLS:
                self._cells.clear()
            self._cells[cell] = known
        return known

    def _within(self, cell: Cell, size: float, among: Candidates) -> Candidates:
        """Who can be among the nearest of any place in a square, of those who can be around it."""
        positions, north, east = among
        up, right = north - (cell[0] + 0.5) * size, east - (cell[1] + 0.5) * size
        distance = np.sqrt(up * up + right * right)
        # From any place of the square to its centre, and back.
        furthest = np.partition(distance, self.k - 1)[self.k - 1] + 2 * size * np.sqrt(0.5)
        chosen = np.flatnonzero(distance <= furthest * SLACK)
        return positions[chosen], north[chosen], east[chosen]


def _members(north: FloatArray, east: FloatArray) -> Iterator[tuple[Cell, IntArray]]:
    """Each cell that occurs, with the positions of its rows, a bounded number at a time."""
    cells = np.floor(np.column_stack([north, east]) / CELL).astype(np.int64)
    order = np.lexsort((cells[:, 1], cells[:, 0]))
    changes = np.flatnonzero((np.diff(cells[order], axis=0) != 0).any(axis=1)) + 1
    for start, stop in itertools.pairwise([0, *changes.tolist(), len(order)]):
        for first in range(start, stop, CHUNK):
            row, column = cells[order[start]].tolist()
            yield (row, column), order[first : min(first + CHUNK, stop)]


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Block groups with known prices, and what those around a place say about it.

    Attributes:
        latitude: Of the block groups, shape (m,).
        longitude: Of the block groups, shape (m,).
        price: In dollars, shape (m,).
        traits: What else is known of them, shape (len(TRAITS), m).
    """

    latitude: FloatArray
    longitude: FloatArray
    price: FloatArray
    traits: FloatArray

    def __post_init__(self) -> None:
        """Refuse a neighbourhood of one, who has no neighbour, and one of more than can be remembered."""
        if not 2 <= len(self.price) <= MOST_BLOCK_GROUPS:
            raise ValueError(
                f"a neighbourhood needs two block groups or more, and at most {MOST_BLOCK_GROUPS:,}"
            )

    def __getstate__(self) -> dict[str, Any]:
        """What is stored: never what follows from it."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def k(self) -> int:
        """How many neighbours a place has; as many as each of the block groups itself."""
        return min(NEAREST[-1], len(self.price) - 1)

    @cached_property
    def index(self) -> NeighbourIndex:
        """Where they are."""
        return NeighbourIndex(self.latitude, self.longitude, self.k)

    def nearest(self, latitude: FloatArray, longitude: FloatArray) -> Nearest:
        """The block groups around each place, shapes (n, k)."""
        return self.index.nearest(latitude, longitude)

    def nearest_of_members(self) -> Nearest:
        """The others around each of these block groups, shapes (m, k).

        A model must learn from these: its own price would give each row away.
        """
        with_itself = NeighbourIndex(self.latitude, self.longitude, self.k + 1)
        found, distance = with_itself.nearest(self.latitude, self.longitude)
        own = found == np.arange(len(found))[:, np.newaxis]
        # Where more than k others are at the very same place, it is not among them.
        own[~own.any(axis=1), -1] = True
        shape = (len(found), self.k)
        return found[~own].reshape(shape), distance[~own].reshape(shape)

    def describe(self, found: IntArray, distance: FloatArray) -> FloatArray:
        """What the block groups around each place say of it, shape (n, len(FEATURES)).

        Args:
            found: Positions of the place's neighbours, the nearest first, shape (n, k).
            distance: How far they are, in degrees of latitude, shape (n, k).
        """
        price = self.price[found]
        per_income = price / self._income[found]
        weight = closeness(distance)
        weighted = np.empty((3, *found.shape))
        weighted[0] = weight
        np.multiply(price, weight, out=weighted[1])
        np.multiply(per_income, weight, out=weighted[2])
        traits = self.traits[:, found[:, : NEAREST[-2]]]
        answer = np.empty((len(found), len(FEATURES)))
        column = 0
        for number in NEAREST:
            total, prices, ratios = weighted[:, :, :number].sum(axis=2)
            answer[:, column] = prices / total
            answer[:, column + 1] = ratios / total
            answer[:, column + 2] = distance[:, :number][:, -1]
            column += 3
        for number in NEAREST[:-1]:
            some = np.sort(price[:, :number], axis=1)
            answer[:, column] = some[:, some.shape[1] // 2]
            column += 1
        for number in NEAREST[:-1]:
            means = traits[:, :, :number].sum(axis=2) / min(number, found.shape[1])
            answer[:, column : column + len(TRAITS)] = means.T
            column += len(TRAITS)
        return answer

    def ask_alike(self, found: IntArray, close: FloatArray, traits: FloatArray) -> FloatArray:
        """What those nearby cost who are like each row, and how many these are, shape (n, 2).

        Gaussian weights of how much the traits differ, times closeness: a regression with a kernel over
        place and traits (Nadaraya 1964, Watson 1964).

        Args:
            found: Positions of the row's neighbours, shape (n, compared).
            close: Their closeness, shape (n, compared); 0 for those who do not count.
            traits: Of the rows, on the scale of `comparable`, shape (len(TRAITS), n).
        """
        answer = np.empty((len(found), len(ALIKE_FEATURES)))
        for start in range(0, len(found), CHUNK):
            rows = slice(start, start + CHUNK)
            known = self._known.take(found[rows], axis=1)
            price, differ = known[-1], known[:-1]
            differ -= traits[:, rows, np.newaxis]
            differ *= differ
            # Trait after trait: adding up along the last axis would be one short sum per neighbour.
            weight = np.exp(-0.5 * differ.sum(axis=0))
            weight += LEAST_ALIKE
            weight *= close[rows]
            answer[rows, 1] = total = weight.sum(axis=1)
            # Of nobody at all, the mean is 0 as well.
            total[total == 0.0] = 1.0
            weight *= price
            answer[rows, 0] = weight.sum(axis=1) / total
        return answer

    @property
    def compared(self) -> int:
        """How many of a row's neighbours are compared with it."""
        return min(COMPARED, self.k)

    @cached_property
    def _known(self) -> FloatArray:
        """What rows are compared with, and prices last: shape (len(TRAITS) + 1, m)."""
        return np.vstack([comparable(self.traits), self.price])

    @cached_property
    def _income(self) -> FloatArray:
        income: FloatArray = np.maximum(self.traits[INCOME], LEAST_INCOME)
        return income


def closeness(distance: FloatArray) -> FloatArray:
    """What neighbours count by, from how far they are in degrees of latitude."""
    return 1.0 / (distance + NEAR)


def comparable(traits: Sequence[FloatArray] | FloatArray) -> FloatArray:
    """Traits on scales on which a difference of one is as large as that of two who are barely alike.

    Args:
        traits: An array of shape (n,) for each of `TRAITS`.

    Returns:
        Shape (len(TRAITS), n).
    """
    answer = np.array(traits)
    np.maximum(answer[INCOME], LEAST_INCOME, out=answer[INCOME])
    answer[AGE] = 1.0
    np.log(answer, out=answer)
    answer[AGE] = traits[AGE]
    answer /= DIFFERENCES
    return answer
