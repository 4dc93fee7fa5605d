"""Saturating load: wrk keeps a number of connections busy and counts the answers.

wrk is closed-loop: a connection asks again once it is answered. Latency at a fixed rate is `open_loop`'s.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.measuring import MeasurementRefused

SCRIPT = Path(__file__).parent / "wrk.lua"
# Longer than any queue that a measurement builds up: a slow answer is counted, not given up.
TIMEOUT_SECONDS = 120
# Fewer are no rate: a load then lasts this many times longer.
FEWEST_ANSWERS = 10
LONGER = 5
FAILURES = ("connect", "read", "write", "status", "timeout")


def installed() -> bool:
    """Whether wrk is there."""
    return shutil.which("wrk") is not None


def requests_per_second(url: str, bodies: Path, connections: int, seconds: int) -> float:
    """Answers per second, all of them successes.

    Args:
        url: Where to post to.
        bodies: A file with a request body on every line.
        connections: How many ask at once.
        seconds: For how long, in whole seconds; longer where that gives only a handful of answers.

    Raises:
        MeasurementRefused: an answer was no success, a connection broke, or nothing was answered.
    """
    counts = _load(url, bodies, connections, seconds)
    if counts["requests"] < FEWEST_ANSWERS:
        counts = _load(url, bodies, connections, LONGER * seconds)
    took = counts["microseconds"] / 1e6
    if not counts["requests"]:
        raise MeasurementRefused(f"{url}: no answer within {took:.0f} s")
    return counts["requests"] / took


def p99_seconds(url: str, bodies: Path, connections: int, seconds: int) -> float:
    """The 99th percentile of the latency under a saturating load, all of whose answers are successes.

    Raises:
        MeasurementRefused: as `requests_per_second`.
    """
    counts = _load(url, bodies, connections, seconds)
    if not counts["requests"]:
        raise MeasurementRefused(f"{url}: no answer within {seconds} s")
    return counts["p99"] / 1e6


def _load(url: str, bodies: Path, connections: int, seconds: int) -> dict[str, int]:
    """What wrk counted; microseconds."""
    command = [
        *("wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"),
        *("--timeout", f"{TIMEOUT_SECONDS}s", "--script", str(SCRIPT), url),
    ]
    done = subprocess.run(
        command, env={**os.environ, "BODIES": str(bodies)}, capture_output=True, text=True, check=False
    )
    result = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if done.returncode or result is None:
        raise MeasurementRefused(f"wrk failed on {url}: {done.stderr.strip() or done.stdout.strip()}")
    counts: dict[str, int] = json.loads(result.removeprefix("RESULT "))
    if failures := {name: counts[name] for name in FAILURES if counts[name]}:
        raise MeasurementRefused(f"{url}: of {counts['requests']} requests failed {failures}")
    return counts
