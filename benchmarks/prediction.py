"""One price, and a hundred: the stored bundle, and the scikit-learn pipeline it was exported from.

The peer is the very pipeline that the bundle was made of, asked with a data frame, as a service would that
loads the logged model. Both give the same prices, so only time is compared.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from benchmarks.measuring import Figure, Progress, timed
from housing_assets.ml.columns import columns_of
from housing_assets.ml.export import bundle_files
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.preprocessing import fit_preprocessing
from housing_assets.ml.training import Interval, fit_model, predict
from housing_serving.bundle import Bundle
from housing_serving.features import FloatArray

TREES = 100
PEER = "the scikit-learn pipeline"
# Requests per repeat by rows per request: enough of them to last longer than the clock's noise.
REQUESTS = {1: 60, 100: 30}


def measure(rows: pd.DataFrame, repeats: int, progress: Progress) -> list[Figure]:
    """Milliseconds per request of one row and of a hundred; every request asks for other rows."""
    pipeline = _fitted(rows)
    bundle = _exported(pipeline, rows)
    measured = []
    for size, requests in REQUESTS.items():
        frames = [_batch(rows, size, number) for number in range(requests)]
        columns = [columns_of(frame) for frame in frames]
        _insist_on_equal_prices(bundle, pipeline, frames[0], columns[0])
        ours, theirs = [], []
        for _ in range(repeats):
            ours.append(_milliseconds(bundle.predict, columns))
            theirs.append(_milliseconds(lambda frame: predict(pipeline, frame), frames))
            progress(f"{size} row(s): {ours[-1]:.3f} ms, the pipeline {theirs[-1]:.3f} ms")
        subject = f"predict {size} row{'s' if size > 1 else ''}: the bundle"
        measured.append(Figure(subject, "milliseconds", PEER, ours, theirs))
    return measured


def _fitted(rows: pd.DataFrame) -> Pipeline:
    preprocessing = fit_preprocessing(BedroomImputer().fit(rows), rows)
    return fit_model(preprocessing, rows, "RandomForest", {"n_estimators": TREES})


def _exported(pipeline: Pipeline, rows: pd.DataFrame) -> Bundle:
    files = bundle_files(
        pipeline,
        rows,
        model_name="benchmark",
        model_version=1,
        algorithm="RandomForest",
        snapshot="benchmark",
        data_hash="benchmark",
        git_commit="unknown",
        created_at=datetime.now(UTC),
        metrics={},
        interval=Interval(0.9, -1.0, 1.0),
    )
    return Bundle.from_files(files, origin="the benchmark's bundle")


def _batch(rows: pd.DataFrame, size: int, number: int) -> pd.DataFrame:
    positions = np.arange(number * size, (number + 1) * size) % len(rows)
    return rows.iloc[positions].reset_index(drop=True)


def _insist_on_equal_prices(
    bundle: Bundle, pipeline: Pipeline, frame: pd.DataFrame, columns: Mapping[str, NDArray[Any]]
) -> None:
    expected: FloatArray = predict(pipeline, frame)
    if not np.array_equal(bundle.predict(columns).price, expected):
        raise RuntimeError("bundle and pipeline differ: their times cannot be compared")


def _milliseconds(ask: Callable[[Any], object], requests: list[Any]) -> float:
    def ask_all() -> None:
        for request in requests:
            ask(request)

    seconds, _ = timed(ask_all)
    return 1_000 * seconds / len(requests)
