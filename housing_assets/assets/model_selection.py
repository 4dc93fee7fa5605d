"""`model_selection`: the model families compared by shuffled cross-validation on `train_set`."""

from enum import StrEnum
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from housing_assets.ml import plots
from housing_assets.ml.report import StepReport
from housing_assets.ml.selection import (
    CRITERION,
    FAMILIES,
    SelectionResult,
    compare_families,
    prepare_folds,
)
from housing_assets.resources import FeatureResource
from housing_assets.snapshot_asset import blocking_check, snapshot_asset
from housing_assets.tracking import TrackingResource


class Grid(StrEnum):
    """How many settings of each family are tried."""

    small = "small"
    full = "full"


class ModelSelectionConfig(dg.Config):
    """Budget of the comparison."""

    families: list[str] = Field(
        default=list(FAMILIES), description=f"Families to compare, of: {list(FAMILIES)}."
    )
    grid: Grid = Field(default=Grid.small, description="small: seconds; full: the published grids, hours.")
    n_folds: int = Field(default=3, ge=2, description="Folds of the shuffled cross-validation.")
    random_state: int = Field(default=42, description="Seed of folds and models.")


@snapshot_asset(
    group="training",
    heavy=True,
    kinds={"scikitlearn", "yaml"},
    stored_at="models/05-selection/{snapshot}/model_selection.yaml",
)
def model_selection(
    context: dg.AssetExecutionContext,
    config: ModelSelectionConfig,
    train_set: pd.DataFrame,
    features: FeatureResource,
    tracking: TrackingResource,
) -> dg.MaterializeResult[dict[str, Any]]:
    """The winning family, and every family's best setting and cross-validated errors: one entry per family.

    Judged on training rows alone, in shuffled folds; preprocessing is fitted anew within each fold.
    """
    with tracking.step(context, job_type="model_selection", artifact_type="model_selection") as step:
        folds = prepare_folds(train_set, config.n_folds, config.random_state, features=features.settings())
        result = compare_families(
            folds, config.families, config.grid.value, config.random_state, context.log.info
        )
        step.log(selection_report(result, config))
    return dg.MaterializeResult(value=selection_summary(result), metadata=step.metadata)


def selection_summary(result: SelectionResult) -> dict[str, Any]:
    """What is stored: no timings, so that the same data gives the same bytes."""
    timings = [name for name in result.table.columns if name.endswith("_seconds")]
    return {
        "criterion": CRITERION,
        "winner": result.winner,
        "best_params": result.best_params,
        "families": result.table.drop(columns=timings).to_dict(orient="records"),
    }


def selection_report(result: SelectionResult, config: ModelSelectionConfig) -> StepReport:
    """The comparison table and the winner's errors."""
    best = result.table.set_index("family").loc[result.winner].to_dict()
    return StepReport(
        params={"winner": result.winner, "grid": config.grid.value, "n_folds": config.n_folds},
        metrics={f"best_{name}": float(value) for name, value in best.items()},
        tables={"model_comparison": result.table},
        figures={"model_comparison_plot": plots.model_comparison(result.table)},
    )


@blocking_check(model_selection, "The winner explains more than the mean price does.")
def winner_beats_the_mean(model_selection: dict[str, Any]) -> dg.AssetCheckResult:
    """A cross-validated R² above zero: else no family has learned anything."""
    rows = {row["family"]: row for row in model_selection["families"]}
    r2 = float(rows[model_selection["winner"]]["r2"])
    return dg.AssetCheckResult(
        passed=r2 > 0,
        description=f"{model_selection['winner']}: cross-validated R² {r2:.4f}, must be above 0",
        metadata={"r2": r2},
    )
