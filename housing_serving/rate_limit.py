"""How many requests each caller may make, counted in the memory of one process.

Imported only when HOUSING_RATE_LIMIT is set: `limits` takes a tenth of a second to load.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass

from limits import parse_many
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

# Some 20 MB. With more callers than this, who has been quiet longest starts anew.
MAX_WINDOWS = 50_000


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a caller stands with the limit that is nearest.

    Attributes:
        allowed: whether this request may be answered.
        limit: requests in a window.
        remaining: requests left in this one.
        reset_seconds: time until the next one.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: float


class RateLimit:
    """One or more limits on every caller. Not for use by several threads at once.

    A window begins with a caller's first request. Refused requests do not count, so that a caller who keeps
    trying is served again as soon as the window ends.
    """

    def __init__(self, text: str, max_windows: int = MAX_WINDOWS) -> None:
        self._items = parse_many(text)
        self._windows = FixedWindowRateLimiter(_Windows(max_windows))

    def request(self, caller: str) -> Standing:
        """Count a request of this caller, if it is allowed."""
        allowed = all(self._windows.test(item, caller) for item in self._items)
        if allowed:
            for item in self._items:
                self._windows.hit(item, caller)
        now = time.time()
        return min(
            (
                Standing(allowed, item.amount, remaining, max(0.0, reset_time - now))
                for item in self._items
                for reset_time, remaining in [self._windows.get_window_stats(item, caller)]
            ),
            key=lambda standing: (standing.remaining, -standing.reset_seconds),
        )


class _Windows(Storage):
    """A count and its end for each limit of each caller.

    The package's own storage has no bound, and looks through all of its keys up to a hundred times a second.
    """

    STORAGE_SCHEME = None

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._windows: OrderedDict[str, tuple[int, float]] = OrderedDict()

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """There is nothing that could fail."""
        return ()

    def _window(self, key: str) -> tuple[int, float] | None:
        window = self._windows.get(key)
        if window is None or window[1] <= time.time():
            return None
        # Being asked for is activity too: a caller who is refused all the time must not be forgotten for it.
        self._windows.move_to_end(key)
        return window

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count, in a new window of `expiry` seconds if there is none."""
        count, end = self._window(key) or (0, time.time() + expiry)
        self._windows[key] = count + amount, end
        self._windows.move_to_end(key)
        if len(self._windows) > self._most:
            self._windows.popitem(last=False)
        return count + amount

    def get(self, key: str) -> int:
        """The count in the current window."""
        window = self._window(key)
        return window[0] if window else 0

    def get_expiry(self, key: str) -> float:
        """When the current window ends, in seconds since 1970."""
        window = self._window(key)
        return window[1] if window else time.time()

    def check(self) -> bool:
        """Memory is always there."""
        return True

    def reset(self) -> int:
        """Forget all windows."""
        count = len(self._windows)
        self._windows.clear()
        return count

    def clear(self, key: str) -> None:
        """Forget one window."""
        self._windows.pop(key, None)
