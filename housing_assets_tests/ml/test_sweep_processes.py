"""Processes that are killed during a sweep, and several on one study: nothing is done twice, nothing is lost.

`SWEEP_KILLS` sets how many trials the killed sweep is killed at.
"""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from housing_assets.ml.search_spaces import SearchSpace
from housing_assets.ml.sweep import SweepResult, run_sweep
from housing_assets_tests.ml.block_groups import small_folds

TRIALS = 12
KILLS = int(os.environ.get("SWEEP_KILLS", "2"))
DEADLINE_SECONDS = 120.0
# Runs the sweep of these tests, and tells of every trial that ends.
SWEEP = f"""
import sys
from pathlib import Path
from {__name__} import boosting_sweep
print("ready", flush=True)
sys.stdin.readline()
boosting_sweep(Path(sys.argv[1]), progress=lambda line: print(line, flush=True))
"""


def boosting_sweep(folder: Path | None, n_processes: int = 1, **options: Any) -> SweepResult:
    parameters = {"n_estimators": {"min": 5, "max": 40}, "max_depth": {"min": 1, "max": 4}}
    space = SearchSpace.model_validate(
        {
            "method": "bayes",
            "metric": {"name": "wmape", "goal": "minimize"},
            "early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 3, "s": 2},
            "parameters": parameters,
        }
    )
    budget = {"n_trials": TRIALS, "seed": 3, "study_name": "rows-of-today"}
    return run_sweep(
        small_folds(),
        "GradientBoosting",
        space,
        **budget,
        **options,
        folder=folder,
        n_processes=n_processes,
    )


@pytest.fixture(scope="module")
def undisturbed() -> SweepResult:
    return boosting_sweep(None)


class SweepProcess:
    """A sweep in a process of its own, which waits for `go` once it has imported everything."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SWEEP, str(folder)],
            # One fit at a time, on however many processors: else the first takes a whole batch.
            env={**os.environ, "LOKY_MAX_CPU_COUNT": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """The next line that it prints; empty when it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def wait_until_ready(self) -> None:
        assert self.line() == "ready"

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def kill_at(self, trial: int, delay: float) -> None:
        """SIGKILL a moment after the trial has ended."""
        while (line := self.line()) and not line.startswith(f"trial {trial}/"):
            pass
        time.sleep(delay)
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        assert self._process.returncode in (-signal.SIGKILL, 0)

    def finish(self) -> None:
        self._process.communicate(timeout=DEADLINE_SECONDS)
        assert self._process.returncode == 0


def two_that_start_together(folder: Path) -> tuple[SweepProcess, SweepProcess]:
    both = SweepProcess(folder), SweepProcess(folder)
    for sweep in both:
        sweep.wait_until_ready()
    for sweep in both:
        sweep.go()
    return both


def journal_of(folder: Path) -> list[dict[str, Any]]:
    [journal] = folder.rglob("study.journal")
    return [json.loads(line) for line in journal.read_text().splitlines()]


def scored_folds(entries: list[dict[str, Any]]) -> Counter[str]:
    """How often each fold of each trial has been scored, by name."""
    return Counter(name for entry in entries for name in entry.get("user_attr", {}))


def assert_same(one: SweepResult, other: SweepResult) -> None:
    assert one.best_params == other.best_params
    pd.testing.assert_frame_equal(
        one.trials.drop(columns="seconds"), other.trials.drop(columns="seconds"), check_exact=True
    )


def assert_nothing_was_done_twice(folder: Path, undisturbed: SweepResult) -> None:
    entries = journal_of(folder)
    assert sum("intermediate_values" in entry for entry in entries) == TRIALS
    expected = {
        f"trial-{trial.number:03d}-part-{part}": 1
        for trial in undisturbed.trials.itertuples()
        for part in range(int(trial.folds))
    }
    assert scored_folds(entries) == expected


def test_a_sweep_that_is_killed_at_random_trials_repeats_none_and_ends_as_if_it_had_not_been(
    tmp_path: Path, undisturbed: SweepResult
) -> None:
    dice = random.Random()
    for trial in sorted(dice.sample(range(1, TRIALS), KILLS)):
        sweep = SweepProcess(tmp_path)
        sweep.wait_until_ready()
        sweep.go()
        sweep.kill_at(trial, delay=dice.uniform(0, 0.3))
    # What is left is done here.
    assert_same(boosting_sweep(tmp_path), undisturbed)
    assert_nothing_was_done_twice(tmp_path, undisturbed)


def test_two_processes_share_one_study_and_one_goes_on_where_the_other_is_killed(
    tmp_path: Path, undisturbed: SweepResult
) -> None:
    killed, survivor = two_that_start_together(tmp_path)
    killed.kill_at(TRIALS // 2, delay=0.05)
    scorers = {entry["worker_id"] for entry in journal_of(tmp_path) if "user_attr" in entry}
    assert len(scorers) == 2
    survivor.finish()
    assert_same(boosting_sweep(tmp_path), undisturbed)
    assert_nothing_was_done_twice(tmp_path, undisturbed)


def test_a_sweep_may_start_its_helpers_itself(tmp_path: Path, undisturbed: SweepResult) -> None:
    assert_same(boosting_sweep(tmp_path, n_processes=2), undisturbed)
    assert_nothing_was_done_twice(tmp_path, undisturbed)


def test_helpers_that_die_are_told_of_and_their_share_is_done(
    tmp_path: Path, undisturbed: SweepResult
) -> None:
    told: list[str] = []

    def kill_helpers(line: str) -> None:
        told.append(line)
        for child in multiprocessing.active_children():
            # joblib keeps workers of its own, of what was tested before, for later.
            if isinstance(child, SpawnProcess):
                child.kill()
                child.join()

    assert_same(boosting_sweep(tmp_path, n_processes=2, progress=kill_helpers), undisturbed)
    assert told[-1] == "helpers ended with exit codes [-9]; their share was done by the others"
    assert_nothing_was_done_twice(tmp_path, undisturbed)
