"""The prediction log: every answered instance, as Parquet in the storage root, without holding up a request.

Requests append to a bounded buffer. One thread collects from it: it observes the distributions and makes
files. Another stores the files, so that a hanging bucket stops neither the collecting nor a request. What
does not fit is dropped and counted: nothing here may ever fail or slow an answer.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from housing_serving.answers import Answer, AnswerBatch, AnswerColumns
from housing_serving.metrics import Metrics
from housing_serving.prediction_files import (
    PredictionFile,
    PredictionStorage,
    Turns,
    WriteFailed,
    prediction_file,
    prediction_storage,
    record_batch,
)
from housing_serving.settings import ServingSettings
from housing_serving.wandb_summary import open_wandb_summary

if TYPE_CHECKING:
    from arro3.core import RecordBatch

__all__ = ["Answer", "LogStatus", "PredictionLog"]

logger = logging.getLogger(__name__)

# Some 300 bytes a row while they wait to be collected, 200 after it, 80 in a file.
MAX_BUFFERED_ROWS = 200_000
FILE_ROWS = 20_000
# Answers are collected as often as this, or once so many rows wait, and so many at a time: more cost less
# each, but take more memory and hold the interpreter's lock for longer.
COLLECT_SECONDS = 1.0
COLLECT_ROWS = 2_000
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
# When the service ends, the attempts that are left come quickly.
LAST_RETRY_SECONDS = 0.2
# Dropping counts as over when nothing was dropped for so long.
CALM_SECONDS = 60.0

BUFFER_FULL = "buffer_full"
SHUTDOWN = "shutdown"
BROKEN = "broken"


@dataclass(frozen=True)
class LogStatus:
    """How the prediction log is doing."""

    enabled: bool
    # Whether files can be stored and nothing was dropped lately.
    healthy: bool
    target: str
    buffered_rows: int
    written_rows: int
    dropped_rows: int
    # Why it is not healthy, in our own words.
    problem: str | None


class FileWriter:
    """Stores files one after the other, in a thread of its own, each as often as it takes."""

    def __init__(
        self, storage: PredictionStorage, stored: Callable[[int], None], failed: Callable[[], None]
    ) -> None:
        self.problem: str | None = None
        self._storage = storage
        self._stored = stored
        self._failed = failed
        self._files: deque[PredictionFile] = deque()
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="prediction-files", daemon=True)

    def start(self) -> None:
        """Begin to store."""
        self._thread.start()

    def put(self, file: PredictionFile) -> None:
        """Take a file to be stored."""
        with self._changed:
            self._files.append(file)
            self._changed.notify()

    def close(self, deadline: float) -> None:
        """Store what is left until a moment of the monotonic clock; returns then at the latest."""
        with self._changed:
            self._deadline = deadline
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        with contextlib.suppress(ImportError):  # the attempt to store says so
            self._storage.prepare()
        delay = FIRST_RETRY_SECONDS
        while (file := self._next()) is not None:
            problem = self._store(file)
            self._report(problem)
            if problem is None:
                delay = FIRST_RETRY_SECONDS
                with self._changed:
                    self._files.popleft()
                self._stored(file.rows)
            else:
                self._failed()
                self._wait(delay)
                delay = min(2 * delay, LONGEST_RETRY_SECONDS)

    def _next(self) -> PredictionFile | None:
        """The oldest file; None when the end has come and nothing is left, or no time."""
        with self._changed:
            self._changed.wait_for(lambda: self._files or self._deadline is not None)
            late = self._deadline is not None and time.monotonic() >= self._deadline
            return self._files[0] if self._files and not late else None

    def _wait(self, delay: float) -> None:
        with self._changed:
            if self._deadline is not None:
                self._changed.wait(LAST_RETRY_SECONDS)
            else:
                self._changed.wait_for(lambda: self._deadline is not None, delay)

    def _store(self, file: PredictionFile) -> str | None:
        try:
            self._storage.store(file)
        except WriteFailed as error:
            return str(error)
        except Exception:  # whatever it was, the next attempt may succeed
            if self.problem is None:
                logger.exception("the prediction log cannot be stored")
            return f"{self._storage.uri} cannot be written: an unexpected error, see the service's log"
        return None

    def _report(self, problem: str | None) -> None:
        # A storage that stays away is one line, not one for each attempt.
        if problem is not None and problem != self.problem:
            logger.warning("prediction log is not stored, rows are kept", extra={"reason": problem})
        elif problem is None and self.problem is not None:
            logger.info("prediction log is stored again", extra={"target": self._storage.uri})
        self.problem = problem


class PredictionLog:
    """Takes answers from any thread; the work is done in threads of its own."""

    def __init__(
        self,
        settings: ServingSettings,
        metrics: Metrics,
        *,
        max_buffered_rows: int = MAX_BUFFERED_ROWS,
        file_rows: int = FILE_ROWS,
    ) -> None:
        self._metrics = metrics
        self._enabled = settings.housing_prediction_log
        self._flush_seconds = settings.housing_prediction_log_seconds
        self._max_rows = max_buffered_rows
        self._file_rows = file_rows
        # Held for a few instructions, never while anything is waited for.
        self._lock = threading.Lock()
        # Only the last takes answers: once it has enough rows, another follows.
        self._waiting = deque([AnswerColumns()])
        self._buffered_rows = 0
        self._written_rows = 0
        self._dropped_rows = 0
        self._closed = False
        self._over = False
        self._gave_up = False
        # Of the collecting thread alone.
        self._batches: dict[date, list[RecordBatch]] = {}
        self._batched_rows = 0
        self._turns = Turns()
        self._dropped_before = 0
        self._calm_at: float | None = None
        self._wake = threading.Event()
        self._collector = threading.Thread(
            target=self._collect_until_closed, name="prediction-log", daemon=True
        )
        storage = prediction_storage(settings)
        self._target = storage.uri
        self._writer = FileWriter(storage, self._rows_stored, metrics.log_write_failed)
        self._summary = open_wandb_summary(settings)

    def start(self) -> None:
        """Begin to collect and to store."""
        if self._summary is not None:
            self._summary.start()
        if self._enabled:
            self._writer.start()
        self._collector.start()

    def record(self, answer: Answer) -> None:
        """Take an answer to be logged; never blocks, never raises."""
        rows = len(answer.predictions.price)
        enough = False
        try:
            with self._lock:
                if self._closed:
                    refused = SHUTDOWN
                elif self._buffered_rows + rows > self._max_rows:
                    refused = BUFFER_FULL
                else:
                    refused = None
                    self._buffered_rows += rows
                    self._waiting[-1].add(answer)
                    if len(self._waiting[-1]) >= COLLECT_ROWS:
                        enough = True
                        self._waiting.append(AnswerColumns())
        except Exception:  # an answer that makes no sense must cost neither its request nor other answers
            self._give_up(rows)
            return
        if refused is not None:
            self._drop(refused, rows)
        elif enough:
            self._wake.set()

    def close(self, timeout_seconds: float) -> None:
        """Store what is buffered, as far as the time allows, and count the rest as dropped.

        Answers that are recorded later are dropped.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._lock:
            self._closed = True
        self._turns.hurry = True
        if self._collector.ident is not None:
            self._wake.set()
            self._collector.join(timeout_seconds)
            if self._summary is not None:
                self._summary.end()
            self._writer.close(deadline)
            if self._summary is not None:
                self._summary.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            self._over = True
            left, self._buffered_rows = self._buffered_rows, 0
            self._dropped_rows += left
        self._metrics.log_buffered(0)
        if left:
            self._metrics.log_dropped(SHUTDOWN, left)
            logger.error("prediction log lost rows at the end", extra={"rows": left, "target": self._target})

    def status(self) -> LogStatus:
        """How the log is doing."""
        problem = self._writer.problem
        if problem is None and self._calm_at is not None:
            problem = "rows were dropped lately, housing_prediction_log_dropped_rows_total says why"
        with self._lock:
            return LogStatus(
                enabled=self._enabled,
                healthy=problem is None,
                target=self._target,
                buffered_rows=self._buffered_rows,
                written_rows=self._written_rows,
                dropped_rows=self._dropped_rows,
                problem=problem,
            )

    def _collect_until_closed(self) -> None:
        flush_at = time.monotonic() + self._flush_seconds
        while not self._closed:
            self._wake.wait(min(COLLECT_SECONDS, self._flush_seconds))
            self._wake.clear()
            self._turns.begin()
            self._collect()
            if time.monotonic() >= flush_at:
                self._flush()
                flush_at = time.monotonic() + self._flush_seconds
            self._report_drops()
        self._collect()
        self._flush()

    def _flush(self) -> None:
        self._make_files()
        if self._summary is not None:
            self._summary.send()

    def _collect(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, deque([AnswerColumns()])
        while waiting:
            answers = waiting.popleft().batch()
            for start in range(0, len(answers), COLLECT_ROWS):
                self._take(answers.part(slice(start, start + COLLECT_ROWS)))
                if self._batched_rows >= self._file_rows:
                    self._make_files()
                self._turns.offer()
        with self._lock:
            buffered = self._buffered_rows
        self._metrics.log_buffered(buffered)

    def _take(self, batch: AnswerBatch) -> None:
        self._turns.offer()
        try:
            converted = [(day, record_batch(part)) for day, part in batch.by_day()] if self._enabled else []
        except Exception:  # a row that makes no sense must not cost the others
            if len(batch) > 1:
                middle = len(batch) // 2
                self._take(batch.part(slice(middle)))
                self._take(batch.part(slice(middle, None)))
            else:
                self._give_up(1)
            return
        self._turns.offer()
        self._metrics.observe_answers(batch)
        if self._summary is not None:
            self._summary.add(batch)
        if not self._enabled:
            with self._lock:
                self._buffered_rows -= len(batch)
            return
        for day, rows in converted:
            self._batches.setdefault(day, []).append(rows)
        self._batched_rows += len(batch)

    def _give_up(self, rows: int) -> None:
        # Of a defect that meets every answer, one traceback is enough; the metric counts them.
        if not self._gave_up:
            logger.exception("answers could not be logged")
        self._gave_up = True
        with self._lock:
            self._buffered_rows -= rows
        self._drop(BROKEN, rows)

    def _drop(self, reason: str, rows: int) -> None:
        with self._lock:
            self._dropped_rows += rows
        self._metrics.log_dropped(reason, rows)

    def _make_files(self) -> None:
        batches, self._batches, self._batched_rows = self._batches, {}, 0
        for day, parts in batches.items():
            try:
                self._writer.put(prediction_file(day, parts, self._turns))
            except Exception:  # the rows of another day may still make a file
                self._give_up(sum(part.num_rows for part in parts))

    def _rows_stored(self, rows: int) -> None:
        with self._lock:
            if self._over:  # too late: they are counted as dropped
                return
            self._buffered_rows -= rows
            self._written_rows += rows
        self._metrics.log_written(rows)

    def _report_drops(self) -> None:
        # One line when it begins and one when it is over: it may go on and off every second in between.
        with self._lock:
            dropped = self._dropped_rows
        now = time.monotonic()
        if dropped > self._dropped_before:
            if self._calm_at is None:
                logger.warning("prediction log drops rows", extra={"dropped": dropped})
            self._calm_at = now + CALM_SECONDS
        elif self._calm_at is not None and now >= self._calm_at:
            logger.info("prediction log drops no more rows", extra={"dropped": dropped})
            self._calm_at = None
        self._dropped_before = dropped
