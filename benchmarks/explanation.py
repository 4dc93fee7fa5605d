"""Why a price is as it is: our explanation of a large boosted model, and that of LightGBM itself.

Both are exact and give the same values, so only time is compared.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from lightgbm import LGBMRegressor

from benchmarks.measuring import Figure, Progress, timed
from housing_assets.ml.explanation import explanation_file
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.preprocessing import fit_preprocessing
from housing_serving.explanation import AdditiveModel, Explainer
from housing_serving.features import TARGET, FloatArray

PEER = "LightGBM's pred_contrib"
LEAVES = 31
# Rows per request, and requests per repeat: enough of them to last longer than the clock's noise.
REQUESTS = {1: 10, 20: 2}
# Dollars.
TOLERANCE = 1e-5

# Rows of the model's input, and their prices, which every explanation is checked against.
Request = tuple[FloatArray, FloatArray]
Explain = Callable[[Request], FloatArray]


def measure(rows: pd.DataFrame, repeats: int, progress: Progress, *, trees: int) -> list[Figure]:
    """Milliseconds to explain one row, and as many as a request may have; every request has other rows."""
    matrix = fit_preprocessing(BedroomImputer().fit(rows), rows).transform(rows)
    model = LGBMRegressor(
        n_estimators=trees, num_leaves=LEAVES, learning_rate=0.05, min_child_samples=5, n_jobs=1, verbose=-1
    ).fit(matrix, rows[TARGET].to_numpy(dtype=np.float64))
    explain, explain_there = _ours(model, matrix.shape[1]), _theirs(model)
    measured = []
    for size, requests in REQUESTS.items():
        batches = [_batch(matrix, size, number) for number in range(requests)]
        asked = [(batch, model.predict(batch)) for batch in batches]
        _insist_on_equal_values(explain(asked[0]), explain_there(asked[0]))
        ours, theirs = [], []
        for _ in range(repeats):
            ours.append(_milliseconds(explain, asked))
            theirs.append(_milliseconds(explain_there, asked))
            progress(f"{size} row(s): {ours[-1]:.1f} ms, {PEER} {theirs[-1]:.1f} ms")
        subject = f"explain {size} row{'s' if size > 1 else ''} of {trees:,} trees"
        measured.append(Figure(subject, "milliseconds", PEER, ours, theirs))
    return measured


def _ours(model: LGBMRegressor, width: int) -> Explain:
    explainer = Explainer(AdditiveModel.read(explanation_file(model, width), width), [""] * width)
    return lambda request: explainer.explain(*request).contributions


def _theirs(model: LGBMRegressor) -> Explain:
    # Its last column is the base value.
    return lambda request: model.predict(request[0], pred_contrib=True)[:, :-1]


def _insist_on_equal_values(ours: FloatArray, theirs: FloatArray) -> None:
    if not np.allclose(ours, theirs, rtol=0, atol=TOLERANCE):
        raise RuntimeError("the explanations differ: their times cannot be compared")


def _batch(matrix: FloatArray, size: int, number: int) -> FloatArray:
    return matrix[np.arange(number * size, (number + 1) * size) % len(matrix)]


def _milliseconds(explain: Explain, requests: list[Request]) -> float:
    def explain_all() -> None:
        for request in requests:
            explain(request)

    seconds, _ = timed(explain_all)
    return 1_000 * seconds / len(requests)
