"""What the storage root has on record of models: how a version was judged, and what monitoring found.

Reads only, what the pipeline writes: one object after the other, with a time limit, and for all callers
together at most once in some seconds.
"""

import asyncio
import logging
import re
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from housing_serving.daemon_thread import in_daemon_thread, politely
from housing_serving.deadline import Deadline
from housing_serving.model_slot import GIVE_UP_SECONDS
from housing_serving.schemas import MonitoringReport, PromotionReport
from housing_serving.settings import ServingSettings
from housing_serving.sources import ModelUnavailable, StorageRoot
from housing_serving.storage_readers import ObjectMissing, ObjectReader

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)

FRESH_SECONDS = 5.0
# Answers that are kept; versions come and go.
MAX_KNOWN = 4
PROMOTION_FILE = "promotion.json"
REPORTS = "monitoring/reports/"
KINDS: Final = ("drift", "performance")


class RecordsUnreadable(Exception):
    """A record is there, and cannot be read; the log has said why."""


class Records:
    """What is on record in the storage root of the settings; nothing where they pin one bundle."""

    def __init__(self, settings: ServingSettings) -> None:
        self._root = StorageRoot.configured(settings)
        self._models = f"models/{settings.mlflow_model_name}"
        self._seconds = settings.housing_source_timeout_seconds
        self._reading = asyncio.Lock()
        # By what was asked: until when it is news, and the answer or the trouble.
        self._known: dict[str, tuple[float, Any]] = {}
        # A look that was given up.
        self._stuck: threading.Thread | None = None

    async def promotion_report(self, version: int) -> PromotionReport | None:
        """How a version was judged on the test set; None where that is not on record.

        Raises:
            RecordsUnreadable: the storage root, or what lies there, cannot be read.
        """
        name = f"{self._models}/{version}/{PROMOTION_FILE}"
        found: PromotionReport | None = await self._answer(name, lambda reader: _promotion(reader, name))
        return found

    async def monitoring_reports(self) -> list[MonitoringReport]:
        """The newest report of each kind, as far as there is one.

        Raises:
            RecordsUnreadable: the storage root, or what lies there, cannot be read.
        """
        found: list[MonitoringReport] | None = await self._answer(REPORTS, _newest_reports)
        return found or []

    async def _answer(self, key: str, look: Callable[[ObjectReader], Any]) -> Any:  # noqa: ANN401
        if self._root is None:
            return None
        loop = asyncio.get_running_loop()
        # Whoever asks while somebody looks gets the same answer.
        async with self._reading:
            until, answer = self._known.get(key, (0.0, None))
            if loop.time() >= until:
                answer = await self._in_time(self._root, look)
                if len(self._known) >= MAX_KNOWN:
                    self._known.clear()
                self._known[key] = loop.time() + FRESH_SECONDS, answer
        if isinstance(answer, ModelUnavailable):
            raise RecordsUnreadable from answer
        return answer

    async def _in_time(self, root: StorageRoot, look: Callable[[ObjectReader], Any]) -> Any:  # noqa: ANN401
        def call() -> Any:  # noqa: ANN401
            with Deadline(self._seconds) as deadline:
                return look(root.reader(deadline))

        try:
            if self._stuck is not None and self._stuck.is_alive():
                # A second one would only get stuck beside it.
                raise ModelUnavailable(f"{root.uri} did not answer")
            thread, outcome = in_daemon_thread(politely(call))
            try:
                async with asyncio.timeout(self._seconds + GIVE_UP_SECONDS):
                    return await outcome
            except TimeoutError as error:
                self._stuck = thread
                raise ModelUnavailable(f"{root.uri} did not answer") from error
        except ModelUnavailable as error:
            logger.warning("records cannot be read", extra={"reason": str(error)})
            return error


def _promotion(reader: ObjectReader, name: str) -> PromotionReport | None:
    return _parsed(reader, name, PromotionReport)


def _newest_reports(reader: ObjectReader) -> list[MonitoringReport]:
    names = reader.names(REPORTS)
    found = []
    for kind in KINDS:
        # Days sort as their names do; beside the reports lies what they link to.
        dated = re.compile(rf"{REPORTS}{kind}/\d{{4}}-\d\d-\d\d\.json")
        newest = max((name for name in names if dated.fullmatch(name)), default=None)
        report = None if newest is None else _parsed(reader, newest, MonitoringReport)
        if report is not None:
            found.append(report)
    return found


def _parsed(reader: ObjectReader, name: str, model: type[M]) -> M | None:
    try:
        return model.model_validate_json(reader.read(name))
    except ObjectMissing:
        return None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, problem["loc"])) or "record"
        raise ModelUnavailable(
            f"{reader.uri(name)} is no record ({field}: {problem['msg']}): materialize its asset again"
        ) from error
