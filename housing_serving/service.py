"""What the application consists of, started and stopped together."""

import asyncio
import contextlib
import gc
import signal
import sys
import threading
from collections.abc import AsyncIterator
from types import FrameType
from typing import Self

from housing_serving.explaining import Explaining
from housing_serving.log_format import RequestLines
from housing_serving.memory import keep_little_free, return_free_memory
from housing_serving.metrics import Metrics
from housing_serving.model_slot import ModelSlot
from housing_serving.prediction_log import PredictionLog
from housing_serving.pricing import Pricing
from housing_serving.records import Records
from housing_serving.release_follower import ReleaseFollower
from housing_serving.settings import ServingSettings

# A local model is there at once; a slow source must not keep the service from listening.
FIRST_LOOK_SECONDS = 3.0
LOG_FLUSH_SECONDS = 5.0
TIDY_SECONDS = 10.0
# How long a thread in the background may keep the interpreter from a request; Python's own value, 5 ms, is
# many times what an answer takes.
TURN_SECONDS = 0.0001


class Service:
    """The model in service, the metrics, and the log of what was answered."""

    def __init__(self, settings: ServingSettings) -> None:
        self.metrics = Metrics()
        # True from SIGTERM on: not ready any more, and every answer closes its connection.
        self.draining = False
        self._drain_seconds = settings.housing_drain_seconds
        self.slot = ModelSlot(settings, self.metrics.model_changed)
        self.release = ReleaseFollower(settings, self.slot, self.metrics)
        self.pricing = Pricing(self.slot, self.metrics)
        self.explaining = Explaining()
        self.records = Records(settings)
        self.log = PredictionLog(settings, self.metrics)
        self.request_lines = RequestLines()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Look for a model, follow the release and write the log; at the end, write what is buffered."""
        keep_little_free()
        sys.setswitchinterval(TURN_SECONDS)
        self._drain_before_the_end()
        self.log.start()
        filling = asyncio.create_task(self.slot.fill())
        tidying = asyncio.create_task(self._tidy_up())
        following = asyncio.create_task(self.release.follow())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await self.slot.looked.wait()
        # What is there now stays: going through it again and again would stop requests for milliseconds.
        gc.collect()
        gc.freeze()
        try:
            yield self
        finally:
            for task in (filling, tidying, following):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await asyncio.to_thread(self.log.close, LOG_FLUSH_SECONDS)
            self.pricing.close()
            self.explaining.close()
            self.metrics.close()
            self.request_lines.flush()

    async def _tidy_up(self) -> None:
        used_before = False
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            used = self.pricing.memory_was_used or self.explaining.memory_was_used
            self.pricing.memory_was_used = self.explaining.memory_was_used = False
            # And once more: by then, what waited for the log or was read slowly by its callers is free too.
            if used or used_before:
                await asyncio.to_thread(return_free_memory)
            used_before = used

    def _drain_before_the_end(self) -> None:
        """On the first SIGTERM, announce the end for a while before the server begins it.

        Ending at once would reset connections on which callers are just sending their next request.
        """
        if threading.current_thread() is not threading.main_thread():
            return  # inside a test client: signals belong to the process
        loop, end = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
        if not callable(end):
            return

        def begin(number: int, frame: FrameType | None) -> None:
            # A second one is the same wish, as when both the group and the parent of the workers are told.
            if not self.draining:
                self.draining = True
                loop.call_soon_threadsafe(loop.call_later, self._drain_seconds, end, number, frame)

        signal.signal(signal.SIGTERM, begin)
