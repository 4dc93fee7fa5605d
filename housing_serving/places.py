"""What follows from a place alone, remembered: places are published to the hundredth of a degree, so most are
asked for again and again, and a look-up costs a tenth of finding out."""

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
Place = tuple[float, float]

# A few megabytes; where more are asked for, all are forgotten and found out again.
MAX_PLACES = 20_000
# So many at most are found out before they are asked for.
MOST_LEARNED = MAX_PLACES * 3 // 4
# Requests have no more rows; a table of more is not worth remembering.
MAX_ROWS = 1_000


class _Told(NamedTuple):
    """Each place's row; a row is written before its place is entered, and never after."""

    slots: dict[Place, int]
    rows: Float32Array


class PlaceMemory:
    """Answers of a function of places; safe to share between threads."""

    def __init__(self, describe: Callable[[FloatArray, FloatArray], Float32Array], width: int) -> None:
        """Remember nothing yet.

        Args:
            describe: From latitudes and longitudes, shape (n,), to what there is to say, shape (n, width);
                what it says of a place depends on nothing else.
            width: How much it says of each.
        """
        self._describe = describe
        self._width = width
        self._told = self._blank()
        self._adding = threading.Lock()

    def __len__(self) -> int:
        """How many places are remembered."""
        return len(self._told.slots)

    def __call__(self, latitude: FloatArray, longitude: FloatArray) -> Float32Array:
        """What `describe` says of each place, shape (n, width)."""
        if len(latitude) > MAX_ROWS:
            return self._each_once(latitude, longitude)
        told = self._told
        places = list(zip(latitude.tolist(), longitude.tolist(), strict=True))
        slots = [told.slots.get(place, -1) for place in places]
        answer = told.rows.take(slots, axis=0)
        if -1 in slots:
            unknown = [row for row, slot in enumerate(slots) if slot < 0]
            answer[unknown] = found = self._describe(latitude[unknown], longitude[unknown])
            self._remember([places[row] for row in unknown], found)
        return answer

    def learn(self, latitude: FloatArray, longitude: FloatArray) -> None:
        """Find out about places before anybody asks; of too many, an even choice, so that there is room."""
        distinct = np.unique(np.column_stack([latitude, longitude]), axis=0)
        chosen = np.ascontiguousarray(distinct[:: -(-len(distinct) // MOST_LEARNED) or 1].T)
        for start in range(0, chosen.shape[1], MAX_ROWS):
            self(*chosen[:, start : start + MAX_ROWS])

    def _each_once(self, latitude: FloatArray, longitude: FloatArray) -> Float32Array:
        """The same of a table, whose places come again and again too."""
        places = np.empty(len(latitude), dtype=np.complex128)
        places.real, places.imag = latitude, longitude
        distinct, rows = np.unique(places, return_inverse=True)
        if len(distinct) == len(places):
            return self._describe(latitude, longitude)
        return self._describe(distinct.real, distinct.imag)[rows]

    def _remember(self, places: Sequence[Place], rows: Float32Array) -> None:
        with self._adding:
            if len(self._told.slots) + len(places) > MAX_PLACES:
                # Who looks something up at this moment goes on with what there was.
                self._told = self._blank()
            slots, memory = self._told
            for place, row in zip(places, rows, strict=True):
                if place not in slots:
                    memory[len(slots)] = row
                    slots[place] = len(slots)

    def _blank(self) -> _Told:
        # Memory that is not written to is not taken either.
        return _Told({}, np.empty((MAX_PLACES, self._width), dtype=np.float32))
