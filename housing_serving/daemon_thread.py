"""Work that may hang, or must not be noticed, in a thread that nobody has to wait for."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

# So that requests come first where processors are short; only Linux has it per thread.
NICENESS = 10


def in_daemon_thread(call: Callable[[], T]) -> tuple[threading.Thread, asyncio.Future[T]]:
    """Run a call that may hang where it keeps neither the event loop nor the end of the process waiting."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        # A loop that was closed meanwhile has nobody who waits for the outcome.
        with suppress(RuntimeError):
            try:
                result = call()
            except Exception as error:
                loop.call_soon_threadsafe(settle, None, error)
            else:
                loop.call_soon_threadsafe(settle, result, None)

    thread = threading.Thread(target=run, name="background", daemon=True)
    thread.start()
    return thread, future


def politely(call: Callable[[], T]) -> Callable[[], T]:
    """A call that gives way to everything else the machine has to do; for a thread of its own."""

    def call_politely() -> T:
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        return call()

    return call_politely
