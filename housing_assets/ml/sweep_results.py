"""What every engine of the sweep is given and gives back: the plan, its trials, the outcome and its file.

How settings are found is the engines' concern: `ml/sweep.py` searches with Optuna, `wandb_sweep.py` with W&B.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import blake2b
from importlib.metadata import version
from typing import Any, Protocol, Self

import numpy as np
import optuna
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from housing_assets.ml.families import Params, build_estimator, rehearsed
from housing_assets.ml.metrics import METRICS
from housing_assets.ml.search_spaces import SearchSpace
from housing_assets.ml.selection import Fold, FoldScore, Progress, mean_metrics

# What early_terminate counts in: so many iterations are one fold. A smaller number is the first fold with a
# part of its training rows, by which trials are compared long before they are scored in full (Li et al.,
# Hyperband, JMLR 2018, with rows as the resource).
ITERATIONS_PER_FOLD = 9
# A model of fewer rows says too little of what one of all rows would do: the whole fold takes its place.
LEAST_REHEARSED_ROWS = 300
# Features named in the table of trials; all of them are in `SweepResult.importances`.
TOP_FEATURES = 3
# Fewer settings say nothing about which of their hyperparameters matters.
SETTINGS_TO_COMPARE = 4


class SweepFailed(RuntimeError):
    """A sweep without a usable outcome; the message says why."""


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
class TrialFold:
    """How a trial did on one fold.

    Attributes:
        metrics: the ten of them.
        seconds: of fit and prediction.
        importances: by column, if the estimator has any.
        share: of the fold's training rows that were learned from; 1 but in a rehearsal.
    """

    metrics: dict[str, float]
    seconds: float
    importances: list[float] | None = None
    share: float = 1.0

    @classmethod
    def of(cls, score: FoldScore, share: float) -> Self:
        """What is kept of a score."""
        importances = None if score.importances is None else score.importances.tolist()
        return cls(score.metrics, score.fit_seconds + score.predict_seconds, importances, share)

    def to_json(self) -> dict[str, Any]:
        """Plain data, of which `TrialFold(**data)` makes the same again."""
        return asdict(self)


def counted(folds: Sequence[TrialFold]) -> Sequence[TrialFold]:
    """The scores that a trial is judged by: of whole folds, or of the last rehearsal before there are any."""
    return [fold for fold in folds if fold.share == 1.0] or folds[-1:]


@dataclass(frozen=True)
class SweepTrial:
    """A trial that has ended.

    Attributes:
        number: place in the order tried, from zero.
        run_id: the engine's id of it.
        name: what people call it.
        params: the setting.
        folds: its rehearsals and folds, in order; fewer than the plan's when it was stopped.
        complete: whether it was scored on all folds.
        reason: why it ended.
    """

    number: int
    run_id: str
    name: str
    params: Params
    folds: tuple[TrialFold, ...]
    complete: bool
    reason: str

    @property
    def state(self) -> str:
        """`COMPLETE`, or `PRUNED` when it was stopped early."""
        return "COMPLETE" if self.complete else "PRUNED"

    @property
    def seconds(self) -> float:
        """Computing time of all its rehearsals and folds."""
        return sum(fold.seconds for fold in self.folds)

    @property
    def metrics(self) -> dict[str, float]:
        """Each metric's mean over the folds done; that of the last rehearsal if there are none."""
        return mean_metrics(counted(self.folds))

    def importances(self, features: Sequence[str]) -> dict[str, float]:
        """Share of each feature, as mean over the folds done; empty for estimators that have none."""
        shares = [fold.importances for fold in counted(self.folds) if fold.importances is not None]
        if not shares:
            return {}
        means = np.mean(shares, axis=0).tolist()
        return dict(zip(features or [f"x{column}" for column in range(len(means))], means, strict=True))


@dataclass(frozen=True)
class SweepResult:
    """The outcome of a sweep.

    Attributes:
        best_params: the best completed trial.
        trials: one row per trial in the order tried: number, name, state (COMPLETE or PRUNED), reason, folds
            scored, share (of a fold's training rows, of the last score), seconds, the ten metrics as means
            over those folds or of the last rehearsal, the hyperparameters, and the features that matter most.
        importances: one row per trial: number, and the share of each feature; empty where the estimator has
            no importances.
        parameter_importances: parameter, importance (shares of the spread of the objective, largest first);
            empty where there are too few trials to tell.
    """

    best_params: BestParams
    trials: pd.DataFrame
    importances: pd.DataFrame
    parameter_importances: pd.DataFrame


