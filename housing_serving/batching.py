"""Pricing together what arrives together.

With several callers, more than one small request is often ready in the same turn of the event loop. An
operation on arrays, and a run of the model, cost about the same for one row as for ten, so the rows of all of
them are priced at once. No request waits for one that has yet to arrive, and a row's price does not depend on
what else is in its batch. The idea is known as dynamic batching (Crankshaw et al., Clipper, NSDI 2017).
"""

import asyncio
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import NamedTuple

from housing_serving.bundle import Predictions
from housing_serving.model_slot import ModelSlot
from housing_serving.prediction import Priced, price
from housing_serving.schemas import HousingInstance, instance_columns
from housing_serving.sources import LoadedModel

# More rows at once would hold up the event loop for milliseconds.
MAX_ROWS = 200
# From so many on, the model takes longer than handing it to a thread; it needs no interpreter meanwhile.
THREAD_ROWS = 32
# Searching the training rows for neighbours costs a millisecond per row without bedrooms.
MAX_ROWS_WITH_NEIGHBOURS = 5


def imputes_slowly(model: LoadedModel) -> bool:
    """Whether filling null bedrooms takes about a millisecond a row."""
    return model.bundle.manifest.imputer.kind == "neighbours"


class RequestsInProgress:
    """What the server of this process is working on, one task per request; empty where nobody tells."""

    tasks: Collection[object] = ()


class _Waiting(NamedTuple):
    instances: Sequence[HousingInstance]
    priced: "asyncio.Future[Priced]"


class Batcher:
    """Collects the requests of one turn of the event loop and prices them with the model in the slot."""

    def __init__(self, slot: ModelSlot, threads: Executor) -> None:
        self._slot = slot
        self._threads = threads
        self._waiting: deque[_Waiting] = deque()

    async def price(self, instances: Sequence[HousingInstance]) -> Priced:
        """The prices of one request; there must be a model."""
        if len(instances) >= THREAD_ROWS:
            return await self._price_in_thread(instances)
        if len(RequestsInProgress.tasks) == 1 and len(instances) <= MAX_ROWS_WITH_NEIGHBOURS:
            # There is no other that could be ready: no need for a turn of the loop.
            return price(instances, self._model())
        loop = asyncio.get_running_loop()
        if not self._waiting:
            # Runs when every request that is ready now has come here.
            loop.call_soon(self._price_waiting)
        waiting = _Waiting(instances, loop.create_future())
        self._waiting.append(waiting)
        return await waiting.priced

    async def _price_in_thread(self, instances: Sequence[HousingInstance]) -> Priced:
        model = self._model()
        columns = instance_columns(instances)
        matrix = model.bundle.feature_matrix(columns)
        predictions = await asyncio.get_running_loop().run_in_executor(
            self._threads, model.bundle.predict_matrix, matrix
        )
        return Priced(model, columns, predictions, model.bundle.domain.departures(columns))

    def _price_waiting(self) -> None:
        model = self._model()
        batch = self._next_batch(MAX_ROWS_WITH_NEIGHBOURS if imputes_slowly(model) else MAX_ROWS)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._price_waiting)
        try:
            together = price([instance for waiting in batch for instance in waiting.instances], model)
        except Exception as error:  # whatever it was, every request of the batch is owed an answer
            for waiting in batch:
                if not waiting.priced.done():
                    waiting.priced.set_exception(error)
            return
        for waiting, priced in zip(batch, _apart(together, batch), strict=True):
            # A request that was cancelled meanwhile is done already.
            if not waiting.priced.done():
                waiting.priced.set_result(priced)

    def _model(self) -> LoadedModel:
        model = self._slot.model
        assert model is not None  # noqa: S101  (it may be replaced, never removed)
        return model

    def _next_batch(self, max_rows: int) -> list[_Waiting]:
        batch = [self._waiting.popleft()]
        rows = len(batch[0].instances)
        while self._waiting and (rows := rows + len(self._waiting[0].instances)) <= max_rows:
            batch.append(self._waiting.popleft())
        return batch


def _apart(together: Priced, batch: Sequence[_Waiting]) -> Iterator[Priced]:
    """The share of each request."""
    if len(batch) == 1:
        yield together
        return
    start = 0
    for waiting in batch:
        rows = slice(start, start + len(waiting.instances))
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
