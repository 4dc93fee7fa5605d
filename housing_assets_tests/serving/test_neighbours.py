"""The nearest block groups: exact, the same alone as in company, and ties in a fixed order."""

import numpy as np
import pytest

from housing_assets_tests.ml.block_groups import block_groups
from housing_serving import neighbours
from housing_serving.neighbours import (
    ALIKE,
    FEATURES,
    LEAST_ALIKE,
    LONGITUDE_SCALE,
    NEAR,
    NEAREST,
    TRAITS,
    Neighbourhood,
    NeighbourIndex,
    closeness,
    comparable,
)


def places(rows: int) -> tuple[np.ndarray, np.ndarray]:
    frame = block_groups(rows)
    return frame["latitude"].to_numpy(), frame["longitude"].to_numpy()


def neighbourhood(rows: int = 400) -> Neighbourhood:
    random = np.random.default_rng(5)
    latitude, longitude = places(rows)
    return Neighbourhood(
        latitude, longitude, random.uniform(1e5, 5e5, rows), random.uniform(1, 9, (len(TRAITS), rows))
    )


def test_the_nearest_are_those_of_looking_at_all_of_them() -> None:
    latitude, longitude = places(3_000)
    asked = np.random.default_rng(1).uniform((32.4, -124.5), (42.1, -114.0), (500, 2))
    found, distance = NeighbourIndex(latitude, longitude, 17).nearest(asked[:, 0], asked[:, 1])
    for row, (north, east) in enumerate(asked):
        away = np.hypot(latitude - north, (longitude - east) * LONGITUDE_SCALE)
        nearest = np.argsort(away, kind="stable")[:17]
        np.testing.assert_allclose(distance[row], away[nearest], atol=1e-12)
        np.testing.assert_allclose(away[found[row]], away[nearest], atol=1e-12)


def test_of_equally_near_ones_the_first_comes_first() -> None:
    index = NeighbourIndex(np.array([34.0, 35.0, 34.0, 34.0]), np.full(4, -118.0), 3)
    found, distance = index.nearest(np.array([34.0]), np.array([-118.0]))
    assert found.tolist() == [[0, 2, 3]]
    assert distance.tolist() == [[0.0, 0.0, 0.0]]


def test_a_row_alone_gives_the_same_bits_as_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    around = neighbourhood()
    latitude, longitude = places(300)
    batch = around.describe(*around.nearest(latitude, longitude))
    assert batch.shape == (300, len(FEATURES))
    # Nothing is remembered for long, and rows of one cell come in several parts.
    monkeypatch.setattr(neighbours, "MAX_CELLS", 3)
    monkeypatch.setattr(neighbours, "CHUNK", 2)
    fresh = neighbourhood()
    for row in range(300):
        alone = fresh.describe(*fresh.nearest(latitude[row : row + 1], longitude[row : row + 1]))
        assert alone.tobytes() == batch[row].tobytes()
    assert fresh.describe(*fresh.nearest(latitude, longitude)).tobytes() == batch.tobytes()


def test_what_neighbours_say_by_hand() -> None:
    # Three at the same place and one far away; more are asked for than there are.
    around = Neighbourhood(
        np.array([34.0, 34.0, 34.0, 36.0]),
        np.full(4, -118.0),
        np.array([100.0, 200.0, 600.0, 900.0]),
        np.array([[1.0, 2.0, 3.0, 4.0]] * len(TRAITS)),
    )
    told = dict(
        zip(FEATURES, around.describe(*around.nearest(np.array([34.0]), np.array([-118.0])))[0], strict=True)
    )
    assert around.k == 3
    for number in NEAREST:
        assert told[f"nearby_price_{number}"] == pytest.approx(300.0)
        assert told[f"nearby_price_per_income_{number}"] == pytest.approx((100 + 100 + 200) / 3)
        assert told[f"nearby_distance_{number}"] == 0.0
    assert told["nearby_median_price_5"] == 200.0
    assert told["nearby_median_income_15"] == pytest.approx(2.0)


