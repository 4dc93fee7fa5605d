"""A day of service through `prediction_log` and `drift_report`: how long it takes, and how much memory.

The day is made of training rows, drawn with replacement, in files like the service's; nothing is measured but
the assets themselves, in a process of their own (`python -m benchmarks.monitoring HOME`).
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from benchmarks.footprint import REPOSITORY
from benchmarks.measuring import Progress, Reading
from benchmarks.models import exported, fitted
from housing_assets.formats import encode
from housing_assets.ml.cleaning import content_hash
from housing_assets.monitoring.prediction_rows import SCHEMA
from housing_assets.storage import LocalStore
from housing_serving.features import RAW_FEATURES, TARGET

DAY = date(2026, 3, 2)
DAY_MICROSECONDS = 86_400_000_000
FILE_ROWS = 20_000
REQUEST_ROWS = 10
MODEL = "benchmark"
FOREST = {"n_estimators": 32, "min_samples_leaf": 9}
GOAL_SECONDS, GOAL_MEGABYTES = 120, 2_000


@dataclass(frozen=True)
class MonitoringScale:
    """How much is measured: predictions of the day, and rows to fit on (None: all)."""

    predictions: int
    fit_rows: int | None


FULL = MonitoringScale(1_000_000, None)
QUICK = MonitoringScale(40_000, 400)


def measure(rows: pd.DataFrame, repeats: int, progress: Progress, scale: MonitoringScale) -> list[Reading]:
    """Seconds of both assets, and the most memory that was resident, over one day."""
    outcomes: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="housing-benchmark-") as name:
        home = Path(name) / "home"
        prepare(home, rows.head(scale.fit_rows or len(rows)), scale.predictions)
        progress(f"{scale.predictions:,} predictions are stored")
        for _ in range(repeats):
            outcomes.append(_monitored(home))
            progress(", ".join(f"{what} {value:.1f}" for what, value in outcomes[-1].items()))
    goals = {
        "prediction_log and drift_report, s": f"{GOAL_SECONDS} for 10 million",
        "most memory, MB": f"{GOAL_MEGABYTES:,} for 10 million",
    }
    return [Reading(what, [one[what] for one in outcomes], goals.get(what, "")) for what in outcomes[0]]


def prepare(home: Path, rows: pd.DataFrame, predictions: int) -> None:
    """A storage root with training rows, the version trained on them, and a day that it answered."""
    store = LocalStore(home / "storage")
    train = f"data/04-split/{MODEL}/train/train.parquet"
    store.write(train, encode(train, rows))
    pipeline = fitted(rows, "RandomForest", FOREST)
    for name, content in exported(pipeline, rows, data_hash=content_hash(rows)).items():
        store.write(f"models/{MODEL}/1/{name}", content)
    generator = np.random.default_rng(0)
    for start in range(0, predictions, FILE_ROWS):
        part = rows.iloc[generator.integers(0, len(rows), min(FILE_ROWS, predictions - start))]
        buffer = pa.BufferOutputStream()
        parquet.write_table(_served(part, start, generator), buffer, compression="snappy")
        store.write(f"monitoring/predictions/{DAY}/{start:09d}.parquet", buffer.getvalue().to_pybytes())


def _served(rows: pd.DataFrame, start: int, generator: np.random.Generator) -> pa.Table:
    numbers = start + np.arange(len(rows))
    moments = np.datetime64(DAY, "us") + np.sort(generator.integers(0, DAY_MICROSECONDS, len(rows)))
    price = rows[TARGET].to_numpy() * generator.normal(1, 0.1, len(rows)).clip(0.5)
    frame = rows[list(RAW_FEATURES)].assign(
        request_id=[f"{number // REQUEST_ROWS:032x}" for number in numbers],
        instance=(numbers % REQUEST_ROWS).astype(np.int32),
        answered_at=pd.DatetimeIndex(moments, tz="UTC"),
        latency_ms=generator.gamma(2, 2, len(rows)),
        model_version="1",
        predicted_price=price,
        lower=0.7 * price,
        upper=1.3 * price,
        level=0.9,
    )
    return pa.Table.from_pandas(frame, SCHEMA, preserve_index=False)


def _monitored(home: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.monitoring", str(home)],
        cwd=REPOSITORY,
        env={**os.environ, "HOUSING_DEPLOYMENT": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the day could not be monitored: {done.stderr[-2000:]}")
    outcome: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def main(home: Path) -> dict[str, float]:
    """Materialize both assets on the day, and say what it took."""
    import dagster as dg  # noqa: PLC0415  (seconds to import)

    from housing_assets.assets.drift_report import drift_report  # noqa: PLC0415
    from housing_assets.assets.prediction_log import prediction_log  # noqa: PLC0415
    from housing_assets.deployments import build_resources  # noqa: PLC0415
    from housing_assets.settings import Settings  # noqa: PLC0415

    settings = Settings(_env_file=None).model_copy(update={"home": home, "mlflow_model_name": MODEL})
    result = dg.materialize(
        [prediction_log, drift_report], partition_key=str(DAY), resources=build_resources(settings)
    )
    seconds = {
        str(event.step_key): event.step_success_data.duration_ms / 1_000
        for event in result.all_events
        if event.is_step_success
    }
    return {
        **{f"{step}, s": taken for step, taken in seconds.items()},
        "prediction_log and drift_report, s": sum(seconds.values()),
        "most memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
