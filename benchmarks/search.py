"""The sweep over a family's search space: with early stopping, and every trial to its end in five folds.

The peer scores the very settings that the sweep tried, so its best score is the best that these trials can
give, and the difference between the scores tells what stopping early has cost.
"""

from typing import Any

import pandas as pd

from benchmarks.measuring import Figure, Progress, timed
from benchmarks.models import ServedModel
from housing_assets.ml.search_spaces import load_search_spaces
from housing_assets.ml.selection import CRITERION, Fold, mean_metrics, prepare_folds, score_folds
from housing_assets.ml.sweep import SweepResult, run_sweep

FOLDS, PEER_FOLDS = 3, 5
# How many times sooner the sweep shall end.
GOAL = "5"


def measure(rows: pd.DataFrame, repeats: int, progress: Progress, *, trials: int = 8) -> list[Figure]:
    """Seconds of each search and its best score, with another seed in every repeat.

    Searched are the published forest's space on the published features, and the chosen family's on all.
    """
    return [
        figure
        for served in reversed(ServedModel)
        for figure in _measure(
            served.setting[0],
            prepare_folds(rows, FOLDS, features=served.features),
            prepare_folds(rows, PEER_FOLDS, features=served.features),
            *(repeats, progress, trials),
        )
    ]


def _measure(
    family: str, folds: list[Fold], peer_folds: list[Fold], repeats: int, progress: Progress, trials: int
) -> list[Figure]:
    ours, theirs, our_scores, their_scores = [], [], [], []
    for seed in range(repeats):
        seconds, sweep = timed(lambda seed=seed: _sweep(family, folds, trials, seed))  # type: ignore[misc]
        ours.append(seconds)
        progress(f"{family}, {trials} trials: {seconds:.1f} s")
        settings = _settings(sweep)
        seconds, scores = timed(lambda seed=seed, tried=settings: _plain(family, peer_folds, tried, seed))  # type: ignore[misc]
        theirs.append(seconds)
        # Ours is judged in the peer's folds too.
        our_scores.append(scores[settings.index(dict(sweep.best_params.hyperparameters))])
        their_scores.append(min(scores))
        progress(
            f"{family}, all to their end: {seconds:.1f} s; best {CRITERION} {min(scores):.3f}, "
            f"that of the sweep {our_scores[-1]:.3f}"
        )
    subject = f"{family} sweep of {trials} trials, stopping early"
    peer = f"the same settings, {PEER_FOLDS} folds each"
    score = f"best {CRITERION} in {PEER_FOLDS} folds, %"
    return [
        Figure(subject, "seconds", peer, ours, theirs, goal=GOAL),
        Figure(subject, score, peer, our_scores, their_scores),
    ]


def _sweep(family: str, folds: list[Fold], trials: int, seed: int) -> SweepResult:
    space = load_search_spaces()[family]
    return run_sweep(folds, family, space, n_trials=trials, seed=seed, study_name="benchmark")


def _settings(sweep: SweepResult) -> list[dict[str, Any]]:
    names = list(sweep.best_params.hyperparameters)
    # Through object, so that whole numbers stay whole.
    columns = [sweep.trials[name].astype(object) for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _plain(family: str, folds: list[Fold], settings: list[dict[str, Any]], seed: int) -> list[float]:
    """The criterion of each setting, as mean over all folds."""
    scores = score_folds(family, [(params, fold) for params in settings for fold in folds], seed)
    by_setting = [scores[start : start + len(folds)] for start in range(0, len(scores), len(folds))]
    return [mean_metrics(of_one)[CRITERION] for of_one in by_setting]