def three_nearby() -> Neighbourhood:
    """Two at a place, of incomes 2 and 4, and one a hundredth of a degree north of it, of income 2."""
    traits = np.ones((len(TRAITS), 3))
    traits[TRAITS.index("median_income")] = [2.0, 4.0, 2.0]
    return Neighbourhood(
        np.array([34.0, 34.0, 34.0 + NEAR]), np.full(3, -118.0), np.array([1e5, 4e5, 2e5]), traits
    )


def test_those_who_are_alike_count_more() -> None:
    around = three_nearby()
    found, distance = np.array([[0, 1, 2]]), np.array([[0.0, 0.0, NEAR]])
    row = comparable([np.array([2.0]), *np.ones((len(TRAITS) - 1, 1))])
    price, alike = around.ask_alike(found, closeness(distance), row)[0]
    other = np.exp(-0.5 * (np.log(2.0) / ALIKE["median_income"]) ** 2)
    weights = np.array([1.0, other, 0.5]) / NEAR
    assert alike == pytest.approx(weights.sum(), rel=1e-4)
    assert price == pytest.approx((weights * around.price).sum() / weights.sum(), rel=1e-4)
    # Whoever is like nobody nearby is told what they all cost.
    stranger = comparable([np.array([15.0]), *np.full((len(TRAITS) - 1, 1), 100.0)])
    price, alike = around.ask_alike(found, closeness(distance), stranger)[0]
    assert price == pytest.approx((1e5 + 4e5 + 2e5 / 2) / 2.5)
    assert alike == pytest.approx(2.5 / NEAR * LEAST_ALIKE)


def test_a_row_is_compared_alike_alone_and_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    around = neighbourhood()
    found, distance = around.nearest(*places(300))
    rows = comparable(np.random.default_rng(6).uniform(1, 9, (len(TRAITS), 300)))
    batch = around.ask_alike(found, closeness(distance), rows)
    monkeypatch.setattr(neighbours, "CHUNK", 7)
    assert around.ask_alike(found, closeness(distance), rows).tobytes() == batch.tobytes()
    for row in range(300):
        one = slice(row, row + 1)
        alone = around.ask_alike(found[one], closeness(distance[one]), rows[:, one])
        assert alone.tobytes() == batch[row].tobytes()


def test_members_are_described_by_the_others() -> None:
    around = neighbourhood()
    told = around.describe(*around.nearest_of_members())
    others = np.arange(400) != 123
    alone = Neighbourhood(
        around.latitude[others], around.longitude[others], around.price[others], around.traits[:, others]
    )
    expected = alone.describe(*alone.nearest(around.latitude[123:124], around.longitude[123:124]))
    np.testing.assert_allclose(told[123], expected[0], rtol=1e-12)


def test_a_member_among_many_at_its_own_place_is_still_left_out() -> None:
    rows = NEAREST[-1] + 10
    around = Neighbourhood(
        np.full(rows, 34.0),
        np.full(rows, -118.0),
        np.arange(rows, dtype=np.float64),
        np.ones((len(TRAITS), rows)),
    )
    told = around.describe(*around.nearest_of_members())
    column = FEATURES.index(f"nearby_price_{NEAREST[-1]}")
    # The last is not among the first that are found at its place, so those are its neighbours.
    assert told[-1, column] == pytest.approx(np.arange(NEAREST[-1]).mean())
    assert told[0, column] == pytest.approx(np.arange(1, NEAREST[-1] + 1).mean())


def test_fewer_places_than_are_asked_for_are_refused() -> None:
    with pytest.raises(ValueError, match="2 places have no 3 nearest"):
        NeighbourIndex(np.zeros(2), np.zeros(2), 3)
    with pytest.raises(ValueError, match="two block groups or more"):
        neighbourhood(1)


def test_no_rows_have_no_features() -> None:
    nobody = neighbourhood()
    assert nobody.describe(*nobody.nearest(np.empty(0), np.empty(0))).shape == (0, len(FEATURES))
