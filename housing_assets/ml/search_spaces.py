"""The search-space file: its format, validated, and the packaged spaces of every family."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Any, Literal, Self

import optuna
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from housing_assets.ml.families import FAMILIES, Params, tunable_parameters
from housing_assets.ml.metrics import METRICS

PACKAGED_FILE = "search_spaces.yaml"

# Strict, so that text is never taken for a number.
Number = StrictInt | StrictFloat
Value = StrictBool | Number | StrictStr | None
Distribution = Literal["int_uniform", "uniform", "log_uniform_values", "q_uniform"]


class SearchSpaceError(ValueError):
    """A search-space file that cannot be used; the message names the family and the entry."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Metric(_Part):
    """What the search looks for."""

    name: str
    goal: Literal["minimize", "maximize"]

    @model_validator(mode="after")
    def _is_measured(self) -> Self:
        if self.name not in METRICS:
            raise ValueError(f"no metric {self.name!r}: choose of {', '.join(METRICS)}")
        return self


class EarlyTerminate(_Part):
    """Successive halving over rows, then over folds."""

    type: Literal["hyperband"]
    min_iter: int = Field(ge=1)
    eta: int = Field(ge=2)
    s: int = Field(ge=1)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Numbers of iterations, ninths of a fold, at which trials are compared."""
        return tuple(self.min_iter * self.eta**check for check in range(self.s))


class Parameter(_Part):
    """The range of one hyperparameter: a value, a choice of values, or min and max."""

    distribution: Distribution | None = None
    value: Value = None
    values: tuple[Value, ...] | None = Field(default=None, min_length=1)
    min: Number | None = None
    max: Number | None = None
    q: Annotated[StrictInt, Field(gt=0)] | Annotated[StrictFloat, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        given = self.model_fields_set
        if len(kinds := given & {"value", "values", "min"}) != 1 or ("min" in given) != ("max" in given):
            raise ValueError("give one of: value, values, or min with max")
        if self.min is None or self.max is None:
            if given - kinds:
                raise ValueError(f"{', '.join(sorted(given - kinds))} belong to a range of min and max")
            return self
        if self.min >= self.max:
            raise ValueError(f"min {self.min} is not below max {self.max}")
        if self.kind == "log_uniform_values" and self.min <= 0:
            raise ValueError(f"log_uniform_values needs a min above 0, not {self.min}")
        if (self.kind == "q_uniform") != (self.q is not None):
            raise ValueError("q is given for the distribution q_uniform, and only for it")
        if self.kind == "int_uniform" and not self._is_integer():
            raise ValueError("int_uniform needs whole min and max")
        return self

    @property
    def kind(self) -> str:
        """The distribution; without one, whole bounds mean integers and others reals."""
        return self.distribution or ("int_uniform" if self._is_integer() else "uniform")

    def _is_integer(self) -> bool:
        return isinstance(self.min, int) and isinstance(self.max, int)

    def suggest(self, trial: optuna.trial.BaseTrial, name: str) -> Value:
        """A value from the range, chosen by the trial's sampler."""
        chosen: Value
        if self.min is None or self.max is None:
            chosen = trial.suggest_categorical(name, self.choices)
        elif self.kind == "log_uniform_values":
            chosen = trial.suggest_float(name, self.min, self.max, log=True)
        elif self.is_whole:
            chosen = trial.suggest_int(name, self.min, self.max, step=self.q or 1)
        else:
            chosen = trial.suggest_float(name, self.min, self.max, step=self.q)
        return chosen

    @property
    def is_whole(self) -> bool:
        """Whether all values of a range are integers."""
        evenly = self.kind in ("int_uniform", "q_uniform")
        return evenly and self._is_integer() and isinstance(self.q, int | None)

    @property
    def bounds(self) -> optuna.distributions.BaseDistribution:
        """The range as Optuna knows it, without steps: engines differ in where these start."""
        if self.min is None or self.max is None:
            return optuna.distributions.CategoricalDistribution(self.choices)
        if self.is_whole:
            return optuna.distributions.IntDistribution(self.min, self.max)
        log = self.kind == "log_uniform_values"
        return optuna.distributions.FloatDistribution(self.min, self.max, log=log)

    def settle(self, value: Value) -> Value:
        """A value that another engine chose: a whole number where the range has whole numbers."""
        return int(value) if self.is_whole and isinstance(value, float) and value.is_integer() else value

    @property
    def choices(self) -> tuple[Value, ...]:
        """The values to choose of, one where it is fixed."""
        return (self.value,) if self.values is None else self.values

    def contains(self, value: object) -> bool:
        """Whether the range holds the value."""
        if self.min is None or self.max is None:
            return value in self.choices
        kind = int if self.is_whole else int | float
        return isinstance(value, kind) and self.min <= value <= self.max


