"""The sweep over a search space by two processes on one study, and by one.

Every process has one processor: a fit takes all that its process may use, so a process without that bound
would leave nothing for a second one. The clock starts when every process is ready to begin.
"""

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from benchmarks.measuring import Figure, MeasurementRefused, Progress, timed
from benchmarks.models import SERVED
from benchmarks.search import FOLDS
from housing_assets.ml.child_process import start_child
from housing_assets.ml.search_spaces import load_search_spaces
from housing_assets.ml.selection import Fold, prepare_folds
from housing_assets.ml.sweep import SweepResult, run_sweep

FAMILY = SERVED[0]
PROCESSES = 2
# Enough for a fit to take much longer than what processes have to tell each other.
ROWS = 3_000
GOAL = "1.6"


def measure(rows: pd.DataFrame, repeats: int, progress: Progress, *, trials: int = 16) -> list[Figure]:
    """Seconds of the search by two processes and by one, with another seed in every repeat."""
    folds = prepare_folds(rows.head(ROWS), FOLDS)
    ours: list[float] = []
    theirs: list[float] = []
    for seed in range(repeats):
        for processes, seconds in ((PROCESSES, ours), (1, theirs)):
            seconds.append(_seconds(folds, trials, seed, processes))
        progress(f"{trials} trials: {PROCESSES} processes {ours[-1]:.1f} s, one {theirs[-1]:.1f} s")
    subject = f"{FAMILY} sweep of {trials} trials by {PROCESSES} processes"
    return [Figure(subject, "seconds", "one process", ours, theirs, goal=GOAL)]


def _seconds(folds: Sequence[Fold], trials: int, seed: int, processes: int) -> float:
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < processes:
        raise MeasurementRefused(f"{processes} processes need as many processors, not {len(processors)}")
    ready = multiprocessing.get_context("spawn").Barrier(processes + 1)
    with TemporaryDirectory() as folder:
        study = (folds, trials, seed, Path(folder))
        workers = [start_child(_work, one, ready, *study) for one in processors[:processes]]
        ready.wait()
        seconds, _ = timed(lambda: _join(workers))
        if any(worker.exitcode for worker in workers):
            raise MeasurementRefused("a process of the sweep failed")
        if len(list(Path(folder).iterdir())) != 1:
            raise MeasurementRefused("the processes did not work on one study")
    return seconds


def _join(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        worker.join()


def _work(
    processor: int, ready: Barrier, folds: Sequence[Fold], trials: int, seed: int, folder: Path
) -> None:
    os.sched_setaffinity(0, {processor})
    ready.wait()
    _sweep(folds, trials, seed, folder)


def _sweep(folds: Sequence[Fold], trials: int, seed: int, folder: Path) -> SweepResult:
    space = load_search_spaces()[FAMILY]
    return run_sweep(folds, FAMILY, space, n_trials=trials, seed=seed, study_name="benchmark", folder=folder)
