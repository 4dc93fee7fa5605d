"""The sweep: what is found, what is stopped early, and that nothing about it is left to chance."""

import math
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

from housing_assets.ml import studies, sweep_results
from housing_assets.ml.metrics import METRICS
from housing_assets.ml.search_spaces import SearchSpace, load_search_spaces
from housing_assets.ml.selection import FoldScore, mean_metrics, score_folds
from housing_assets.ml.sweep import BATCH, LEAST_GAIN, BestParams, SweepResult, run_sweep
from housing_assets.ml.sweep_results import SweepPlan
from housing_assets_tests.ml.block_groups import small_folds

BEST = BestParams(
    sweep_id="0badcafe",
    best_run_id="0badcafe-3",
    best_run_name="trial-003",
    model_type="RandomForest",
    hyperparameters={"max_features": "sqrt", "max_depth": 30},
    metrics=dict.fromkeys(METRICS, 0.1),
    engine="optuna",
    n_trials=8,
    seed=42,
)


def tree_space(**changes: object) -> SearchSpace:
    return SearchSpace.model_validate(
        {
            "method": "bayes",
            "metric": {"name": "wmape", "goal": "minimize"},
            "early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 3, "s": 2},
            "parameters": {"max_depth": {"min": 1, "max": 12}, "min_samples_leaf": {"min": 1, "max": 10}},
            **changes,
        }
    )


def tree_sweep(space: SearchSpace | None = None, n_trials: int = 8, **options: object) -> SweepResult:
    arguments = {"n_trials": n_trials, "seed": 7, "study_name": "rows-of-today", **options}
    return run_sweep(small_folds(), "DecisionTree", space or tree_space(), **arguments)


def assert_same(one: SweepResult, other: SweepResult) -> None:
    """Equal to the last bit, but for the time it took."""
    assert one.best_params == other.best_params
    pd.testing.assert_frame_equal(
        one.trials.drop(columns="seconds"), other.trials.drop(columns="seconds"), check_exact=True
    )


def test_the_best_params_are_those_of_the_best_complete_trial() -> None:
    result = tree_sweep()
    complete = result.trials[result.trials["state"] == "COMPLETE"]
    best = complete.loc[complete["wmape"].idxmin()]
    found = result.best_params
    assert found.best_run_name == best["name"]
    assert found.hyperparameters == {
        "max_depth": best["max_depth"],
        "min_samples_leaf": best["min_samples_leaf"],
    }
    assert found.metrics == {name: best[name] for name in METRICS}
    assert (found.model_type, found.engine, found.n_trials, found.seed) == ("DecisionTree", "optuna", 8, 7)
    assert found.best_run_id == f"{found.sweep_id}-{best['number']}"
    assert found.sweep_url is None


def test_the_metrics_are_the_means_over_all_folds() -> None:
    found = tree_sweep(n_trials=2).best_params
    scores = score_folds("DecisionTree", [(found.hyperparameters, fold) for fold in small_folds()], seed=7)
    assert found.metrics == mean_metrics(scores)


def test_of_the_trials_at_the_first_fold_only_the_best_third_go_on() -> None:
    trials = tree_sweep().trials
    assert len(trials) == 8
    # Two of the first batch; of the second, which is smaller, only one that is the best of all.
    assert (trials["state"][:BATCH] == "COMPLETE").sum() == BATCH // 3
    assert 2 <= (trials["state"] == "COMPLETE").sum() <= 3
    stopped = trials[trials["state"] == "PRUNED"]
    assert (stopped["folds"] == 1).all()
    assert (trials[trials["state"] == "COMPLETE"]["folds"] == 3).all()


