"""The search for a family's best hyperparameters, scored in folds of the training rows.

Trials run in small batches: a batch's first folds are all scored before any trial is stopped, so the
outcome depends on the seed and the data alone, never on the order in which fits finish.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Self

import optuna
import pandas as pd
import yaml
from optuna.trial import TrialState
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from housing_assets.ml.families import Params
from housing_assets.ml.metrics import METRICS
from housing_assets.ml.search_spaces import SearchSpace, SearchSpaceError, load_search_spaces
from housing_assets.ml.selection import Fold, FoldScore, Progress, mean_metrics, score_folds

__all__ = [
    "BestParams",
    "SearchSpace",
    "SearchSpaceError",
    "SweepResult",
    "load_search_spaces",
    "run_sweep",
]

ENGINE = "optuna"
# Trials asked for at once; the first batch is drawn at random, later ones by what was learned.
BATCH = 4
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class BestParams(BaseModel):
    """The winner of a sweep: `best_params.yaml`, for people, for diffs and for registration."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sweep_id: str
    best_run_id: str
    best_run_name: str
    model_type: str
    hyperparameters: dict[str, bool | int | float | str | None] = Field(min_length=1)
    metrics: dict[str, float]
    sweep_url: str | None = None
    engine: str
    n_trials: int = Field(ge=1)
    seed: int

    @model_validator(mode="after")
    def _has_every_metric(self) -> Self:
        if set(self.metrics) != set(METRICS):
            raise ValueError(f"metrics must be exactly {', '.join(METRICS)}")
        return self

    def to_yaml(self) -> str:
        """Sorted and at full precision, so that two files can be compared line by line."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=True, allow_unicode=True)
        return text

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Read what `to_yaml` wrote.

        Raises:
            ValueError: it is not YAML, or a field is missing, unknown or malformed.
        """
        try:
            return cls.model_validate(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ValueError(f"best_params.yaml is not YAML: {error}") from error
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}"
                for problem in error.errors(include_url=False, include_input=False)
            )
            raise ValueError(f"best_params.yaml is not complete ({problems})") from error


@dataclass(frozen=True)
class SweepResult:
    """The outcome of a sweep.

    Attributes:
        best_params: the best completed trial.
        trials: one row per trial in the order tried: number, name, state (COMPLETE or PRUNED), folds
            scored, seconds, the ten metrics as means over those folds, and the hyperparameters.
    """

    best_params: BestParams
    trials: pd.DataFrame


@dataclass(eq=False)
class _Run:
    """A trial under way."""

    trial: optuna.Trial
    params: Params
    scores: list[FoldScore] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(score.fit_seconds + score.predict_seconds for score in self.scores)


def run_sweep(
    folds: Sequence[Fold],
    family: str,
    space: SearchSpace,
    *,
    n_trials: int,
    seed: int,
    study_name: str,
    storage_url: str | None = None,
    progress: Progress | None = None,
    start_from: Mapping[str, Any] | None = None,
) -> SweepResult:
    """Search a family's space; the same folds, space, budget and seed give the same result.

    Args:
        folds: From `prepare_folds`.
        family: Model family.
        space: What to search.
        n_trials: Trials to finish, completed and stopped ones alike; a resumed study counts its own.
        seed: Seed of the search and of the models.
        study_name: Names the sweep and its data, for example by their hash.
        storage_url: Database (`sqlite:///…`) that keeps the trials, so that a killed sweep resumes.
        progress: Told about every finished trial.
        start_from: A setting to try first; passed over when it lies outside the space.
    """
    study = _open_study(space, study_name, storage_url)
    if start_from is not None and not study.trials and space.contains(start_from):
        study.enqueue_trial(dict(start_from))
    while (remaining := n_trials - _finished(study)) > 0:
        study.sampler = _sampler(space, seed + _finished(study))
        trials = [study.ask() for _ in range(min(BATCH, remaining))]
        batch = [_Run(trial, space.suggest(trial)) for trial in trials]
        _run_batch(study, batch, folds, family=family, space=space, seed=seed)
        if progress is not None:
            for run in batch:
                progress(_describe(run, n_trials, len(folds), space.metric.name))
    sweep_id = _sweep_id(space, study_name, family, seed, len(folds))
    best = study.best_trial
    best_params = BestParams(
        sweep_id=sweep_id,
        best_run_id=f"{sweep_id}-{best.number}",
        best_run_name=_run_name(best.number),
        model_type=family,
        hyperparameters=best.params,
        metrics=best.user_attrs["metrics"],
        engine=ENGINE,
        n_trials=_finished(study),
        seed=seed,
    )
    return SweepResult(best_params, _trials_table(study))


