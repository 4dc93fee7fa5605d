"""Following the release record: look at it every second or so, load what it names, swap in one go.

What cannot be loaded is not served: the process keeps what it has, says so, and tries again.
"""

import asyncio
import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, TypeVar

from housing_serving.daemon_thread import in_daemon_thread, politely
from housing_serving.deadline import Deadline
from housing_serving.memory import return_free_memory
from housing_serving.metrics import Metrics
from housing_serving.model_slot import GIVE_UP_SECONDS, UNFORESEEN, CanaryModel, ModelSlot
from housing_serving.releases import ReleaseRecord
from housing_serving.settings import ServingSettings
from housing_serving.sources import (
    FetchedModel,
    LoadedModel,
    ModelUnavailable,
    StorageRoot,
    read_release,
    version_source,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

# off: one bundle is pinned by the settings. none: nothing was released yet. followed: the record is
# served. incomplete: a version it names cannot be loaded. unreadable: the record cannot be read.
ReleaseState = Literal["off", "unasked", "none", "followed", "incomplete", "unreadable"]


@dataclass(frozen=True)
class ReleaseStatus:
    """How a process stands to the release record."""

    state: ReleaseState
    # As the record says.
    stable_version: int | None = None
    canary_version: int | None = None
    canary_percent: float = 0.0
    # What is wrong, and what to do.
    detail: str | None = None
    checked_at: datetime | None = None


class ReleaseFollower:
    """Keeps a slot at what the release record of its storage root says."""

    def __init__(self, settings: ServingSettings, slot: ModelSlot, metrics: Metrics) -> None:
        self.root = StorageRoot.configured(settings)
        self.status = ReleaseStatus("off" if self.root is None else "unasked")
        # As it was read last; None before the first release, and where a bundle is pinned.
        self.record: ReleaseRecord | None = None
        self._slot = slot
        self._metrics = metrics
        self._model_name = settings.mlflow_model_name
        self._poll_seconds = settings.housing_release_poll_seconds
        self._retry_seconds = settings.housing_model_poll_seconds
        self._seconds = settings.housing_source_timeout_seconds
        # A look that was given up.
        self._stuck: threading.Thread | None = None
        # When a version that could not be loaded may be tried again, and what was wrong with it.
        self._failed: dict[int, tuple[float, str]] = {}

    async def follow(self) -> None:
        """Look at the record again and again; returns at once where a bundle is pinned."""
        if self.root is None:
            return
        # The first model is the sources' affair: loading it twice would take twice the time and memory.
        await self._slot.looked.wait()
        while True:
            try:
                await self._look(self.root)
            except ModelUnavailable as error:
                self._note(ReleaseStatus("unreadable", detail=str(error)))
            except Exception:  # whatever it was, the service must live to look again
                logger.exception("looking at the release record failed")
                self._note(ReleaseStatus("unreadable", detail=UNFORESEEN))
            # Many processes that swap in the same moment would be slow in the same moment.
            await asyncio.sleep(self._poll_seconds * random.uniform(0.5, 1.0))  # noqa: S311

    async def _look(self, root: StorageRoot) -> None:
        record = await self._in_time(lambda: _read(root, self._seconds), f"{root.uri} did not answer")
        self.record = record
        if record is None:
            # A trial is over with its record; what serves goes on.
            if self._slot.model is not None and self._slot.canary is not None:
                self._serve(self._slot.model, None)
            self._failed = {}
            self._note(ReleaseStatus("none"))
            return
        stable = await self._loaded(root, record.stable_version)
        canary = None
        if record.canary_version is not None:
            canary = await self._loaded(root, record.canary_version)
        self._apply(record, stable, canary)

    def _apply(self, record: ReleaseRecord, stable: LoadedModel | None, canary: LoadedModel | None) -> None:
        wanted = {record.stable_version, record.canary_version}
        self._failed = {version: failure for version, failure in self._failed.items() if version in wanted}
        stable = stable or self._slot.model
        if stable is None:
            pass  # what is wrong is noted below
        elif canary is not None and record.canary_percent > 0:
            self._serve(stable, CanaryModel(canary, record.canary_percent))
        else:
            self._serve(stable, None)
        problems = [f"version {version}: {problem}" for version, (_, problem) in self._failed.items()]
        self._note(
            ReleaseStatus(
                "incomplete" if problems else "followed",
                record.stable_version,
                record.canary_version,
                record.canary_percent,
                "; ".join(problems) or None,
            )
        )

    def _serve(self, stable: LoadedModel, canary: CanaryModel | None) -> None:
        before = self._slot.model, self._slot.canary
        if before == (stable, canary) and self._slot.serves_first_choice:
            return
        self._slot.serve(stable, canary)
        self._metrics.release_changed(stable, canary.model if canary else None)
        logger.info(
            "release followed",
            extra={
                "stable_version": stable.bundle.manifest.model_version,
                "canary_version": canary.model.bundle.manifest.model_version if canary else None,
                "canary_percent": canary.percent if canary else 0,
            },
        )

    async def _loaded(self, root: StorageRoot, version: int) -> LoadedModel | None:
        """The version, opened and warmed up; None when that fails, now or a moment ago."""
        for held in (self._slot.model, self._slot.canary.model if self._slot.canary else None):
            if held is not None and _identity(held) == (self._model_name, version):
                self._failed.pop(version, None)
                return held
        now = asyncio.get_running_loop().time()
        if now < self._failed.get(version, (0.0, ""))[0]:
            return None
        source = version_source(root, self._model_name, version, self._seconds)
        try:
            fetched = await self._in_time(source.fetch, source.too_slow)
            # Compiling takes a moment, on a busy machine a long one, but never hangs: it has no time limit.
            _, opened = in_daemon_thread(politely(lambda: _opened(fetched)))
            model = await opened
        except ModelUnavailable as error:
            self._failed[version] = now + self._retry_seconds, str(error)
            return None
        self._failed.pop(version, None)
        await asyncio.to_thread(return_free_memory)
        return model

    async def _in_time(self, call: Callable[[], T], too_slow: str) -> T:
        if self._stuck is not None and self._stuck.is_alive():
            # A second one would only get stuck beside it.
            raise ModelUnavailable(too_slow)
        thread, outcome = in_daemon_thread(politely(call))
        try:
            async with asyncio.timeout(self._seconds + GIVE_UP_SECONDS):
                return await outcome
        except TimeoutError as error:
            self._stuck = thread
            raise ModelUnavailable(too_slow) from error

    def _note(self, status: ReleaseStatus) -> None:
        # The same problem every second is one line, not a flood.
        if status.detail is not None and status.detail != self.status.detail:
            logger.warning("release not followed", extra={"state": status.state, "reason": status.detail})
        self.status = replace(status, checked_at=datetime.now(UTC))
        self._metrics.release_failed(self._failed)


def _read(root: StorageRoot, seconds: float) -> ReleaseRecord | None:
    with Deadline(seconds) as deadline:
        return read_release(root.reader(deadline))


def _opened(fetched: FetchedModel) -> LoadedModel:
    """The model, as quick as it can be from its first answer on: another one serves meanwhile."""
    model = fetched.open()
    model.bundle.remember_training_places()
    return model


def _identity(model: LoadedModel) -> tuple[str, int]:
    return model.bundle.manifest.model_name, model.bundle.manifest.model_version
