"""`sweep_result`: the search over the winning family's space, and the best hyperparameters."""

from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field, ValidationError

from housing_assets.ml import plots
from housing_assets.ml.cleaning import content_hash
from housing_assets.ml.report import StepReport
from housing_assets.ml.selection import prepare_folds
from housing_assets.ml.sweep import BestParams, SweepResult, load_search_spaces, run_sweep
from housing_assets.snapshot_asset import blocking_check, snapshot_asset
from housing_assets.tracking import TrackingResource


class SweepConfig(dg.Config):
    """Budget of the search."""

    n_trials: int = Field(default=8, ge=1, description="Settings to try; the published budget is 60.")
    n_folds: int = Field(default=3, ge=2, description="Folds of the shuffled cross-validation.")
    family: str | None = Field(default=None, description="Search this family instead of the winner.")
    random_state: int = Field(default=42, description="Seed of folds, models and search.")


@snapshot_asset(
    group="training", kinds={"optuna", "yaml"}, stored_at="models/06-sweep/{snapshot}/best_params.yaml"
)
def sweep_result(
    context: dg.AssetExecutionContext,
    config: SweepConfig,
    train_set: pd.DataFrame,
    model_selection: dict[str, Any],
    tracking: TrackingResource,
) -> dg.MaterializeResult[dict[str, Any]]:
    """The best hyperparameters found for the winning family, as a readable, diffable YAML file.

    Every trial is scored in shuffled folds of the training rows; poor ones stop after their first folds.
    """
    with tracking.step(context, job_type="sweep", artifact_type="sweep_result") as step:
        family = config.family or model_selection["winner"]
        folds = prepare_folds(train_set, config.n_folds, config.random_state)
        result = run_sweep(
            folds,
            family,
            load_search_spaces()[family],
            n_trials=config.n_trials,
            seed=config.random_state,
            study_name=f"{family}-{content_hash(train_set)[:12]}",
            progress=context.log.info,
            start_from=model_selection["best_params"].get(family),
        )
        step.log(sweep_report(result))
    return dg.MaterializeResult(value=result.best_params.model_dump(mode="json"), metadata=step.metadata)


def sweep_report(result: SweepResult) -> StepReport:
    """Best setting, all trials, and how the search went."""
    best = result.best_params
    return StepReport(
        params={"model_type": best.model_type, "sweep_id": best.sweep_id, **best.hyperparameters},
        metrics={**best.metrics, "n_trials": len(result.trials)},
        tables={"trials": result.trials},
        figures={"sweep_history": plots.sweep_history(result.trials)},
        texts={"best_params.yaml": best.to_yaml()},
    )


@blocking_check(sweep_result, "best_params.yaml has every field, and they are well-formed.")
def best_params_are_complete(sweep_result: dict[str, Any]) -> dg.AssetCheckResult:
    """The file validates against the model that registration reads."""
    try:
        best = BestParams.model_validate(sweep_result)
    except ValidationError as error:
        return dg.AssetCheckResult(passed=False, description=str(error))
    return dg.AssetCheckResult(
        passed=True, description=f"{best.model_type}: {best.hyperparameters}", metadata=best.metrics
    )