def _open_study(space: SearchSpace, name: str, storage_url: str | None) -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    # A line per study on stderr, whatever the caller's logging: progress is the caller's to report.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=storage_url,
            study_name=name,
            direction=space.metric.goal,
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
    finally:
        optuna.logging.set_verbosity(verbosity)
    # What a killed process left behind will never finish.
    for stale in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(stale.number, state=TrialState.FAIL)
    return study


def _sampler(space: SearchSpace, seed: int) -> optuna.samplers.BaseSampler:
    if space.method == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=BATCH)


def _finished(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=FINISHED))


def _run_batch(
    study: optuna.Study,
    batch: Sequence[_Run],
    folds: Sequence[Fold],
    *,
    family: str,
    space: SearchSpace,
    seed: int,
) -> None:
    """Score a batch stage by stage, stopping trials between stages, then record every trial."""
    running = list(batch)
    for start, stop in itertools.pairwise(_stages(space, len(folds))):
        tasks = [(run.params, fold) for run in running for fold in folds[start:stop]]
        scores = iter(score_folds(family, tasks, seed))
        for run in running:
            run.scores += itertools.islice(scores, stop - start)
            run.trial.report(mean_metrics(run.scores)[space.metric.name], step=stop)
        if stop < len(folds):
            running = _survivors(study, running, space, stop)
    for run in batch:
        _record(study, run, complete=len(run.scores) == len(folds), objective=space.metric.name)


def _stages(space: SearchSpace, n_folds: int) -> list[int]:
    """Numbers of folds between which trials are stopped, from none to all."""
    rungs = space.early_terminate.rungs if space.early_terminate else ()
    return [0, *(rung for rung in rungs if rung < n_folds), n_folds]


def _survivors(study: optuna.Study, running: Sequence[_Run], space: SearchSpace, step: int) -> list[_Run]:
    """Those of the running trials that are among the best 1/eta of all that got to this step."""
    eta = space.early_terminate.eta if space.early_terminate else 1
    trials = study.get_trials(deepcopy=False)
    reached = {
        trial.number: trial.intermediate_values[step] for trial in trials if step in trial.intermediate_values
    }
    maximize = space.metric.goal == "maximize"
    # Ties go to the earlier trial.
    ranking = sorted(reached, key=lambda number: (-reached[number] if maximize else reached[number], number))
    kept = ranking[: max(1, len(ranking) // eta)]
    return [run for run in running if run.trial.number in kept]


def _record(study: optuna.Study, run: _Run, *, complete: bool, objective: str) -> None:
    metrics = mean_metrics(run.scores)
    run.trial.set_user_attr("metrics", metrics)
    run.trial.set_user_attr("folds", len(run.scores))
    run.trial.set_user_attr("seconds", run.seconds)
    if complete:
        study.tell(run.trial, metrics[objective])
    else:
        study.tell(run.trial, state=TrialState.PRUNED)


def _describe(run: _Run, n_trials: int, n_folds: int, objective: str) -> str:
    done = len(run.scores)
    outcome = "complete" if done == n_folds else f"stopped after {done} of {n_folds} folds"
    value = mean_metrics(run.scores)[objective]
    return f"trial {run.trial.number + 1}/{n_trials} {objective} {value:.3f}, {outcome}: {run.params}"


def _run_name(number: int) -> str:
    return f"trial-{number:03d}"


def _sweep_id(space: SearchSpace, study_name: str, family: str, seed: int, n_folds: int) -> str:
    identity = [study_name, family, seed, n_folds, space.model_dump(mode="json")]
    return blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=4).hexdigest()


def _trials_table(study: optuna.Study) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "number": trial.number,
            "name": _run_name(trial.number),
            "state": trial.state.name,
            "folds": trial.user_attrs["folds"],
            "seconds": trial.user_attrs["seconds"],
            **trial.user_attrs["metrics"],
            **trial.params,
        }
        for trial in study.get_trials(deepcopy=False, states=FINISHED)
    )
