"""What callers notice of a release: the latency of a fleet while it is redeployed, next to that of its rest.

Four processes with the default model family answer 16 connections. In every repeat they first rest, then get
one version after the other, each as soon as the one before has surely been loaded.
"""

import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks import wrk
from benchmarks.measuring import Figure, Progress
from benchmarks.models import exported, fitted
from benchmarks.processes import Command, running
from benchmarks.sides import records, write_bodies
from housing_assets.deployment import release
from housing_assets.deployment.fleet import FleetTarget
from housing_assets.storage import ObjectStore, open_store

MODEL = "benchmark"
PROCESSES = 4
CONNECTIONS = 16
VERSIONS = (1, 2)
# The default family, as large as its small grid has it.
BOOSTING = {
    "n_estimators": 200,
    "learning_rate": 0.1,
    "max_depth": 8,
    "subsample": 0.8,
    "max_features": "sqrt",
}
# Longer than a process takes to look at the record.
SECONDS_BETWEEN = 2.5


@dataclass(frozen=True)
class ReleasingScale:
    """How much is measured: rows to fit on (None: all), and seconds of each load."""

    fit_rows: int | None
    load_seconds: int


FULL = ReleasingScale(None, 15)
QUICK = ReleasingScale(200, 3)


def measure(rows: pd.DataFrame, repeats: int, progress: Progress, scale: ReleasingScale) -> list[Figure]:
    """The 99th percentile of the latency while versions change, next to the one at rest.

    Raises:
        MeasurementRefused: a request failed.
    """
    resting, changing = [], []
    with tempfile.TemporaryDirectory(prefix="housing-benchmark-") as name:
        folder = Path(name)
        store = open_store(str(folder / "home" / "storage"))
        _store_versions(rows.head(scale.fit_rows or len(rows)), store)
        target = FleetTarget(store, [])
        release.promote(target, VERSIONS[0], "benchmark", "to begin with")
        bodies = write_bodies(records(rows), 1, folder)
        environment = {
            "PORT": "{port}",
            "HOUSING_HOME": str(folder / "home"),
            "MLFLOW_MODEL_NAME": MODEL,
            "WEB_CONCURRENCY": str(PROCESSES),
        }
        with running(Command([sys.executable, "-m", "housing_serving"], environment), folder) as server:
            url = server.url("/api/v1/predict")
            for _ in range(repeats):
                resting.append(1_000 * wrk.p99_seconds(url, bodies, CONNECTIONS, scale.load_seconds))
                with _redeploying(target):
                    changing.append(1_000 * wrk.p99_seconds(url, bodies, CONNECTIONS, scale.load_seconds))
                progress(f"p99 at rest {resting[-1]:.1f} ms, while redeploying {changing[-1]:.1f} ms")
    subject = f"{PROCESSES} processes, {CONNECTIONS} connections"
    return [Figure(subject, "p99 while redeploying, ms", "itself at rest", changing, resting, goal="0.5")]


def _store_versions(rows: pd.DataFrame, store: ObjectStore) -> None:
    pipeline = fitted(rows, "GradientBoosting", BOOSTING)
    for version in VERSIONS:
        for name, content in exported(pipeline, rows, version).items():
            store.write(f"models/{MODEL}/{version}/{name}", content)


@contextmanager
def _redeploying(target: FleetTarget) -> Iterator[None]:
    """Let one version follow the other until the end of the block."""
    over = threading.Event()

    def change_again_and_again() -> None:
        while not over.wait(SECONDS_BETWEEN):
            stable = target.status().stable
            release.promote(target, VERSIONS[stable == VERSIONS[0]], "benchmark", "the other one")

    changing = threading.Thread(target=change_again_and_again)
    changing.start()
    try:
        yield
    finally:
        over.set()
        changing.join()
