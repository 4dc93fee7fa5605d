"""The search for a family's best hyperparameters with Optuna, scored in folds of the training rows.

Trials run in small batches: a batch's settings are drawn from the batches before it, and its first folds are
all scored before any trial is stopped. So the outcome depends on the plan alone, never on the order in which
fits finish, and every process that works on a study finds the same. What has been scored is kept: a process
that comes later, or after a kill, goes through the batches again and only works out what is missing.
"""

import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from housing_assets.ml.child_process import start_child
from housing_assets.ml.families import Params
from housing_assets.ml.search_spaces import SearchSpace, SearchSpaceError, load_search_spaces
from housing_assets.ml.selection import Fold, Progress, ScoreFolds, mean_metrics
from housing_assets.ml.studies import KeptStudy, Task
from housing_assets.ml.sweep_results import (
    BestParams,
    SweepFailed,
    SweepPlan,
    SweepResult,
    SweepTrial,
    TrialFold,
    conclude,
    counted,
    describe,
)

__all__ = [
    "BestParams",
    "SearchSpace",
    "SearchSpaceError",
    "SweepFailed",
    "SweepResult",
    "load_search_spaces",
    "run_sweep",
]

ENGINE = "optuna"
# Trials drawn at once; the first batch is drawn at random, later ones by what was learned.
BATCH = 6
# Share of the objective by which a trial must be better than all that went on, to go on where there is no
# room left: a whole score costs as much as dozens of comparisons, and less than that is hardly worth it.
LEAST_GAIN = 0.002

Score = Callable[[Mapping[Task, Params]], Mapping[Task, TrialFold]]


@dataclass(eq=False)
class _Run:
    """A trial under way.

    Attributes:
        number: its place among all trials.
        params: its setting.
        distributions: what the setting was drawn from.
        scores: its rehearsals and folds so far.
        checks: the objective after the first parts of the plan, by their number.
        reason: why it ended.
    """

    number: int
    params: Params
    distributions: Mapping[str, optuna.distributions.BaseDistribution]
    scores: list[TrialFold] = field(default_factory=list)
    checks: dict[int, float] = field(default_factory=dict)
    reason: str = ""


def run_sweep(
    folds: Sequence[Fold],
    family: str,
    space: SearchSpace,
    *,
    n_trials: int,
    seed: int,
    study_name: str,
    progress: Progress | None = None,
    start_from: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    n_processes: int = 1,
    elsewhere: ScoreFolds | None = None,
) -> SweepResult:
    """Search a family's space; the same arguments give the same result, in however many processes.

    Args:
        folds: From `prepare_folds`.
        family: Model family.
        space: What to search.
        n_trials: Trials to end, completed and stopped ones alike.
        seed: Seed of the search and of the models.
        study_name: Names the sweep to people, for example by family and snapshot.
        progress: Told about every trial that ends.
        start_from: A setting to try first; passed over when it lies outside the space.
        folder: Keeps the study, below a name that changes with all of the above but `study_name`. A killed
            sweep resumes there, a finished one is read, and a process that is started with the same
            arguments while another is at it takes a share of the work. Without it, nothing outlasts the call.
        n_processes: Processes that share the work, this one among them.
        elsewhere: Fits and scores where it is not this machine that does, as `score_folds` would.
    """
    plan = SweepPlan.of(folds, family, space, n_trials, seed, study_name, start_from)
    with _kept_in(folder) as kept:
        place = kept / f"{family}-{plan.identity}"
        helpers = [start_child(_help, plan, place, n_processes) for _ in range(n_processes - 1)]
        try:
            trials = _search(plan, KeptStudy(place, plan, n_processes, elsewhere), progress)
            failed = [helper.exitcode for helper in helpers if helper.exitcode]
            if failed and progress is not None:
                progress(f"helpers ended with exit codes {failed}; their share was done by the others")
        finally:
            # They have the same end in sight; without this one, nobody waits for what they find.
            for helper in helpers:
                helper.terminate()
                helper.join()
    return conclude(plan, trials, engine=ENGINE, sweep_id=plan.identity)


