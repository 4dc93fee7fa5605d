"""The time that one look at a model source may take in all, its retries included."""

import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

import tenacity

T = TypeVar("T")

ATTEMPTS = 3
LONGEST_PAUSE_SECONDS = 2.0
# To connect, and between two pieces of an answer; less where less time is left.
CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0


class Deadline:
    """A number of seconds that begins to run when the object is made; entered while the look goes on.

    Time-outs of sockets count from one piece of an answer to the next, so a peer that drips could hold a look
    for ever. When the time is up, every watched socket is shut down: whoever reads from it fails at once.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._shut_all)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return self._left() == 0.0

    @property
    def timeouts(self) -> tuple[float, float]:
        """Seconds to connect and to wait for the next piece of an answer, above zero."""
        left = max(self._left(), 0.001)
        return min(CONNECT_SECONDS, left), min(READ_SECONDS, left)

    def watch(self, connected: socket.socket) -> None:
        """Shut this socket down when the time is up."""
        with self._lock:
            self._sockets.add(connected)
        if self.passed:
            self._shut_all()

    def retry(self, call: Callable[[], T], is_transient: Callable[[BaseException], bool]) -> T:
        """The result of a call that is tried again, with growing random pauses, after passing failures.

        Raises:
            Exception: that of the last try.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_transient),
            stop=tenacity.stop_after_attempt(ATTEMPTS) | tenacity.stop_before_delay(self._left()),
            wait=tenacity.wait_random_exponential(multiplier=0.25, max=LONGEST_PAUSE_SECONDS),
            reraise=True,
        )
        return retrying(call)

    def _left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def _shut_all(self) -> None:
        with self._lock:
            watched = list(self._sockets)
        for connected in watched:
            # One that is closed already has nobody who reads from it.
            with suppress(OSError):
                # Not the method of a TLS socket, which takes its state away under the reader's feet.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)
