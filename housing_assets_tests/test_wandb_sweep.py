"""The sweep in W&B: the real client, in processes of its own, against a stand-in of the server."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import yaml

from housing_assets.assets.sweep_result import sweep_result
from housing_assets.deployments import build_resources
from housing_assets.ml.metrics import METRICS
from housing_assets.ml.search_spaces import SearchSpace, load_search_spaces
from housing_assets.ml.sweep import run_sweep
from housing_assets.ml.sweep_results import BestParams, SweepFailed
from housing_assets.settings import Settings
from housing_assets.snapshot_asset import snapshot_asset
from housing_assets.wandb_runs import WandbUnavailable
from housing_assets.wandb_sweep import WandbTarget, run_wandb_sweep
from housing_assets_tests.ml.block_groups import block_groups, small_folds
from housing_assets_tests.scripted_http import ScriptedServer, answer, scripted_server
from housing_assets_tests.wandb_stand_in import SweepStandIn

SNAPSHOT = "2026-11-22"
FOLDS = 4
GOOD = {
    "n_estimators": 50,
    "learning_rate": 0.1,
    "max_depth": 4,
    "min_samples_split": 2,
    "min_samples_leaf": 1,
    "subsample": 0.8,
    "max_features": "sqrt",
}
# W&B's q_uniform gives whole numbers as floats.
BETTER = {**GOOD, "n_estimators": 150.0}
# A second or more a fold, so that it can be stopped before its last one.
SLOW = {**GOOD, "n_estimators": 450, "max_depth": 6, "max_features": None}
ALPHA = SearchSpace.model_validate(
    {
        "method": "random",
        "metric": {"name": "wmape", "goal": "minimize"},
        "parameters": {"alpha": {"min": 0.1, "max": 100.0}},
    }
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A server that the environment points the client at, with a key."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    with scripted_server() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        yield running


@snapshot_asset(group="test", kinds={"pandas"}, stored_at="train/{snapshot}.parquet")
def train_set() -> pd.DataFrame:
    return block_groups(800)


@snapshot_asset(group="test", kinds={"yaml"}, stored_at="selection/{snapshot}.yaml")
def model_selection() -> dict[str, Any]:
    return {"winner": "GradientBoosting", "best_params": {"GradientBoosting": GOOD}}


def materialized(home: Path, patch: pytest.MonkeyPatch, config: dict[str, Any]) -> dg.ExecuteInProcessResult:
    patch.setenv("HOUSING_HOME", str(home))
    settings = Settings.load()
    resources = build_resources(settings)
    # The runs of the steps stay offline: only the sweep is looked at.
    resources["tracking"] = build_resources(settings.model_copy(update={"wandb_api_key": None}))["tracking"]
    return dg.materialize(
        [train_set, model_selection, sweep_result],
        partition_key=SNAPSHOT,
        resources=resources,
        run_config={"ops": {"sweep_result": {"config": config}}},
    )


def as_compared(space: SearchSpace) -> list[object]:
    """What the client leaves as it is: it names the distributions that the file only implies."""
    parameters = [
        (name, one.kind, one.min, one.max, one.q, one.choices) for name, one in space.parameters.items()
    ]
    return [space.method, space.metric, space.early_terminate, sorted(parameters)]


def test_with_a_key_the_sweep_is_one_of_wandb_that_stops_trials_and_writes_the_best_run(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = SweepStandIn(server, [SLOW, BETTER, GOOD], stop={"run0"})
    done = materialized(tmp_path, monkeypatch, {"n_trials": 4, "n_folds": FOLDS, "n_processes": 2})

    assert wandb.sweep.pop("name") == f"GradientBoosting {SNAPSHOT}"
    sent = SearchSpace.model_validate(wandb.sweep)
    assert as_compared(sent) == as_compared(load_search_spaces()["GradientBoosting"])
    # The run to start from, and three by two agents.
    [prior] = wandb.prior_runs
    assert wandb.runs.keys() == {prior, "run0", "run1", "run2"}
    assert wandb.agents == 2
    assert wandb.stopped == ["run0"]
    folds = {run_id: [step["folds"] for step in run.history] for run_id, run in wandb.runs.items()}
    stopped = folds.pop("run0")
    assert stopped == list(range(1, len(stopped) + 1))
    assert len(stopped) < FOLDS
    assert folds.keys() == {prior, "run1", "run2"}
    assert all(steps == list(range(1, FOLDS + 1)) for steps in folds.values())
    assert all(step.keys() >= set(METRICS) for run in wandb.runs.values() for step in run.history)

    file = tmp_path / "storage" / "models" / "06-sweep" / SNAPSHOT / "best_params.yaml"
    best = BestParams.model_validate(yaml.safe_load(file.read_bytes()))
    assert (best.engine, best.model_type, best.n_trials) == ("wandb", "GradientBoosting", 4)
    assert best.sweep_id == "5weep001"
    assert best.sweep_url == f"{server.url}/team/housing-mlops-gcp/sweeps/5weep001"
    assert best.best_run_id == "run1"
    assert best.best_run_name == wandb.name_of("run1")
    assert best.hyperparameters == {**BETTER, "n_estimators": 150}
    assert best.metrics == {name: wandb.runs["run1"].summary[name] for name in METRICS}

    [event] = done.asset_materializations_for_node("sweep_result")
    assert event.metadata["sweep"].value == best.sweep_url
    assert f"stopped by W&B after {len(stopped)} of {FOLDS} folds" in event.metadata["trials"].value
    for plot in ("sweep_history", "parallel_coordinates", "parameter_importances"):
        assert event.metadata[plot].value.startswith("![")


def test_the_key_decides_which_engine_searches_and_where_studies_are_kept(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOUSING_HOME", str(tmp_path))
    with_key = build_resources(Settings.load())["sweep"]
    monkeypatch.delenv("WANDB_API_KEY")
    without = build_resources(Settings.load())["sweep"]
    assert with_key.engine("auto", 1).func is run_wandb_sweep
    assert with_key.engine("wandb", 1).func is run_wandb_sweep
    for optuna in (with_key.engine("optuna", 2), without.engine("auto", 2)):
        assert optuna.func is run_sweep
        assert optuna.keywords == {"folder": tmp_path / "sweeps", "n_processes": 2}
    with pytest.raises(ValueError, match="engine wandb needs a key: set WANDB_API_KEY"):
        without.engine("wandb", 1)


def alpha_sweep(server: ScriptedServer, folder: Path, **options: Any) -> BestParams:
    target = WandbTarget("housing", "team", folder)
    arguments = {"n_trials": 3, "seed": 7, "study_name": "rows-of-today", **options}
    return run_wandb_sweep(small_folds(), "Ridge", ALPHA, **arguments, target=target).best_params


def test_a_setting_outside_the_space_fails_the_sweep(server: ScriptedServer, tmp_path: Path) -> None:
    SweepStandIn(server, [{"alpha": 1_000.0}])
    with pytest.raises(SweepFailed, match="is not a setting of alpha"):
        alpha_sweep(server, tmp_path, n_trials=1)


def test_a_refused_key_is_explained(server: ScriptedServer, tmp_path: Path) -> None:
    server.afterwards = answer(401)
    with pytest.raises(WandbUnavailable, match=f"W&B at {server.url} did not take the sweep") as caught:
        alpha_sweep(server, tmp_path)
    assert "for project housing: check WANDB_API_KEY" in str(caught.value)