@contextmanager
def _kept_in(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def _help(plan: SweepPlan, place: Path, n_processes: int) -> None:
    """The work of another process: the same search on the same study."""
    _search(plan, KeptStudy(place, plan, n_processes), None)


def _search(plan: SweepPlan, study: KeptStudy, progress: Progress | None) -> list[SweepTrial]:
    while (ended := len(trials := study.trials())) < plan.n_trials:
        # A kill may have come while the trials of a batch were recorded.
        history = trials[: ended - ended % BATCH]
        batch = _draw(plan, history)
        _run_batch(plan, batch, history, study.score)
        for run in batch:
            study.record(run.number, _frozen(plan, run))
            if progress is not None:
                progress(describe(_trial(plan, _frozen(plan, run), run.number), plan))
    return [_trial(plan, trial, number) for number, trial in enumerate(trials)]


def _draw(plan: SweepPlan, history: Sequence[FrozenTrial]) -> list[_Run]:
    """The next settings, by what the finished batches have taught."""
    study = plan.space.new_study()
    study.sampler = _sampler(plan.space, plan.seed + len(history))
    study.add_trials(history)
    if plan.start_from is not None and not history:
        study.enqueue_trial(plan.start_from)
    drawn = [study.ask() for _ in range(min(BATCH, plan.n_trials - len(history)))]
    return [_Run(trial.number, plan.space.suggest(trial), trial.distributions) for trial in drawn]


def _sampler(space: SearchSpace, seed: int) -> optuna.samplers.BaseSampler:
    if space.method == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=BATCH)


def _run_batch(plan: SweepPlan, batch: Sequence[_Run], history: Sequence[FrozenTrial], score: Score) -> None:
    """Score a batch stage by stage, stopping trials between stages."""
    running = list(batch)
    for start, stop in itertools.pairwise(plan.stages):
        scores = score({(run.number, part): run.params for run in running for part in range(start, stop)})
        for run in running:
            run.scores += [scores[run.number, part] for part in range(start, stop)]
            run.checks[stop] = mean_metrics(counted(run.scores))[plan.objective]
        if stop < len(plan.parts):
            running = _survivors(plan, running, history, stop)
    for run in running:
        run.reason = "complete"


def _survivors(
    plan: SweepPlan, running: Sequence[_Run], history: Sequence[FrozenTrial], step: int
) -> list[_Run]:
    """Those of the running trials that are among the best 1/eta of all that got to this step.

    A search learns, so that later trials are better: most of them would go on beside the earlier ones that
    already have. Only as many go on as there is room for. One that is clearly the best of all always goes on,
    and so does the setting to start from, which has proved itself elsewhere: the outcome is never worse.
    """
    eta = plan.space.early_terminate.eta if plan.space.early_terminate else 1
    reached = {t.number: t.intermediate_values[step] for t in history if step in t.intermediate_values}
    reached |= {run.number: run.checks[step] for run in running}
    sign = -1 if plan.space.metric.goal == "maximize" else 1
    # Ties go to the earlier trial.
    ranking = sorted(reached, key=lambda number: (sign * reached[number], number))
    kept = max(1, len(ranking) // eta)
    before = [t.intermediate_values[step] for t in history if max(t.intermediate_values) > step]
    # The worst that a trial may be to be clearly the best.
    bar = min(sign * value - LEAST_GAIN * abs(value) for value in before) if before else math.inf
    by_number = {run.number: run for run in running}
    candidates = [by_number[number] for number in ranking[:kept] if number in by_number]
    clear = ranking[0] in by_number and sign * reached[ranking[0]] <= bar
    room = max(kept - len(before), int(clear))
    going = {run.number for run in candidates[:room]}
    if plan.start_from is not None:
        going.add(0)
    for run in running:
        run.reason = (
            f"stopped after {plan.done(run.scores)}: rank {ranking.index(run.number) + 1} "
            f"of {len(ranking)}, of which {kept} go on"
        )
    return [run for run in running if run.number in going]


def _frozen(plan: SweepPlan, run: _Run) -> FrozenTrial:
    """A trial that has ended as Optuna keeps it."""
    complete = len(run.scores) == len(plan.parts)
    return optuna.trial.create_trial(
        params=run.params,
        distributions=dict(run.distributions),
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        value=run.checks[len(run.scores)],
        intermediate_values=run.checks,
        user_attrs={"folds": [score.to_json() for score in run.scores], "reason": run.reason},
    )


def _trial(plan: SweepPlan, trial: FrozenTrial, number: int) -> SweepTrial:
    return SweepTrial(
        number=number,
        run_id=f"{plan.identity}-{number}",
        name=f"trial-{number:03d}",
        params=trial.params,
        folds=tuple(TrialFold(**fold) for fold in trial.user_attrs["folds"]),
        complete=trial.state == TrialState.COMPLETE,
        reason=trial.user_attrs["reason"],
    )