class SearchSpace(_Part):
    """What the sweep of one family searches, and how."""

    method: Literal["bayes", "random"]
    metric: Metric
    early_terminate: EarlyTerminate | None = None
    parameters: dict[str, Parameter] = Field(min_length=1)

    def new_study(
        self, name: str | None = None, storage: optuna.storages.BaseStorage | None = None
    ) -> optuna.Study:
        """An Optuna study with this space's goal, opened where there is one; without a line on stderr."""
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            return optuna.create_study(
                storage=storage,
                study_name=name,
                direction=self.metric.goal,
                pruner=optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
        finally:
            optuna.logging.set_verbosity(verbosity)

    @property
    def logarithmic(self) -> tuple[str, ...]:
        """The parameters that are searched by magnitude."""
        return tuple(name for name, one in self.parameters.items() if one.kind == "log_uniform_values")

    def suggest(self, trial: optuna.trial.BaseTrial) -> Params:
        """One setting, chosen by the trial's sampler."""
        return {name: parameter.suggest(trial, name) for name, parameter in self.parameters.items()}

    def settle(self, config: Mapping[str, Any]) -> Params:
        """The setting that another engine chose.

        Raises:
            SearchSpaceError: it is not one of this space.
        """
        setting = {
            name: parameter.settle(config[name])
            for name, parameter in self.parameters.items()
            if name in config
        }
        if not self.contains(setting):
            raise SearchSpaceError(f"{dict(config)} is not a setting of {', '.join(self.parameters)}")
        return setting

    def as_sweep_config(self) -> dict[str, Any]:
        """The space as W&B takes it: just what the file says."""
        return self.model_dump(mode="json", exclude_unset=True)

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Whether a setting gives every parameter a value of its range, and no other parameter."""
        return params.keys() == self.parameters.keys() and all(
            parameter.contains(params[name]) for name, parameter in self.parameters.items()
        )


def load_search_spaces(text: str | None = None, *, origin: str = PACKAGED_FILE) -> dict[str, SearchSpace]:
    """The search space of each family.

    Args:
        text: YAML of a search-space file; the packaged one without it.
        origin: Name of the file in errors.

    Raises:
        SearchSpaceError: the file is not what it should be.
    """
    if text is None:
        text = files(__package__).joinpath(PACKAGED_FILE).read_text(encoding="utf-8")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SearchSpaceError(f"{origin} is not YAML: {error}") from error
    if not isinstance(content, dict) or not content:
        raise SearchSpaceError(f"{origin} must map model families to their search spaces")
    return {str(family): _parse_space(str(family), entry, origin) for family, entry in content.items()}


def _parse_space(family: str, entry: object, origin: str) -> SearchSpace:
    if family not in FAMILIES:
        raise SearchSpaceError(f"{origin}: unknown family {family!r}, known are {', '.join(FAMILIES)}")
    try:
        space = SearchSpace.model_validate(entry)
    except ValidationError as error:
        problems = [
            f"{origin}: {'.'.join(map(str, (family, *problem['loc'])))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise SearchSpaceError("; ".join(problems)) from error
    if unknown := sorted(space.parameters.keys() - tunable_parameters(family)):
        raise SearchSpaceError(f"{origin}: {family}.parameters: {family} has no {', '.join(unknown)}")
    return space
