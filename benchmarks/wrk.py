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
        seconds: For how long; wrk knows no fractions.

    Raises:
        MeasurementRefused: an answer was no success, a connection broke, or nothing was answered.
    """
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
    counts = json.loads(result.removeprefix("RESULT "))
    failures = {name: counts[name] for name in FAILURES if counts[name]}
    if failures:
        raise MeasurementRefused(
            f"{url}, {connections} connections: of {counts['requests']} requests, {failures}"
        )
    if not counts["requests"]:
        raise MeasurementRefused(f"{url}: no answer within {seconds} s: is the machine busy?")
    answered: int = counts["requests"]
    microseconds: int = counts["microseconds"]
    return 1e6 * answered / microseconds