@dataclass(frozen=True, eq=False)
class SweepPlan:
    """What is to be searched, and with what budget.

    Attributes:
        folds: from `prepare_folds`.
        family: model family.
        space: what to search.
        n_trials: trials to end, completed and stopped ones alike.
        seed: of the search and of the models.
        study_name: names the sweep to people, for example by family and snapshot.
        start_from: a setting to try first; none where it lies outside the space.
    """

    folds: tuple[Fold, ...]
    family: str
    space: SearchSpace
    n_trials: int
    seed: int
    study_name: str
    start_from: Params | None

    @classmethod
    def of(
        cls,
        folds: Sequence[Fold],
        family: str,
        space: SearchSpace,
        n_trials: int,
        seed: int,
        study_name: str,
        start_from: Mapping[str, Any] | None,
    ) -> Self:
        """The plan of an engine's arguments."""
        start = dict(start_from) if start_from is not None and space.contains(start_from) else None
        return cls(tuple(folds), family, space, n_trials, seed, study_name, start)

    @property
    def objective(self) -> str:
        """Name of the metric that decides."""
        return self.space.metric.name

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns, where they have names."""
        return self.folds[0].features

    @cached_property
    def parts(self) -> tuple[Fold, ...]:
        """What a trial is scored on, in order: rehearsals if trials are stopped early, then the folds."""
        first = self.folds[0]
        return (*(thinned(first, share) for share in self.shares[: self.n_rehearsals]), *self.folds)

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """Of the fold's training rows that each part has."""
        shares = [rung / ITERATIONS_PER_FOLD for rung in self._rungs if rung < ITERATIONS_PER_FOLD]
        rows = len(self.folds[0].x_train)
        enough = [share for share in shares if share * rows >= LEAST_REHEARSED_ROWS]
        return (*enough, *[1.0] * len(self.folds))

    def task(self, params: Params, part: int) -> tuple[Params, Fold]:
        """What is fitted, and where, to score a setting on a part."""
        return rehearsed(self.family, params, self.shares[part]), self.parts[part]

    @property
    def n_rehearsals(self) -> int:
        """How many parts come before the folds."""
        return len(self.shares) - len(self.folds)

    @cached_property
    def stages(self) -> list[int]:
        """Numbers of parts between which trials are stopped, from none to all."""
        before = self.n_rehearsals
        whole = {rung // ITERATIONS_PER_FOLD for rung in self._rungs}
        # Where there are too few rows to rehearse with, the first fold takes that part.
        if before:
            whole.discard(0)
        folds = sorted({max(1, number) for number in whole if number < len(self.folds)})
        return [*range(before + 1), *(before + number for number in folds), len(self.shares)]

    @property
    def _rungs(self) -> tuple[int, ...]:
        return self.space.early_terminate.rungs if self.space.early_terminate else ()

    def done(self, scores: Sequence[TrialFold]) -> str:
        """In words, how far a trial with these scores has got."""
        whole = sum(score.share == 1.0 for score in scores)
        if not whole and scores:
            return f"{scores[-1].share:.0%} of the first fold's rows"
        return f"{whole} of {len(self.folds)} folds"

    @cached_property
    def identity(self) -> str:
        """Eight hexadecimal digits that change with everything the outcome depends on.

        Among it are the content of the folds, the options of the estimator, the release of its library and
        that of this package, whose rules decide who goes on: what was found before one of them changed is
        not taken for what would be found now.
        """
        estimator = build_estimator(self.family, {}, self.seed)
        library = sys.modules[type(estimator).__module__.partition(".")[0]]
        space = self.space.model_dump(mode="json")
        releases = [version("housing-assets"), getattr(library, "__version__", "")]
        settings = [self.family, repr(estimator), releases, space, self.n_trials, self.seed, self.start_from]
        digest = blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=4)
        for fold in self.parts:
            for array in (fold.x_train, fold.y_train, fold.x_valid, fold.y_valid):
                digest.update(repr(array.shape).encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def thinned(fold: Fold, share: float) -> Fold:
    """The fold with a share of its training rows, evenly chosen."""
    rows = len(fold.x_train)
    chosen = np.linspace(0, rows - 1, round(rows * share)).astype(np.int64)
    return replace(fold, x_train=fold.x_train[chosen], y_train=fold.y_train[chosen])


class SweepEngine(Protocol):
    """Searches a family's space; the engines differ in where trials are chosen, not in what they give."""

    def __call__(
        self,
        folds: Sequence[Fold],
        family: str,
        space: SearchSpace,
        *,
        n_trials: int,
        seed: int,
        study_name: str,
        progress: Progress | None = None,
        start_from: Mapping[str, Any] | None = None,
    ) -> SweepResult:
        """Run the sweep to its end; `progress` is told about every trial."""


def conclude(
    plan: SweepPlan,
    trials: Sequence[SweepTrial],
    *,
    engine: str,
    sweep_id: str,
    sweep_url: str | None = None,
) -> SweepResult:
    """The outcome of trials that have ended.

    Raises:
        SweepFailed: none of them was scored on all folds, so that none can be called the best.
    """
    complete = [trial for trial in trials if trial.complete]
    if not complete:
        raise SweepFailed(f"sweep {sweep_id}: none of {len(trials)} trials was scored on all folds")
    sign = -1 if plan.space.metric.goal == "maximize" else 1
    # Ties go to the earlier trial.
    best = min(complete, key=lambda trial: (sign * trial.metrics[plan.objective], trial.number))
    best_params = BestParams(
        sweep_id=sweep_id,
        best_run_id=best.run_id,
        best_run_name=best.name,
        model_type=plan.family,
        hyperparameters=best.params,
        metrics=best.metrics,
        sweep_url=sweep_url,
        engine=engine,
        n_trials=len(trials),
        seed=plan.seed,
    )
    shares = [{"number": trial.number, **trial.importances(plan.features)} for trial in trials]
    return SweepResult(
        best_params,
        pd.DataFrame([_row(trial, plan) for trial in trials]),
        pd.DataFrame(shares if len(shares[0]) > 1 else []),
        _parameter_importances(plan, trials),
    )


def describe(trial: SweepTrial, plan: SweepPlan) -> str:
    """One line about a trial that has ended."""
    value = f"{plan.objective} {trial.metrics[plan.objective]:.3f}"
    return f"trial {trial.number + 1}/{plan.n_trials} {value}, {trial.reason}: {trial.params}"


def _row(trial: SweepTrial, plan: SweepPlan) -> dict[str, Any]:
    importances = trial.importances(plan.features)
    top = sorted(importances, key=lambda name: -importances[name])[:TOP_FEATURES]
    return {
        "number": trial.number,
        "name": trial.name,
        "state": trial.state,
        "reason": trial.reason,
        "folds": sum(fold.share == 1.0 for fold in trial.folds),
        "share": trial.folds[-1].share,
        "seconds": trial.seconds,
        **trial.metrics,
        **trial.params,
        "top_features": ", ".join(f"{name} {importances[name]:.0%}" for name in top),
    }


def _parameter_importances(plan: SweepPlan, trials: Sequence[SweepTrial]) -> pd.DataFrame:
    """How much of the spread of the objective each hyperparameter explains (fANOVA, Hutter et al. 2014).

    All trials count, each by what every trial was scored on: the completed ones alone are few, and alike.
    """
    common = min(len(trial.folds) for trial in trials)
    values = [mean_metrics(counted(trial.folds[:common]))[plan.objective] for trial in trials]
    if len(trials) < SETTINGS_TO_COMPARE or len(set(values)) == 1:
        return pd.DataFrame({"parameter": [], "importance": []})
    distributions = {name: parameter.bounds for name, parameter in plan.space.parameters.items()}
    study = plan.space.new_study()
    study.add_trials(
        optuna.trial.create_trial(params=trial.params, distributions=distributions, value=value)
        for trial, value in zip(trials, values, strict=True)
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=plan.seed)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return pd.DataFrame({"parameter": list(shares), "importance": list(shares.values())})
