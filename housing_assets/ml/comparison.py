"""What the held-out rows tell of two models: errors, their difference and its bounds, segments, latency."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from housing_assets.ml.segments import DECILES, equal_parts
from housing_serving.bundle import Bundle, Predictions
from housing_serving.features import CATEGORICAL_FEATURE, TARGET, Columns, FloatArray

# Draws held in memory at once by the bootstrap: 8 MB.
DRAWS = 1_000_000
# Calls whose median is a latency, and the seconds after which a slow model is slow enough.
LATENCY_CALLS = {1: 100, 1_000: 9}
LATENCY_MIN_CALLS = 3
LATENCY_SECONDS = 2.0


@dataclass(frozen=True)
class Improvement:
    """Share by which the mean absolute error is below the champion's (negative: above), and its bounds."""

    estimate: float
    at_least: float
    at_most: float


def absolute_errors(answers: Predictions, actual: FloatArray) -> FloatArray:
    """How far each price is off, in dollars; one that is no number is infinitely wrong."""
    errors = np.abs(answers.price - actual)
    return np.where(np.isfinite(errors), errors, np.inf)


def by_category(test: pd.DataFrame) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each `ocean_proximity`, and which rows are of it."""
    category = test[CATEGORICAL_FEATURE].to_numpy()
    for name in sorted(set(category)):
        yield str(name), category == name


def by_price_decile(test: pd.DataFrame) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each tenth of the rows by published price, the cheapest first, and which rows are of it."""
    part = equal_parts(test[TARGET], DECILES)
    for number in range(DECILES):
        yield f"price decile {number + 1}", part == number


def bootstrap_improvement(
    candidate: FloatArray,
    champion: FloatArray,
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 42,
) -> Improvement:
    """How much smaller the candidate's mean absolute error is, by the paired percentile bootstrap.

    Rows are drawn with both of their errors (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapters 8 and 13): errors of two models on a row are alike, and what they share cancels out. Unlike a
    normal approximation it needs no symmetry, which errors with a long tail do not have, and bounds the ratio
    of means itself.

    Args:
        candidate: Absolute errors, shape (n,).
        champion: Absolute errors on the same rows, shape (n,).
        confidence: Of each bound on its own.
        resamples: How often the rows are drawn anew.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)
    rows, chunk = len(candidate), max(1, DRAWS // len(candidate))
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    draws = (generator.integers(0, rows, (size, rows)) for size in sizes)
    resampled = [_smaller(candidate[drawn].mean(axis=1), champion[drawn].mean(axis=1)) for drawn in draws]
    ordered = np.sort(np.concatenate(resampled))
    # By rank: interpolation has no answer next to an infinite error.
    cut = round((1 - confidence) * resamples)
    estimate = _smaller(candidate.mean(keepdims=True), champion.mean(keepdims=True))[0]
    return Improvement(float(estimate), float(ordered[cut]), float(ordered[-1 - cut]))


def _smaller(candidate: FloatArray, champion: FloatArray) -> FloatArray:
    """Share by which the first are below the second; equal values, even zeros or infinities, by nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(candidate == champion, 0.0, 1 - candidate / champion)


def latency_ms(bundle: Bundle, columns: Columns, rows: int) -> float:
    """Median time of a call with that many rows, in milliseconds; rows repeat when there are fewer."""
    started, seconds = time.perf_counter(), list[float]()
    for call in range(LATENCY_CALLS[rows]):
        if call >= LATENCY_MIN_CALLS and time.perf_counter() - started > LATENCY_SECONDS:
            break
        # Other rows each time: a cache that knows one row would flatter the model.
        asked = {name: np.resize(np.roll(values, -call), rows) for name, values in columns.items()}
        begun = time.perf_counter()
        bundle.predict(asked)
        seconds.append(time.perf_counter() - begun)
    return 1_000 * float(np.median(seconds))
