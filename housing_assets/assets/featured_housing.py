"""`featured_housing`: stateless, row-wise features added; nothing is fitted here."""

import dagster as dg

from housing_assets.compute import ComputeResource
from housing_assets.metadata import table_result
from housing_assets.ml.report import StepReport
from housing_assets.ml.schemas import FEATURED_SCHEMA
from housing_assets.snapshot_asset import blocking_check, snapshot_asset, validation_result
from housing_assets.tables import Table, sample_of
from housing_assets.tracking import TrackingResource
from housing_serving.features import ROW_FEATURES

STORED_AT = "data/03-features/{snapshot}/housing_features.parquet"


@snapshot_asset(group="data", kinds={"parquet", "pandas"}, stored_at=STORED_AT)
def featured_housing(
    context: dg.AssetExecutionContext,
    processed_housing: Table,
    tracking: TrackingResource,
    compute: ComputeResource,
) -> dg.MaterializeResult[Table]:
    """Clean rows plus ratios per household and per room: one row is one block group.

    Only arithmetic within a row happens before the split, so nothing can leak from test to train.
    """
    with tracking.step(context, job_type="feature_engineering", artifact_type="features") as step:
        featured = compute.add_row_features(
            processed_housing, STORED_AT.format(snapshot=context.partition_key)
        )
        step.log(feature_report(featured))
    return table_result(featured, step.metadata)


def feature_report(featured: Table) -> StepReport:
    """Spread of the new features."""
    spread = sample_of(featured)[list(ROW_FEATURES)].describe().T.rename_axis("feature").reset_index()
    return StepReport(
        params={"features_added": ", ".join(ROW_FEATURES)},
        metrics={"n_rows": len(featured), "n_features_added": len(ROW_FEATURES)},
        tables={"feature_statistics": spread},
    )


@blocking_check(featured_housing, "Schema and ranges of rows with features.")
def featured_rows_are_valid(featured_housing: Table, compute: ComputeResource) -> dg.AssetCheckResult:
    """Features are finite wherever their inputs are known; failing rows are listed with the reason."""
    return validation_result(compute.check(featured_housing, FEATURED_SCHEMA), len(featured_housing))
