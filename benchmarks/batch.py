"""Prices of a whole table: in process by one processor, and `housing predict` on a CSV file.

The model has the size of the one that usually wins; it is fitted on training rows, and its intervals are
scaled by a second model, as those of a released version are. The rows are training rows, drawn with
replacement, their counts and incomes changed at random; their places stay published ones, which come again
and again, unless it is said that they are all new.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.footprint import REPOSITORY
from benchmarks.measuring import MeasurementRefused, Progress, Reading, timed
from benchmarks.models import SERVED, exported, fitted
from housing_assets.ml.columns import columns_of
from housing_serving.bundle import Bundle
from housing_serving.features import RAW_FEATURES

PER_PROCESSOR = "rows/s of one processor, intervals included"
AT_NEW_PLACES = "the same, no place twice"
SECONDS = "housing predict, s"
MEMORY = "most memory of it, MB"
GOALS = {PER_PROCESSOR: "50,000; 200,000 wished", SECONDS: "60 for 1 million", MEMORY: "1,000"}


@dataclass(frozen=True)
class BatchScale:
    """How much is measured: rows of the file, rows in process, and rows to fit on (None: all)."""

    file_rows: int
    process_rows: int
    fit_rows: int | None


FULL = BatchScale(1_000_000, 250_000, None)
QUICK = BatchScale(20_000, 10_000, 400)


def measure(rows: pd.DataFrame, repeats: int, progress: Progress, scale: BatchScale) -> list[Reading]:
    """Rows per second in process, and seconds and memory of the command."""
    with tempfile.TemporaryDirectory(prefix="housing-benchmark-") as name:
        folder = Path(name)
        fit_rows = rows.head(scale.fit_rows or len(rows))
        bundle = folder / "bundle"
        bundle.mkdir()
        for file, content in exported(fitted(fit_rows, *SERVED), fit_rows, family=SERVED[0]).items():
            (bundle / file).write_bytes(content)
        drawn(rows, scale.file_rows, seed=0).to_csv(folder / "rows.csv", index=False)
        progress(f"a model of {SERVED[0]} and {scale.file_rows:,} rows are stored")
        found: dict[str, list[float]] = {}
        for repeat in range(repeats):
            readings = {
                **_in_process(Bundle.load(bundle), rows, scale.process_rows, seed=1 + repeat),
                **_by_command(folder, bundle, scale.file_rows),
            }
            for what, value in readings.items():
                found.setdefault(what, []).append(value)
            progress(", ".join(f"{what} {value:,.1f}" for what, value in readings.items()))
    return [Reading(what, values, GOALS.get(what, "")) for what, values in found.items()]


def drawn(rows: pd.DataFrame, count: int, *, seed: int, new_places: bool = False) -> pd.DataFrame:
    """Plausible block groups: features of rows, with noise that keeps them possible."""
    generator = np.random.default_rng(seed)
    chosen = rows[list(RAW_FEATURES)].iloc[generator.integers(0, len(rows), count)].reset_index(drop=True)
    for name in ("total_rooms", "total_bedrooms", "population", "households"):
        chosen[name] = np.maximum(np.rint(chosen[name] * generator.normal(1, 0.1, count)), 1)
    chosen["median_income"] = (
        (chosen["median_income"] * generator.normal(1, 0.1, count)).clip(0.1, 20).round(4)
    )
    if new_places:
        for name in ("longitude", "latitude"):
            chosen[name] += generator.uniform(-0.01, 0.01, count)
    return chosen


def _in_process(bundle: Bundle, rows: pd.DataFrame, count: int, *, seed: int) -> dict[str, float]:
    # The first call of a process allocates what later ones use.
    bundle.predict(columns_of(drawn(rows, 1_000, seed=0)))
    found = {}
    for what, new_places in ((PER_PROCESSOR, False), (AT_NEW_PLACES, True)):
        columns = columns_of(drawn(rows, count, seed=seed, new_places=new_places))
        # Processor time: what else runs on the machine is not what is measured.
        started = time.process_time()
        bundle.predict(columns)
        found[what] = count / (time.process_time() - started)
    return found


def _by_command(folder: Path, bundle: Path, count: int) -> dict[str, float]:
    output = folder / "priced.csv"
    command = [sys.executable, "-m", "housing_assets", "predict", str(folder / "rows.csv")]
    arguments = ["--bundle", str(bundle), "--output", str(output)]
    with (folder / "told").open("w+") as told:
        process = subprocess.Popen([*command, *arguments], cwd=REPOSITORY, stderr=told)
        seconds, (_, status, usage) = timed(lambda: os.wait4(process.pid, 0))
        process.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        if process.returncode:
            raise MeasurementRefused(
                f"housing predict ended with {process.returncode}: {told.read()[-2000:]}"
            )
    with output.open("rb") as file:
        lines = sum(1 for _ in file)
    if lines != count + 1:
        raise MeasurementRefused(f"housing predict wrote {lines - 1:,} rows of {count:,}")
    return {SECONDS: seconds, MEMORY: usage.ru_maxrss / 1_000}
