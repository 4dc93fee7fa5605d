"""The model in service: filled from the best source that delivers one, read by every request.

Sources are raced: the first is asked alone, each next one when those before it have failed or are slow, so
one that hangs delays nothing but itself. While a later source's model serves, those before it are asked on.
"""

import asyncio
import logging
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import pybreaker

from housing_serving.daemon_thread import in_daemon_thread
from housing_serving.memory import return_free_memory
from housing_serving.settings import ServingSettings
from housing_serving.sources import (
    FetchedModel,
    LoadedModel,
    ModelSource,
    ModelUnavailable,
    NotRegistered,
    configured_sources,
)

logger = logging.getLogger(__name__)

SourceState = Literal["serving", "ready", "empty", "unavailable", "open", "unasked"]

# How long a source may keep the next one waiting.
GRACE_SECONDS = 1.5
# A source that failed this often in a row rests for so many poll intervals.
FAILURES_BEFORE_REST = 3
REST_INTERVALS = 6
# After its own time limit, a look is given up from outside: name servers and disks know no deadline.
GIVE_UP_SECONDS = 1.0
# In the place of a source's position: the release record says what serves.
RELEASED = -1
UNFORESEEN = "failed in a way that was not foreseen: see the log of the service"


@dataclass(frozen=True)
class SourceStatus:
    """What is known about one source."""

    name: str
    # Where it looks.
    target: str
    # ready: has a model, but a source before it serves. open: failed too often and rests.
    state: SourceState
    # What is wrong, and what to do.
    detail: str | None
    checked_at: datetime | None


@dataclass(frozen=True)
class CanaryModel:
    """A version that answers some of the requests."""

    model: LoadedModel
    # 0 to 100.
    percent: float


class ModelSlot:
    """Holds the loaded model and looks for a better one until it comes from the first source.

    Once a release record says what is to serve, sources are not asked any more.
    """

    def __init__(
        self, settings: ServingSettings, on_change: Callable[[LoadedModel], None] = lambda _: None
    ) -> None:
        self.retry_seconds = settings.housing_model_poll_seconds
        self.model: LoadedModel | None = None
        self.canary: CanaryModel | None = None
        # Set once a model is loaded or every source has been asked, whichever comes first.
        self.looked = asyncio.Event()
        self._on_change = on_change
        rest = REST_INTERVALS * self.retry_seconds
        self._asked = [_AskedSource(source, rest) for source in configured_sources(settings)]
        # Position of the source whose model serves; behind the last one while there is none.
        self._serving = len(self._asked)

    def sources(self) -> list[SourceStatus]:
        """Every configured source, in order."""
        return [
            SourceStatus(
                asked.source.name,
                asked.source.target,
                "serving" if self._comes_from(position) else asked.state,
                asked.detail,
                asked.checked_at,
            )
            for position, asked in enumerate(self._asked)
        ]

    @property
    def serves_first_choice(self) -> bool:
        """Whether the model is the one a release record or the first source names."""
        return self._serving in {RELEASED, 0}

    def serve(self, stable: LoadedModel, canary: CanaryModel | None) -> None:
        """Serve what a release record says: both versions at once, so that no request sees half of it."""
        changed = stable is not self.model
        self._serving = RELEASED
        self.model, self.canary = stable, canary
        if changed:
            self._announce(stable)

    async def fill(self) -> None:
        """Look for a model until the one of the first source serves."""
        async with asyncio.TaskGroup() as group:
            for position, asked in enumerate(self._asked):
                group.create_task(self._keep_asking(position))
                # `wait_for` would do, but loses a cancellation now and then before Python 3.12.
                with suppress(TimeoutError):
                    async with asyncio.timeout(GRACE_SECONDS):
                        await asked.answered.wait()
                if self.model is not None:
                    break

    async def _keep_asking(self, position: int) -> None:
        """Ask one source, and again every poll interval, until it or one before it serves."""
        asked = self._asked[position]
        while position < self._serving:
            model = await asked.ask()
            if model is not None and position < self._serving:
                self._swap(model, position)
            # The model may be large: it must not stay alive here when another one takes its place.
            del model
            asked.answered.set()
            if all(each.answered.is_set() for each in self._asked):
                self.looked.set()
            if position == self._serving and self.model is not None:
                # Only quicker from now on: nobody needs to wait for it.
                await asyncio.to_thread(self.model.bundle.remember_training_places)
                await asyncio.to_thread(return_free_memory)
            elif position < self._serving:
                await asyncio.sleep(self.retry_seconds)

    def _swap(self, model: LoadedModel, position: int) -> None:
        self.model = model
        self._serving = position
        self.looked.set()
        self._announce(model)

    def _comes_from(self, position: int) -> bool:
        if self._serving == RELEASED and self.model is not None:
            return self.model.source == self._asked[position].source.name
        return position == self._serving

    def _announce(self, model: LoadedModel) -> None:
        version = model.bundle.manifest.model_version
        logger.info(
            "model loaded", extra={"model_version": version, "source": model.source, "uri": model.uri}
        )
        self._on_change(model)


class _AskedSource:
    """A source with its circuit breaker and what came of asking it last."""

    def __init__(self, source: ModelSource, rest_seconds: float) -> None:
        self.source = source
        self.detail: str | None = None
        self.checked_at: datetime | None = None
        # Set once the first look has ended.
        self.answered = asyncio.Event()
        self._state: SourceState = "unasked"
        self._thread: threading.Thread | None = None
        self._breaker = pybreaker.CircuitBreaker(
            FAILURES_BEFORE_REST, rest_seconds, exclude=[NotRegistered], throw_new_error_on_trip=False
        )

    @property
    def state(self) -> SourceState:
        """What came of asking last, or that the source rests."""
        return "open" if self._breaker.current_state == pybreaker.STATE_OPEN else self._state

    async def ask(self) -> LoadedModel | None:
        """The source's model, opened and warmed up; None when it has none, fails or rests."""
        try:
            with self._breaker.calling():
                fetched = await self._fetched()
                # Compiling takes a moment but never hangs: the shared threads end before the process does.
                model = await asyncio.to_thread(fetched.open)
        except pybreaker.CircuitBreakerError:
            return None
        except NotRegistered as error:
            self._note("empty", str(error))
        except ModelUnavailable as error:
            self._note("unavailable", str(error))
        except Exception as error:  # whatever it was, the service must live to look again
            # Its text is left out: nobody knows what it holds.
            logger.error(
                "loading the model failed",
                extra={
                    "source": self.source.name,
                    "error": type(error).__name__,
                    "trace": "".join(traceback.format_tb(error.__traceback__)),
                },
            )
            self._note("unavailable", UNFORESEEN)
        else:
            self._note("ready", None)
            return model
        return None

    async def _fetched(self) -> FetchedModel:
        if self._thread is not None and self._thread.is_alive():
            # Given up and still stuck: a second one would only get stuck beside it.
            raise ModelUnavailable(self.source.too_slow)
        self._thread, fetching = in_daemon_thread(self.source.fetch)
        try:
            async with asyncio.timeout(self.source.seconds + GIVE_UP_SECONDS):
                return await fetching
        except TimeoutError as error:
            raise ModelUnavailable(self.source.too_slow) from error

    def _note(self, state: SourceState, detail: str | None) -> None:
        # The same problem every few seconds is one line, not a flood.
        if detail is not None and detail != self.detail:
            logger.warning("no model", extra={"source": self.source.name, "state": state, "reason": detail})
        self._state, self.detail = state, detail
        self.checked_at = datetime.now(UTC)
