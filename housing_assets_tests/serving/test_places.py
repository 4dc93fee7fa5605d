"""What is remembered of places: the same answers, from fewer questions, by many threads, within bounds."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from housing_serving import places
from housing_serving.places import FloatArray, PlaceMemory


def describe(
    latitude: FloatArray, longitude: FloatArray
) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    return np.column_stack([latitude + longitude, latitude * longitude, latitude]).astype(np.float32)


def asked(rows: int, seed: int = 1) -> tuple[FloatArray, FloatArray]:
    random = np.random.default_rng(seed)
    return random.uniform(33, 42, rows).round(2), random.uniform(-124, -114, rows).round(2)


def test_a_place_is_described_once_and_answered_alike_ever_after() -> None:
    described: list[int] = []

    def counted(latitude: FloatArray, longitude: FloatArray) -> places.Float32Array:
        described.append(len(latitude))
        return describe(latitude, longitude)

    memory = PlaceMemory(counted, 3)
    latitude, longitude = asked(300)
    expected = describe(latitude, longitude)
    for start, unknown in ((0, 80), (0, 0), (60, 60), (20, 0), (0, 0)):
        rows = slice(start, start + 80)
        before = sum(described)
        assert memory(latitude[rows], longitude[rows]).tobytes() == expected[rows].tobytes()
        assert sum(described) - before == unknown
    for row in range(80):
        alone = memory(latitude[row : row + 1], longitude[row : row + 1])
        assert alone.tobytes() == expected[row].tobytes()
    assert len(memory) == 140


def test_places_are_known_before_they_are_asked_for() -> None:
    described: list[int] = []

    def counted(latitude: FloatArray, longitude: FloatArray) -> places.Float32Array:
        described.append(len(latitude))
        return describe(latitude, longitude)

    memory = PlaceMemory(counted, 3)
    latitude, longitude = asked(2_500)
    memory.learn(np.tile(latitude, 2), np.tile(longitude, 2))
    distinct = len(set(zip(latitude.tolist(), longitude.tolist(), strict=True)))
    assert len(memory) == sum(described) == distinct
    for row in range(0, 2_500, 50):
        one = slice(row, row + 1)
        expected = describe(latitude[one], longitude[one])
        assert memory(latitude[one], longitude[one]).tobytes() == expected.tobytes()
    assert sum(described) == distinct


def test_of_too_many_places_an_even_choice_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MOST_LEARNED", 100)
    memory = PlaceMemory(describe, 3)
    memory.learn(*asked(350))
    assert len(memory) == 88
    PlaceMemory(describe, 3).learn(np.empty(0), np.empty(0))


def test_a_place_that_comes_twice_in_a_request_is_remembered_once() -> None:
    memory = PlaceMemory(describe, 3)
    latitude, longitude = np.array([34.0, 34.0, 35.0]), np.array([-118.0, -118.0, -119.0])
    assert memory(latitude, longitude).tobytes() == describe(latitude, longitude).tobytes()
    assert len(memory) == 2


def test_no_more_is_remembered_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_PLACES", 100)
    monkeypatch.setattr(places, "MAX_ROWS", 80)
    memory = PlaceMemory(describe, 3)
    latitude, longitude = asked(400)
    expected = describe(latitude, longitude)
    for start in range(0, 400, 50):
        rows = slice(start, start + 50)
        assert memory(latitude[rows], longitude[rows]).tobytes() == expected[rows].tobytes()
        assert 0 < len(memory) <= 100
    # A table is not a request: it would push out what requests ask for.
    remembered = len(memory)
    assert memory(latitude, longitude).tobytes() == expected.tobytes()
    assert len(memory) == remembered


def test_threads_that_ask_at_once_are_all_told_right(monkeypatch: pytest.MonkeyPatch) -> None:
    # Forgotten again and again while others look up.
    monkeypatch.setattr(places, "MAX_PLACES", 150)
    memory = PlaceMemory(describe, 3)
    latitude, longitude = asked(300)
    expected = describe(latitude, longitude)

    def ask(seed: int) -> bool:
        random = np.random.default_rng(seed)
        for _ in range(200):
            rows = random.integers(0, 300, 20)
            if memory(latitude[rows], longitude[rows]).tobytes() != expected[rows].tobytes():
                return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(8)))


def test_a_place_that_comes_again_in_a_table_is_described_once() -> None:
    described: list[int] = []

    def counted(latitude: FloatArray, longitude: FloatArray) -> places.Float32Array:
        described.append(len(latitude))
        return describe(latitude, longitude)

    latitude, longitude = asked(300)
    rows = np.random.default_rng(2).integers(0, 300, 2_000)
    told = PlaceMemory(counted, 3)(latitude[rows], longitude[rows])
    assert told.tobytes() == describe(latitude[rows], longitude[rows]).tobytes()
    assert described == [len(set(rows.tolist()))]
