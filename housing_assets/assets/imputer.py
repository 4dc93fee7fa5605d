"""`imputer`: the strategies compared on masked training rows, the winner fitted on `train_set`."""

from enum import StrEnum

import dagster as dg
import pandas as pd
from pydantic import Field

from housing_assets.ml import plots
from housing_assets.ml.imputation import BedroomImputer, ImputationComparison, compare_strategies
from housing_assets.ml.report import StepReport
from housing_assets.snapshot_asset import blocking_check, snapshot_asset
from housing_assets.tracking import TrackingResource


class Strategy(StrEnum):
    """How missing `total_bedrooms` are filled; Dagster's configuration spells members by their names."""

    auto = "auto"
    median = "median"
    mean = "mean"
    knn = "knn"
    iterative_forest = "iterative_forest"
    ratio_boosting = "ratio_boosting"


class ImputerConfig(dg.Config):
    """How the imputer is chosen."""

    strategy: Strategy = Field(
        default=Strategy.auto, description="auto compares the strategies and takes the best."
    )
    mask_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="Share of known values that is hidden for the comparison."
    )
    repeats: int = Field(default=1, ge=1, description="How many random masks the comparison averages over.")
    random_state: int = Field(default=42, description="Seed of masks and models.")


@snapshot_asset(
    group="preprocessing", heavy=True, kinds={"scikitlearn"}, stored_at="artifacts/{snapshot}/imputer.skops"
)
def imputer(
    context: dg.AssetExecutionContext,
    config: ImputerConfig,
    train_set: pd.DataFrame,
    tracking: TrackingResource,
) -> dg.MaterializeResult[BedroomImputer]:
    """The fitted imputer of `total_bedrooms`, chosen by the error on hidden known values.

    One materialization is one object that fills any block group's unknown bedrooms.
    Fitted on training rows only; the price is never a predictor, so the same imputer works in the service.
    """
    with tracking.step(context, job_type="imputation", artifact_type="imputer") as step:
        chosen, seed = config.strategy.value, config.random_state
        if config.strategy is Strategy.auto:
            comparison = compare_strategies(
                train_set, mask_fraction=config.mask_fraction, repeats=config.repeats, seed=seed
            )
            chosen = comparison.best
            step.log(comparison_report(comparison))
        fitted = BedroomImputer(strategy=chosen, random_state=seed).fit(train_set)
        step.log(StepReport(params={"imputation_strategy": chosen}))
    return dg.MaterializeResult(value=fitted, metadata={**step.metadata, "strategy": chosen})


def comparison_report(comparison: ImputationComparison) -> StepReport:
    """Masked error by strategy."""
    by_strategy = comparison.table.set_index("strategy")["rmse"]
    return StepReport(
        params={"best_imputation_method": comparison.best},
        metrics={f"imputation_rmse_{name}": value for name, value in by_strategy.items()},
        tables={"imputation_strategies": comparison.table},
        figures={"imputation_comparison": plots.imputation_comparison(comparison.table, comparison.best)},
    )


@blocking_check(
    imputer,
    "The imputed column has no nulls left, and every imputed count is at least one.",
    additional_ins={"train_set": dg.AssetIn("train_set")},
)
def imputed_column_has_no_nulls(imputer: BedroomImputer, train_set: pd.DataFrame) -> dg.AssetCheckResult:
    """Fill the training rows, and look at the result."""
    filled = imputer.transform(train_set)["total_bedrooms"]
    bad = train_set.loc[(filled.isna() | (filled < 1)).to_numpy(), "block_group_id"].tolist()
    was_null = int(train_set["total_bedrooms"].isna().sum())
    return dg.AssetCheckResult(
        passed=not bad,
        description=f"{was_null} nulls filled, {len(bad)} bad{': ' + ', '.join(bad[:10]) if bad else ''}",
        metadata={"nulls_filled": was_null, "bad_rows": len(bad)},
    )
