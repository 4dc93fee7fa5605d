"""A Python whose clock stands `CLOCK_SHIFT_SECONDS` off: a folder for PYTHONPATH, so a day can be another."""

import os
import time

_shift = float(os.environ.get("CLOCK_SHIFT_SECONDS", "0"))
_now = time.time
time.time = lambda: _now() + _shift
