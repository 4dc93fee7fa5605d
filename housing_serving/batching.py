"""Pricing together what arrives together.

With several callers, more than one small request is often ready in the same turn of the event loop. An
operation on arrays, and a run of the model, cost about the same for one row as for ten, so the rows of all of
them are priced at once. A batch is complete when a turn of the loop has brought nothing more: no request
waits for one that has yet to arrive. A row's price does not depend on what else is in its batch. The idea is
known as dynamic batching (Crankshaw et al., Clipper, NSDI 2017).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np

from housing_serving.bundle import Predictions
from housing_serving.features import RAW_FEATURES, Columns
from housing_serving.model_slot import ModelSlot
from housing_serving.prediction import Priced, price
from housing_serving.schemas import HousingInstance, instance_columns
from housing_serving.sources import LoadedModel

# More rows at once would hold up the event loop for milliseconds.
MAX_ROWS = 200
# From so many on, the model takes longer than handing it to a thread; it needs no interpreter meanwhile.
THREAD_ROWS = 32
MAX_THREAD_ROWS = 1_000
# Searching the training rows for neighbours costs a millisecond per row without bedrooms.
MAX_ROWS_WITH_NEIGHBOURS = 5


def imputes_slowly(model: LoadedModel) -> bool:
    """Whether filling null bedrooms takes about a millisecond a row."""
    return model.bundle.manifest.imputer.kind == "neighbours"


class RequestsInProgress:
    """What the server of this process is working on, one task per request; empty where nobody tells."""

    tasks: Collection[object] = ()


class _Small(NamedTuple):
    instances: Sequence[HousingInstance]
    priced: "asyncio.Future[Priced]"

    @property
    def rows(self) -> int:
        return len(self.instances)


class _Large(NamedTuple):
    # Hundreds of such requests may wait, and as instances they would take twenty times the memory.
    columns: Columns
    rows: int
    priced: "asyncio.Future[Priced]"


_Waiting = TypeVar("_Waiting", _Small, _Large)


class Batcher:
    """Collects requests that are ready at the same time and prices them with the model in the slot."""

    def __init__(self, slot: ModelSlot, threads: ThreadPoolExecutor) -> None:
        self._slot = slot
        self._threads = threads
        self._idle_threads = threads._max_workers
        self._small: deque[_Small] = deque()
        self._large: deque[_Large] = deque()
        # The event loop itself holds tasks only weakly.
        self._at_work: set[asyncio.Task[None]] = set()

    async def price(self, instances: Sequence[HousingInstance]) -> Priced:
        """The prices of one request; there must be a model."""
        if len(RequestsInProgress.tasks) == 1 and len(instances) <= MAX_ROWS_WITH_NEIGHBOURS:
            # There is no other that could be ready: no need for a turn of the loop.
            return price(instances, self._model())
        loop = asyncio.get_running_loop()
        priced: asyncio.Future[Priced] = loop.create_future()
        if len(instances) < THREAD_ROWS:
            if not self._small:
                loop.call_soon(self._price_when_complete, self._small, self._price_small, 0)
            self._small.append(_Small(instances, priced))
        else:
            if not self._large:
                loop.call_soon(self._price_when_complete, self._large, self._price_large, 0)
            self._large.append(_Large(instance_columns(instances), len(instances), priced))
        del instances
        return await priced

    def _price_when_complete(
        self, waiting: Collection[object], price_waiting: Callable[[], None], before: int
    ) -> None:
        """Price what waits, unless the last turn brought some of it and there are requests still to come."""
        if before < len(waiting) < len(RequestsInProgress.tasks):
            again = self._price_when_complete
            asyncio.get_running_loop().call_soon(again, waiting, price_waiting, len(waiting))
        else:
            price_waiting()

    def _price_small(self) -> None:
        model = self._model()
        rows = MAX_ROWS_WITH_NEIGHBOURS if imputes_slowly(model) else MAX_ROWS
        batch = _next_batch(self._small, rows)
        if self._small:
            asyncio.get_running_loop().call_soon(self._price_small)
        try:
            together = [instance for waiting in batch for instance in waiting.instances]
            _settle(batch, price(together, model))
        except Exception as error:  # whatever it was, every request of the batch is owed an answer
            _fail(batch, error)

    def _price_large(self) -> None:
        while self._large and self._idle_threads:
            self._idle_threads -= 1
            batch = _next_batch(self._large, MAX_THREAD_ROWS)
            task = asyncio.get_running_loop().create_task(self._price_in_thread(batch))
            self._at_work.add(task)
            task.add_done_callback(self._at_work.discard)

    async def _price_in_thread(self, batch: Sequence[_Large]) -> None:
        try:
            model = self._model()
            columns = {
                name: np.concatenate([waiting.columns[name] for waiting in batch]) for name in RAW_FEATURES
            }
            matrix = model.bundle.feature_matrix(columns)
            predictions = await asyncio.get_running_loop().run_in_executor(
                self._threads, model.bundle.predict_matrix, matrix
            )
            _settle(batch, Priced(model, columns, predictions, model.bundle.domain.departures(columns)))
        except Exception as error:  # as above
            _fail(batch, error)
        finally:
            self._idle_threads += 1
            self._price_large()

    def _model(self) -> LoadedModel:
        model = self._slot.model
        assert model is not None  # noqa: S101  (it may be replaced, never removed)
        return model


def _next_batch(queue: deque[_Waiting], max_rows: int) -> list[_Waiting]:
    batch = [queue.popleft()]
    rows = batch[0].rows
    while queue and (rows := rows + queue[0].rows) <= max_rows:
        batch.append(queue.popleft())
    return batch


def _settle(batch: Sequence[_Waiting], together: Priced) -> None:
    for waiting, priced in zip(batch, _apart(together, batch), strict=True):
        # A request that was given up meanwhile is done already.
        if not waiting.priced.done():
            waiting.priced.set_result(priced)


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.priced.done():
            waiting.priced.set_exception(error)


def _apart(together: Priced, batch: Sequence[_Waiting]) -> Iterator[Priced]:
    """The share of each request."""
    if len(batch) == 1:
        yield together
        return
    start = 0
    for waiting in batch:
        rows = slice(start, start + waiting.rows)
        predictions = together.predictions
        yield Priced(
            together.model,
            {name: values[rows] for name, values in together.columns.items()},
            Predictions(predictions.price[rows], predictions.lower[rows], predictions.upper[rows]),
            [
                replace(found, row=found.row - rows.start)
                for found in together.departures
                if rows.start <= found.row < rows.stop
            ],
        )
        start = rows.stop
