"""Processes that do a share of some work, and end with the process that started them."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any


def start_child(work: Callable[..., None], *arguments: Any) -> BaseProcess:  # noqa: ANN401  (passed on)
    """Start a fresh Python process that does the work; when this one is killed, it ends too."""
    process = multiprocessing.get_context("spawn").Process(target=_with_parent, args=(work, *arguments))
    process.start()
    return process


def _with_parent(work: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    # At once: nobody is left to take the result.
    os._exit(1)
