"""Giving memory back to the system: the C library keeps what was freed, several times what a worker needs."""

import ctypes
from contextlib import suppress

# Parameters of mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGE_BYTES = 128 * 1024


def return_free_memory() -> None:
    """Let the system have what is free; does nothing where the C library is not GNU's."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_little_free() -> None:
    """From now on, give back large pieces as soon as they are free.

    The C library raises both thresholds to the largest piece it has seen freed, tens of megabytes in the end.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, LARGE_BYTES)
