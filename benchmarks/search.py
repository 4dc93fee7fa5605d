"""The sweep over the forest's search space: with early stopping, and every trial to its end.

The peer scores the very settings that the sweep tried, each on all three folds. Its best score is the best
that these trials can give, so the ratio of the scores tells what stopping early has cost.
"""

from typing import Any

import pandas as pd

from benchmarks.measuring import Figure, Progress, figures, timed
from housing_assets.ml.search_spaces import load_search_spaces
from housing_assets.ml.selection import CRITERION, Fold, mean_metrics, prepare_folds, score_folds
from housing_assets.ml.sweep import SweepResult, run_sweep

FAMILY = "RandomForest"
FOLDS = 3
SCORE = f"best {CRITERION}, %"


def measure(rows: pd.DataFrame, repeats: int, progress: Progress, *, trials: int = 8) -> list[Figure]:
    """Seconds of the search and its best score, with another seed in every repeat."""
    folds = prepare_folds(rows, FOLDS)
    ours, theirs = [], []
    for seed in range(repeats):
        seconds, sweep = timed(lambda seed=seed: _sweep(folds, trials, seed))  # type: ignore[misc]
        ours.append({"seconds": seconds, SCORE: sweep.best_params.metrics[CRITERION]})
        settings = _settings(sweep)
        seconds, best = timed(lambda seed=seed, tried=settings: _plain(folds, tried, seed))  # type: ignore[misc]
        theirs.append({"seconds": seconds, SCORE: best})
        progress(
            f"{trials} trials: {ours[-1]['seconds']:.1f} s, {CRITERION} {ours[-1][SCORE]:.3f}; "
            f"all to their end: {seconds:.1f} s, {CRITERION} {best:.3f}"
        )
    peer = f"the same {trials} settings, {FOLDS} folds each"
    return figures(f"forest sweep of {trials} trials, stopping early", peer, ours, theirs)


def _sweep(folds: list[Fold], trials: int, seed: int) -> SweepResult:
    space = load_search_spaces()[FAMILY]
    return run_sweep(folds, FAMILY, space, n_trials=trials, seed=seed, study_name="benchmark")


def _settings(sweep: SweepResult) -> list[dict[str, Any]]:
    names = list(sweep.best_params.hyperparameters)
    # Through object, so that whole numbers stay whole.
    columns = [sweep.trials[name].astype(object) for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _plain(folds: list[Fold], settings: list[dict[str, Any]], seed: int) -> float:
    scores = score_folds(FAMILY, [(params, fold) for params in settings for fold in folds], seed)
    by_setting = [scores[start : start + len(folds)] for start in range(0, len(scores), len(folds))]
    return min(mean_metrics(of_one)[CRITERION] for of_one in by_setting)