def test_trials_are_compared_by_a_part_of_the_rows_before_any_is_scored_on_a_fold() -> None:
    folds = small_folds(4_500)
    space = tree_space(early_terminate={"type": "hyperband", "min_iter": 1, "eta": 3, "s": 3})
    plan = SweepPlan.of(folds, "DecisionTree", space, 12, 7, "rows-of-today", None)
    rows = len(folds[0].x_train)
    assert [len(part.x_train) for part in plan.parts] == [round(rows / 9), round(rows / 3), *3 * [rows]]
    assert all(part.x_valid is folds[0].x_valid for part in plan.parts[:3])
    assert plan.stages == [0, 1, 2, 3, 5]

    found = run_sweep(folds, "DecisionTree", space, n_trials=12, seed=7, study_name="rows-of-today")
    trials = found.trials
    assert {(1 / 9, 0), (1.0, 3)} <= set(zip(trials["share"], trials["folds"], strict=True))
    assert trials[trials["share"] == 1 / 9]["reason"].str.startswith("stopped after 11% of the first").all()
    # What a rehearsal has shown is no part of a score.
    scores = score_folds(
        "DecisionTree", [(found.best_params.hyperparameters, fold) for fold in folds], seed=7
    )
    assert found.best_params.metrics == mean_metrics(scores)


def test_later_trials_go_on_only_while_there_is_room_or_as_clearly_the_best() -> None:
    trials = tree_sweep(n_trials=24).trials
    first_fold = [
        score_folds("DecisionTree", [(params, small_folds()[0])], seed=7)[0].metrics["wmape"]
        for params in trials[["max_depth", "min_samples_leaf"]].to_dict(orient="records")
    ]
    went_on = trials["state"] == "COMPLETE"
    for start in range(BATCH, 24, BATCH):
        batch, so_far = range(start, start + BATCH), start + BATCH
        best = min(range(so_far), key=lambda number: (first_fold[number], number))
        room = so_far // 3 - int(went_on[:start].sum())
        reached = [first_fold[number] for number in range(start) if went_on[number]]
        clear = best in batch and first_fold[best] <= (1 - LEAST_GAIN) * min(reached, default=math.inf)
        assert went_on[start:so_far].sum() <= max(room, clear)
        if clear:
            assert went_on[best]


def test_where_rows_are_few_the_first_fold_is_the_first_comparison() -> None:
    space = tree_space(early_terminate={"type": "hyperband", "min_iter": 1, "eta": 3, "s": 3})
    plan = SweepPlan.of(small_folds(), "DecisionTree", space, 8, 7, "rows-of-today", None)
    assert plan.parts == small_folds()
    assert plan.stages == [0, 1, 3]


def test_without_early_termination_every_trial_completes() -> None:
    trials = tree_sweep(tree_space(early_terminate=None)).trials
    assert trials["state"].tolist() == ["COMPLETE"] * 8
    assert trials["folds"].tolist() == [3] * 8


def test_stops_that_lie_beyond_the_folds_do_nothing() -> None:
    late = {"type": "hyperband", "min_iter": 27, "eta": 3, "s": 2}
    assert set(tree_sweep(tree_space(early_terminate=late), 4).trials["folds"]) == {3}


def test_a_metric_to_maximise_keeps_and_finds_the_highest() -> None:
    result = tree_sweep(tree_space(metric={"name": "r2", "goal": "maximize"}), n_trials=4)
    complete = result.trials[result.trials["state"] == "COMPLETE"]
    assert result.best_params.metrics["r2"] == complete["r2"].max()
    at_first_fold = [
        score_folds("DecisionTree", [(params, small_folds()[0])], seed=7)[0].metrics["r2"]
        for params in result.trials[["max_depth", "min_samples_leaf"]].to_dict(orient="records")
    ]
    assert complete["number"].tolist() == [at_first_fold.index(max(at_first_fold))]


def test_the_same_seed_and_rows_give_the_same_bytes_and_another_seed_another_search() -> None:
    one, same, other = tree_sweep(), tree_sweep(), tree_sweep(seed=8)
    assert one.best_params.to_yaml() == same.best_params.to_yaml()
    assert_same(one, same)
    assert other.best_params.sweep_id != one.best_params.sweep_id
    assert other.trials["max_depth"].tolist() != one.trials["max_depth"].tolist()


