"""The search-space file: what it may say, and what it is told when it says something else."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from housing_assets.ml.families import FAMILIES
from housing_assets.ml.search_spaces import Parameter, SearchSpaceError, load_search_spaces

RIDGE = """
Ridge:
  method: bayes
  metric: {name: wmape, goal: minimize}
  parameters:
    alpha: %s
"""


def test_the_packaged_file_has_a_space_for_every_family() -> None:
    spaces = load_search_spaces()
    assert tuple(spaces) == FAMILIES
    for family, space in spaces.items():
        assert (space.method, space.metric.name, space.metric.goal) == ("bayes", "wmape", "minimize")
        assert space.early_terminate is not None
        assert space.early_terminate.rungs == ((1, 4, 16) if family == "RandomForest" else (1, 3, 9))


def test_the_forest_space_is_the_published_one() -> None:
    parameters = load_search_spaces()["RandomForest"].parameters
    ranges = {name: (one.min, one.max, one.values) for name, one in parameters.items()}
    assert ranges == {
        "n_estimators": (50, 500, None),
        "max_depth": (5, 30, None),
        "min_samples_split": (2, 20, None),
        "min_samples_leaf": (1, 10, None),
        "max_features": (None, None, ("sqrt", "log2")),
    }


def test_the_boosting_space_is_the_published_one() -> None:
    parameters = load_search_spaces()["GradientBoosting"].parameters
    ranges = {name: (one.kind, one.min, one.max) for name, one in parameters.items() if one.values is None}
    assert ranges == {
        "n_estimators": ("q_uniform", 50, 450),
        "learning_rate": ("log_uniform_values", 0.005, 0.3),
        "max_depth": ("int_uniform", 2, 8),
        "min_samples_split": ("int_uniform", 2, 20),
        "min_samples_leaf": ("int_uniform", 1, 10),
        "subsample": ("uniform", 0.6, 1.0),
    }
    assert parameters["max_features"].values == ("sqrt", "log2", None)


@pytest.mark.parametrize(
    ("parameter", "kind", "holds", "lacks"),
    [
        ({"value": 3}, int, 3, 4),
        ({"values": ["sqrt", None]}, (str, type(None)), None, "log2"),
        ({"min": 1, "max": 3}, int, 1, 4),
        ({"min": 1.0, "max": 3.0}, float, 2.5, 0.5),
        ({"min": 1, "max": 3, "distribution": "uniform"}, float, 2.5, "sqrt"),
        ({"min": 0.001, "max": 10.0, "distribution": "log_uniform_values"}, float, 0.001, 0.0),
        ({"min": 50, "max": 150, "q": 50, "distribution": "q_uniform"}, int, 100, 200),
        ({"min": 0.1, "max": 0.3, "q": 0.1, "distribution": "q_uniform"}, float, 0.2, 0.4),
    ],
)
def test_a_parameter_suggests_values_of_its_range(
    parameter: dict[str, object], kind: type, holds: object, lacks: object
) -> None:
    one = Parameter.model_validate(parameter)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    chosen = [one.suggest(study.ask(), "x") for _ in range(20)]
    assert all(isinstance(value, kind) and one.contains(value) for value in chosen)
    assert one.contains(holds)
    assert not one.contains(lacks)


def test_steps_of_q_start_at_the_minimum() -> None:
    one = Parameter.model_validate({"min": 50, "max": 150, "q": 50, "distribution": "q_uniform"})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    assert {one.suggest(study.ask(), "x") for _ in range(30)} == {50, 100, 150}


@pytest.mark.parametrize(
    ("parameter", "problem"),
    [
        ("{}", "give one of: value, values, or min with max"),
        ("{value: 1, values: [1]}", "give one of: value, values, or min with max"),
        ("{min: 1}", "give one of: value, values, or min with max"),
        ("{values: [1], q: 2}", "q belong to a range of min and max"),
        ("{values: []}", "at least 1 item"),
        ("{min: 3, max: 3}", "min 3 is not below max 3"),
        ("{min: 0, max: 1, distribution: log_uniform_values}", "needs a min above 0, not 0"),
        ("{min: 0, max: 1, distribution: q_uniform}", "q is given for the distribution q_uniform"),
        ("{min: 0, max: 1, q: 0, distribution: q_uniform}", "greater than 0"),
        ("{min: 0.5, max: 1, distribution: int_uniform}", "int_uniform needs whole min and max"),
        ("{min: a, max: 1}", "Input should be a valid integer"),
        ("{min: 1, max: 2, distribution: normal}", "'int_uniform', 'uniform', 'log_uniform_values'"),
        ("{min: 1, max: 2, step: 1}", "step: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_file_and_family(parameter: str, problem: str) -> None:
    with pytest.raises(SearchSpaceError) as caught:
        load_search_spaces(RIDGE % parameter, origin="my.yaml")
    assert str(caught.value).startswith("my.yaml: Ridge.parameters.alpha")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Ridge: [", "my.yaml is not YAML"),
        ("", "my.yaml must map model families"),
        ("- Ridge", "my.yaml must map model families"),
        ("XGBoost: {}", "my.yaml: unknown family 'XGBoost', known are RandomForest"),
        ("Ridge: {}", "my.yaml: Ridge.method: Field required"),
        (RIDGE.replace("wmape", "loss") % "{value: 1}", "Ridge.metric: Value error, no metric 'loss'"),
        (RIDGE.replace("bayes", "grid") % "{value: 1}", "Ridge.method: Input should be 'bayes' or 'random'"),
        (RIDGE.replace("alpha", "depth") % "{value: 1}", "Ridge.parameters: Ridge has no depth"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(SearchSpaceError) as caught:
        load_search_spaces(text, origin="my.yaml")
    assert problem in str(caught.value)


def test_a_setting_lies_in_a_space_only_with_exactly_its_parameters() -> None:
    space = load_search_spaces()["Ridge"]
    assert space.contains({"alpha": 1.0})
    assert not space.contains({"alpha": 1_000.0})
    assert not space.contains({})
    assert not space.contains({"alpha": 1.0, "solver": "svd"})


def test_a_setting_that_another_engine_chose_becomes_one_of_the_space() -> None:
    space = load_search_spaces()["GradientBoosting"]
    chosen = {
        "n_estimators": 120.0,
        "learning_rate": 0.1,
        "max_depth": 3,
        "min_samples_split": 2,
        "min_samples_leaf": 1,
        "subsample": 1.0,
        "max_features": None,
    }
    settled = space.settle({**chosen, "_wandb": {}})
    assert settled == chosen
    assert [type(settled[name]) for name in ("n_estimators", "subsample")] == [int, float]
    for wrong in ({"n_estimators": 120.5}, {"learning_rate": 3.0}, {"max_features": "all"}):
        with pytest.raises(SearchSpaceError, match="is not a setting of n_estimators, learning_rate, "):
            space.settle({**chosen, **wrong})
    with pytest.raises(SearchSpaceError, match="is not a setting of n_estimators, learning_rate, "):
        space.settle({"n_estimators": 120})


def test_a_space_goes_to_wandb_as_the_file_has_it() -> None:
    alpha = {"distribution": "log_uniform_values", "min": 0.1, "max": 10.0}
    text = RIDGE % "{distribution: log_uniform_values, min: 0.1, max: 10.0}"
    assert load_search_spaces(text)["Ridge"].as_sweep_config() == {
        "method": "bayes",
        "metric": {"name": "wmape", "goal": "minimize"},
        "parameters": {"alpha": alpha},
    }


@pytest.mark.parametrize(
    ("parameter", "bounds"),
    [
        ({"value": 3}, CategoricalDistribution([3])),
        ({"values": ["sqrt", None]}, CategoricalDistribution(["sqrt", None])),
        ({"min": 1, "max": 3}, IntDistribution(1, 3)),
        ({"min": 50, "max": 150, "q": 50, "distribution": "q_uniform"}, IntDistribution(50, 150)),
        ({"min": 1, "max": 3, "distribution": "uniform"}, FloatDistribution(1, 3)),
        ({"min": 1, "max": 3, "distribution": "log_uniform_values"}, FloatDistribution(1, 3, log=True)),
    ],
)
def test_the_bounds_of_a_parameter(parameter: dict[str, object], bounds: object) -> None:
    assert Parameter.model_validate(parameter).bounds == bounds
