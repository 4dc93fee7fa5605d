"""Giving memory back to the system: the C library keeps what was freed, several times what a worker needs."""

import ctypes
from contextlib import suppress


def return_free_memory() -> None:
    """Let the system have what is free; does nothing where the C library is not GNU's."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
