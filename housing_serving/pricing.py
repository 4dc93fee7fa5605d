"""Which version prices a request, and where: on the event loop, in a thread, or in the canary's own lane.

While there is a canary, a stable hash of the request's id decides who answers it. What the canary cannot
answer, or not in time, the stable version answers instead: only the metrics see the difference. What it does
answer, the stable version prices too, afterwards and for comparison only.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from fastapi.exceptions import RequestValidationError

from housing_serving.batching import Batcher, imputes_slowly
from housing_serving.metrics import Metrics
from housing_serving.model_slot import CanaryModel, ModelSlot
from housing_serving.prediction import Priced, parse, price, response_body
from housing_serving.releases import Track, track_of
from housing_serving.schemas import PredictionRequest
from housing_serving.sources import LoadedModel

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A larger body (some 200 instances) would hold up other requests for milliseconds: it is priced in a thread.
INLINE_BYTES = 48_000
# Searching the training rows for neighbours costs a millisecond per row without bedrooms.
INLINE_BYTES_WITH_NEIGHBOURS = 1_500
# Larger batches that are priced at once: more at a time would not be faster, and each thread keeps memory.
BATCHES_AT_ONCE = 2
# The stable version takes over when the canary has not answered by then.
CANARY_SECONDS = 1.0


class Answered(NamedTuple):
    """What was priced, the answer's bytes, and who answered; no track where there is no canary."""

    priced: Priced
    body: bytes
    track: Track | None


class Pricing:
    """Prices requests with the versions in the slot, of which there must be one."""

    def __init__(self, slot: ModelSlot, metrics: Metrics) -> None:
        # Large batches take tens of megabytes, which would stay with the process.
        self.memory_was_used = False
        self._slot = slot
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(BATCHES_AT_ONCE, thread_name_prefix="batches")
        # Its own: a canary that takes for ever keeps nobody else waiting.
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="canary")
        self._batcher = Batcher(slot, self._threads)

    async def answer(self, body: bytes, request_id: str) -> Answered:
        """The answer to a request.

        Raises:
            RequestValidationError: the body is not what the schema says.
        """
        canary = self._slot.canary
        try:
            if canary is None:
                priced, answer = await self._by_stable(body)
                return Answered(priced, answer, None)
            return await self._beside_canary(body, request_id, canary)
        finally:  # only now is its memory free
            if len(body) > INLINE_BYTES:
                self.memory_was_used = True

    def close(self) -> None:
        """Let what is being priced end."""
        self._threads.shutdown()
        self._lane.shutdown(cancel_futures=True)

    async def _beside_canary(self, body: bytes, request_id: str, canary: CanaryModel) -> Answered:
        started = time.perf_counter()
        if track_of(request_id, canary.percent) == "canary":
            found = await self._by_canary(body, canary.model, request_id)
            if found is not None:
                self._metrics.tracked("canary", canary.model, time.perf_counter() - started)
                # After the answer, which must not wait for it.
                self._lane.submit(self._compare, found[0], self._stable())
                return Answered(*found, "canary")
            self._metrics.track_failed("canary", canary.model, time.perf_counter() - started)
            priced, answer = await self._by_stable(body)
        else:
            stable = self._stable()
            try:
                priced, answer = await self._by_stable(body)
            except RequestValidationError:
                raise
            except Exception:
                self._metrics.track_failed("stable", stable, time.perf_counter() - started)
                raise
            self._metrics.tracked("stable", priced.model, time.perf_counter() - started)
        return Answered(priced, answer, "stable")

    def _compare(self, canary: Priced, stable: LoadedModel) -> None:
        try:
            self._metrics.compared(canary, stable, stable.bundle.predict(canary.columns).price)
        except Exception:  # nobody else would hear of it
            logger.exception("comparing the canary with the stable version failed")

    async def _by_stable(self, body: bytes) -> tuple[Priced, bytes]:
        model = self._stable()
        if len(body) <= _inline_bytes(model):
            priced = await self._batcher.price(parse(body).instances)
            return priced, response_body(priced)
        return await _in_thread(self._threads, _parse_and_price, body, model)

    def _stable(self) -> LoadedModel:
        model = self._slot.model
        assert model is not None  # noqa: S101  (it may be replaced, never removed)
        return model

    async def _by_canary(
        self, body: bytes, model: LoadedModel, request_id: str
    ) -> tuple[Priced, bytes] | None:
        """None when the canary has failed."""
        # What is wrong with a request is not the canary's fault; a large one takes long to parse.
        request = parse(body) if len(body) <= INLINE_BYTES else await _in_thread(self._threads, parse, body)
        try:
            async with asyncio.timeout(CANARY_SECONDS):
                return await _in_thread(self._lane, _price_finite, request, model)
        except Exception as error:  # whatever it was, the caller gets the stable version's answer
            logger.warning(
                "the canary failed",
                extra={
                    "model_version": model.bundle.manifest.model_version,
                    "request_id": request_id,
                    "error": type(error).__name__,
                },
            )
            return None


async def _in_thread(threads: ThreadPoolExecutor, call: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, call, *arguments)


def _parse_and_price(body: bytes, model: LoadedModel) -> tuple[Priced, bytes]:
    return _price(parse(body), model)


def _price(request: PredictionRequest, model: LoadedModel) -> tuple[Priced, bytes]:
    priced = price(request.instances, model)
    return priced, response_body(priced)


def _price_finite(request: PredictionRequest, model: LoadedModel) -> tuple[Priced, bytes]:
    priced, answer = _price(request, model)
    if not np.isfinite(priced.predictions.price).all():
        raise ArithmeticError("a price is not finite")
    return priced, answer


def _inline_bytes(model: LoadedModel) -> int:
    return INLINE_BYTES_WITH_NEIGHBOURS if imputes_slowly(model) else INLINE_BYTES