def test_random_search_is_seeded_too() -> None:
    one, same = (tree_sweep(tree_space(method="random"), n_trials=5) for _ in range(2))
    assert one.best_params == same.best_params


def test_the_search_starts_from_a_given_setting_of_the_space() -> None:
    trials = tree_sweep(n_trials=3, start_from={"max_depth": 5, "min_samples_leaf": 6}).trials
    assert trials.loc[0, ["max_depth", "min_samples_leaf"]].tolist() == [5, 6]


def test_the_setting_to_start_from_is_scored_in_full_however_badly_it_begins() -> None:
    poor = {"max_depth": 1, "min_samples_leaf": 10}
    trials = tree_sweep(start_from=poor).trials
    assert trials.loc[0, ["max_depth", "min_samples_leaf"]].tolist() == [1, 10]
    complete = trials[trials["state"] == "COMPLETE"]
    assert complete["number"].tolist()[0] == 0
    assert len(complete) > 1
    assert complete["wmape"].idxmin() != 0


def test_a_starting_point_outside_the_space_is_passed_over() -> None:
    trials = tree_sweep(n_trials=3, start_from={"max_depth": 50, "min_samples_leaf": 6}).trials
    assert len(trials) == 3
    assert trials["max_depth"].max() <= 12


def test_every_trial_is_reported() -> None:
    told: list[str] = []
    tree_sweep(progress=told.append)
    assert len(told) == 8
    assert told[0].startswith("trial 1/8 wmape ")
    assert sum("stopped after 1 of 3 folds" in line for line in told) >= 5
    assert any(", complete: {'max_depth': " in line for line in told)


def test_a_null_and_a_fixed_value_can_be_searched() -> None:
    parameters = {"max_features": {"values": [None]}, "n_estimators": {"value": 3}}
    result = run_sweep(
        small_folds(),
        "RandomForest",
        tree_space(parameters=parameters),
        n_trials=1,
        seed=1,
        study_name="fixed",
    )
    assert result.best_params.hyperparameters == {"max_features": None, "n_estimators": 3}


def test_every_trial_says_why_it_ended() -> None:
    trials = tree_sweep().trials
    complete = trials["state"] == "COMPLETE"
    assert set(trials[complete]["reason"]) == {"complete"}
    pattern = r"stopped after 1 of 3 folds: rank [2-8] of [68], of which 2 go on"
    assert trials[~complete]["reason"].str.fullmatch(pattern).all()
    assert (trials["seconds"] > 0).all()


def test_every_trial_has_the_importances_of_its_features() -> None:
    result = tree_sweep()
    features = small_folds()[0].features
    assert list(result.importances.columns) == ["number", *features]
    assert result.importances[list(features)].sum(axis=1).tolist() == pytest.approx([1.0] * 8)
    stump = result.importances.loc[0, list(features)]
    top = stump.sort_values(ascending=False, kind="stable")
    assert result.trials.loc[0, "top_features"].startswith(f"{top.index[0]} {top.iloc[0]:.0%}, ")


def test_the_parameter_that_matters_is_found() -> None:
    # Leaves of 1 to 3 rows are much alike; a tree of depth 1 is far from one of depth 12.
    parameters = {"max_depth": {"min": 1, "max": 12}, "min_samples_leaf": {"min": 1, "max": 3}}
    shares = tree_sweep(tree_space(parameters=parameters), n_trials=12).parameter_importances
    assert shares["parameter"].tolist() == ["max_depth", "min_samples_leaf"]
    assert shares["importance"].sum() == pytest.approx(1.0)
    assert shares["importance"][0] > 0.8


def test_from_two_trials_nothing_is_said_about_parameters() -> None:
    assert tree_sweep(n_trials=2).parameter_importances.empty


