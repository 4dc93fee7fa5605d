"""`sweep_result`: the search over the winning family's space, and the best hyperparameters."""

from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field, ValidationError

from housing_assets.ml import plots
from housing_assets.ml.report import StepReport
from housing_assets.ml.search_spaces import SearchSpace, load_search_spaces
from housing_assets.ml.selection import prepare_folds
from housing_assets.ml.sweep_results import BestParams, SweepResult
from housing_assets.resources import FeatureResource
from housing_assets.snapshot_asset import blocking_check, snapshot_asset
from housing_assets.sweep_engines import EngineName, SweepResource
from housing_assets.tracking import TrackingResource


class SweepConfig(dg.Config):
    """Budget of the search, and who runs it."""

    n_trials: int = Field(default=5, ge=1, description="Settings to try; the published budget is 60.")
    n_folds: int = Field(default=3, ge=2, description="Folds of the shuffled cross-validation.")
    family: str | None = Field(default=None, description="Search this family instead of the winner.")
    random_state: int = Field(default=42, description="Seed of folds, models and search.")
    engine: EngineName = Field(
        default="auto", description="auto is wandb where WANDB_API_KEY is set, else optuna."
    )
    n_processes: int = Field(
        default=1,
        ge=1,
        description="Processes of this machine that share the trials; one uses all processors by itself, "
        "and a cluster (HOUSING_COMPUTE) all its workers.",
    )


@snapshot_asset(
    group="training",
    heavy=True,
    kinds={"optuna", "wandb", "yaml"},
    stored_at="models/06-sweep/{snapshot}/best_params.yaml",
)
def sweep_result(
    context: dg.AssetExecutionContext,
    config: SweepConfig,
    train_set: pd.DataFrame,
    model_selection: dict[str, Any],
    features: FeatureResource,
    tracking: TrackingResource,
    sweep: SweepResource,
) -> dg.MaterializeResult[dict[str, Any]]:
    """The best hyperparameters found for the winning family, as a readable, diffable YAML file.

    The page has the whole search: one row is one trial, with the reason why it ended.
    Every trial is scored in shuffled folds of the training rows; poor ones stop after a part of the first
    fold. A sweep that was killed goes on where it was (Optuna).
    """
    with tracking.step(context, job_type="sweep", artifact_type="sweep_result") as step:
        family = config.family or model_selection["winner"]
        space = load_search_spaces()[family]
        result = sweep.engine(config.engine, config.n_processes)(
            prepare_folds(train_set, config.n_folds, config.random_state, features=features.settings()),
            family,
            space,
            n_trials=config.n_trials,
            seed=config.random_state,
            study_name=f"{family} {context.partition_key}",
            progress=context.log.info,
            start_from=model_selection["best_params"].get(family),
        )
        step.log(sweep_report(result, space))
    best = result.best_params
    links = {"sweep": dg.MetadataValue.url(best.sweep_url)} if best.sweep_url else {}
    return dg.MaterializeResult(value=best.model_dump(mode="json"), metadata={**step.metadata, **links})


def sweep_report(result: SweepResult, space: SearchSpace) -> StepReport:
    """Best setting, all trials, how the search went and what mattered in it."""
    best, objective, maximize = result.best_params, space.metric.name, space.metric.goal == "maximize"
    figures = {
        "sweep_history": plots.sweep_history(result.trials, objective, maximize=maximize),
        "parallel_coordinates": plots.parallel_coordinates(
            result.trials,
            list(space.parameters),
            objective,
            maximize=maximize,
            logarithmic=space.logarithmic,
        ),
    }
    if not result.parameter_importances.empty:
        shares = result.parameter_importances
        figures["parameter_importances"] = plots.parameter_importances(shares, objective)
    return StepReport(
        params={"model_type": best.model_type, "sweep_id": best.sweep_id, **best.hyperparameters},
        metrics={**best.metrics, "n_trials": len(result.trials)},
        tables={"trials": result.trials},
        figures=figures,
        texts={
            "best_params.yaml": best.to_yaml(),
            "trial_importances.csv": result.importances.to_csv(index=False),
        },
    )


@blocking_check(sweep_result, "Every field of best_params.yaml is there and well-formed.")
def best_params_are_complete(sweep_result: dict[str, Any]) -> dg.AssetCheckResult:
    """The file validates against the model that registration reads."""
    try:
        best = BestParams.model_validate(sweep_result)
    except ValidationError as error:
        return dg.AssetCheckResult(passed=False, description=str(error))
    return dg.AssetCheckResult(
        passed=True, description=f"{best.model_type}: {best.hyperparameters}", metadata=best.metrics
    )
