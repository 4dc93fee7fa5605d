"""Requests that arrive together are priced together, and none of them notices."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from housing_assets_tests.serving.bundles import INSTANCE, bundle_files, random_stumps
from housing_serving.batching import (
    MAX_ROWS,
    MAX_ROWS_WITH_NEIGHBOURS,
    THREAD_ROWS,
    Batcher,
    RequestsInProgress,
)
from housing_serving.bundle import Bundle, FeatureRange, Predictions
from housing_serving.features import LIMITS, FloatArray
from housing_serving.model_slot import ModelSlot
from housing_serving.prediction import Priced
from housing_serving.schemas import HousingInstance, instance_columns
from housing_serving.settings import ServingSettings
from housing_serving.sources import LoadedModel

# The largest request that is priced together with others.
SMALL = THREAD_ROWS - 1


class CountingBundle(Bundle):
    """A bundle that notes how many rows each call had."""

    calls: list[int]

    def predict_matrix(self, matrix: FloatArray) -> Predictions:
        """As usual, and noted."""
        self.calls.append(len(matrix))
        return super().predict_matrix(matrix)


def counting(**changes: Any) -> tuple[Batcher, CountingBundle]:
    bundle = CountingBundle.from_files(bundle_files(**changes), origin="test")
    bundle.calls = []
    slot = ModelSlot(ServingSettings())
    slot.model = LoadedModel(bundle, "local", "test")
    return Batcher(slot, ThreadPoolExecutor(1)), bundle


def block(income: float) -> HousingInstance:
    return HousingInstance.model_validate({**INSTANCE, "median_income": income})


def price_together(batcher: Batcher, requests: Sequence[Sequence[HousingInstance]]) -> list[Priced]:
    async def all_of_them() -> list[Priced]:
        return await asyncio.gather(*(batcher.price(instances) for instances in requests))

    return asyncio.run(all_of_them())


def test_each_request_gets_its_own_rows_back() -> None:
    batcher, bundle = counting()
    requests = [[block(8)], [block(2), block(8), block(2)], [block(2)]]

    answers = price_together(batcher, requests)

    assert bundle.calls == [5]
    prices = [answer.predictions.price.tolist() for answer in answers]
    assert prices == [[300_000], [100_000, 300_000, 100_000], [100_000]]
    for instances, answer in zip(requests, answers, strict=True):
        assert answer.columns["median_income"].tolist() == [one.median_income for one in instances]
        assert answer.predictions.lower.shape == answer.predictions.upper.shape == (len(instances),)


def test_what_is_unusual_is_told_to_whom_it_concerns() -> None:
    ranges = [FeatureRange(name=name, minimum=low, maximum=high) for name, (low, high) in LIMITS.items()]
    narrow = FeatureRange(name="median_income", minimum=1, maximum=15)
    batcher, _ = counting(features=(*ranges[:-1], narrow))

    usual, unusual = price_together(batcher, [[block(8), block(8)], [block(8), block(20)]])

    assert usual.departures == []
    assert [(found.row, found.code) for found in unusual.departures] == [(1, "above_training_range")]


@pytest.mark.parametrize(
    ("kind", "sizes", "calls"),
    [
        ("compiled", [SMALL] * (MAX_ROWS // SMALL + 1), [MAX_ROWS // SMALL * SMALL, SMALL]),
        ("compiled", [THREAD_ROWS, 1, 1], [THREAD_ROWS, 2]),
        ("neighbours", [1] * (MAX_ROWS_WITH_NEIGHBOURS + 2), [MAX_ROWS_WITH_NEIGHBOURS, 2]),
    ],
)
def test_a_batch_does_not_grow_beyond_what_the_loop_can_wait_for(
    kind: str, sizes: list[int], calls: list[int]
) -> None:
    batcher, bundle = counting(kind=kind)

    answers = price_together(batcher, [[block(8)] * size for size in sizes])

    assert sorted(bundle.calls) == sorted(calls)
    assert [len(answer.predictions.price) for answer in answers] == sizes


@pytest.mark.parametrize(
    ("rows", "in_progress", "calls"),
    [
        # As many as are in progress, and one more that never comes to be priced.
        pytest.param(1, 3, [3], id="small"),
        pytest.param(1, 4, [3], id="small, another elsewhere"),
        pytest.param(THREAD_ROWS, 3, [3 * THREAD_ROWS], id="large"),
        pytest.param(THREAD_ROWS, 4, [3 * THREAD_ROWS], id="large, another elsewhere"),
        # Nobody tells how many there are.
        pytest.param(1, 0, [1, 1, 1], id="unknown"),
    ],
)
def test_a_batch_is_complete_when_a_turn_of_the_loop_brings_nothing_more(
    rows: int, in_progress: int, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher, bundle = counting()
    monkeypatch.setattr(RequestsInProgress, "tasks", {object() for _ in range(in_progress)})

    async def one_each_turn() -> list[Priced]:
        asked = []
        for _ in range(3):
            asked.append(asyncio.create_task(batcher.price([block(8)] * rows)))
            await asyncio.sleep(0)
        return await asyncio.gather(*asked)

    answers = asyncio.run(one_each_turn())
    assert bundle.calls == calls
    assert [len(answer.predictions.price) for answer in answers] == [rows] * 3


def test_requests_that_come_later_are_not_waited_for() -> None:
    batcher, bundle = counting()

    async def one_after_the_other() -> None:
        for _ in range(3):
            await batcher.price([block(8)])

    asyncio.run(one_after_the_other())
    assert bundle.calls == [1, 1, 1]


def test_a_failure_reaches_every_request_of_the_batch_and_no_later_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batcher, _ = counting()

    def fail(*_: object) -> Predictions:
        raise MemoryError

    async def failing_then_not() -> list[object]:
        with monkeypatch.context() as broken:
            broken.setattr(CountingBundle, "predict_matrix", fail)
            asked = (batcher.price([block(8)]) for _ in range(2))
            failed = await asyncio.gather(*asked, return_exceptions=True)
        return [*failed, await batcher.price([block(8)])]

    *failed, fine = asyncio.run(failing_then_not())
    assert [type(error) for error in failed] == [MemoryError, MemoryError]
    assert isinstance(fine, Priced)
    np.testing.assert_array_equal(fine.predictions.price, [300_000])


def test_a_request_that_was_given_up_does_not_disturb_the_others() -> None:
    batcher, _ = counting()

    async def one_gives_up() -> Priced:
        given_up = asyncio.create_task(batcher.price([block(2)]))
        kept = asyncio.create_task(batcher.price([block(8)]))
        await asyncio.sleep(0)
        given_up.cancel()
        return await kept

    assert asyncio.run(one_gives_up()).predictions.price.tolist() == [300_000]


@pytest.mark.parametrize("rows", [1, THREAD_ROWS, MAX_ROWS + 1])
def test_every_way_gives_the_same_bits(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher, bundle = counting(stumps=random_stumps())
    blocks = [block(income) for income in np.linspace(0.5, 15, rows)]
    expected = [bundle.predict(instance_columns([one])).price[0] for one in blocks]

    (together,) = price_together(batcher, [blocks])
    monkeypatch.setattr(RequestsInProgress, "tasks", {object()})
    (alone,) = price_together(batcher, [blocks])

    assert together.predictions.price.tolist() == expected
    assert alone.predictions.price.tolist() == expected