def test_an_interrupted_sweep_resumes_and_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def interrupted(*arguments: object) -> list[FoldScore]:
        nonlocal calls
        calls += 1
        # The first batch takes two calls; the third is the second batch's first folds.
        if calls == 3:
            raise KeyboardInterrupt
        return score_folds(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(studies, "score_folds", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tree_sweep(folder=tmp_path)
    assert_same(tree_sweep(folder=tmp_path), tree_sweep())


def test_a_finished_study_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tree_sweep(n_trials=5, folder=tmp_path)
    monkeypatch.setattr(studies, "score_folds", None)
    assert_same(tree_sweep(n_trials=5, folder=tmp_path), first)


def test_a_line_that_a_killed_process_has_half_written_is_taken_off(tmp_path: Path) -> None:
    tree_sweep(n_trials=4, folder=tmp_path)
    [journal] = tmp_path.rglob("study.journal")
    whole = journal.read_bytes()
    # The last line records the last trial.
    journal.write_bytes(whole[:-20])
    assert_same(tree_sweep(n_trials=4, folder=tmp_path), tree_sweep(n_trials=4))
    assert journal.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"n_trials": 7},
        {"space": tree_space(early_terminate=None)},
        {"start_from": {"max_depth": 5, "min_samples_leaf": 6}},
    ],
)
def test_another_plan_is_another_study(change: dict[str, Any]) -> None:
    assert tree_sweep(**change).best_params.sweep_id != tree_sweep().best_params.sweep_id


def test_another_release_has_other_rules_and_another_study(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [SweepPlan.of(small_folds(600), "Ridge", tree_space(), 8, 7, "name", None) for _ in range(2)]
    before = plans[0].identity
    monkeypatch.setattr(sweep_results, "version", lambda _: "99.0")
    assert plans[1].identity != before


def test_other_rows_are_another_study() -> None:
    one, other = (
        SweepPlan.of(small_folds(rows), "Ridge", tree_space(), 8, 7, "name", None) for rows in (600, 599)
    )
    assert one.identity != other.identity


def test_optuna_is_left_as_talkative_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    tree_sweep(n_trials=1)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr().err == ""


def test_best_params_survive_the_file_to_the_last_digit() -> None:
    tenth = BEST.model_copy(update={"hyperparameters": {"alpha": 0.1 + 0.2, "max_features": None}})
    assert BestParams.from_yaml(tenth.to_yaml()) == tenth
    assert "alpha: 0.30000000000000004\n" in tenth.to_yaml()


def test_the_file_is_sorted_so_that_two_can_be_compared_line_by_line() -> None:
    lines = BEST.to_yaml().splitlines()
    top = [line.split(":")[0] for line in lines if not line.startswith(" ")]
    assert top == sorted(top)
    assert lines[:2] == ["best_run_id: 0badcafe-3", "best_run_name: trial-003"]
    assert lines[3:6] == ["hyperparameters:", "  max_depth: 30", "  max_features: sqrt"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "best_params.yaml is not YAML"),
        ("- a", "best_params.yaml is not complete (file: "),
        (BEST.to_yaml().replace("model_type: RandomForest\n", ""), "(model_type: Field required)"),
        (BEST.to_yaml() + "colour: red\n", "(colour: Extra inputs are not permitted)"),
        (BEST.to_yaml().replace("  wmape: 0.1\n", ""), "metrics must be exactly mae, rmse, r2"),
    ],
)
def test_an_incomplete_file_is_refused_with_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        BestParams.from_yaml(text)
    assert problem in str(caught.value)


# Lasso with hardly any penalty needs more rows than these to converge.
@pytest.mark.filterwarnings("ignore:Objective did not converge")
def test_the_packaged_spaces_can_all_be_searched() -> None:
    for family, space in load_search_spaces().items():
        if family not in ("RandomForest", "GradientBoosting"):
            result = run_sweep(small_folds(), family, space, n_trials=1, seed=1, study_name="any")
            assert result.best_params.metrics["r2"] > 0
