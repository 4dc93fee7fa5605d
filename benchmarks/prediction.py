"""One price, and a hundred: the stored bundle, and the scikit-learn pipeline it was exported from.

The peer is the very pipeline that the bundle was made of, asked with a data frame, as a service would that
loads the logged model. Both give the same prices, so only time is compared.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from benchmarks.measuring import Figure, Progress, timed
from benchmarks.models import exported, fitted
from housing_assets.ml.columns import columns_of
from housing_assets.ml.training import predict
from housing_serving.bundle import Bundle
from housing_serving.features import FloatArray

TREES = 100
PEER = "the scikit-learn pipeline"
# Requests per repeat by rows per request: enough of them to last longer than the clock's noise.
REQUESTS = {1: 60, 100: 30}


def measure(rows: pd.DataFrame, repeats: int, progress: Progress) -> list[Figure]:
    """Milliseconds per request of one row and of a hundred; every request asks for other rows."""
    pipeline = fitted(rows, "RandomForest", {"n_estimators": TREES})
    bundle = Bundle.from_files(exported(pipeline, rows), origin="the benchmark's bundle")
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
