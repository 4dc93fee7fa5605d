"""`processed_housing`: typed, de-duplicated, range-checked rows with a stable id."""

import dagster as dg
import pandas as pd

from housing_assets.metadata import table_result
from housing_assets.ml import plots
from housing_assets.ml.cleaning import Processed, process
from housing_assets.ml.report import StepReport
from housing_assets.ml.schemas import PROCESSED_SCHEMA, validate
from housing_assets.snapshot_asset import blocking_check, snapshot_asset, validation_result
from housing_assets.tracking import TrackingResource


@snapshot_asset(
    group="data",
    kinds={"parquet", "pandas"},
    stored_at="data/02-processed/{snapshot}/housing_processed.parquet",
)
def processed_housing(
    context: dg.AssetExecutionContext, raw_housing: pd.DataFrame, tracking: TrackingResource
) -> dg.MaterializeResult[pd.DataFrame]:
    """Clean rows: one row is one block group, identified by `block_group_id`, in the order of that id.

    The id hashes where and how large the block group is, so neither the order of the source nor a corrected
    price changes it.
    """
    with tracking.step(context, job_type="preprocessing", artifact_type="processed_data") as step:
        processed = process(raw_housing)
        step.log(processing_report(raw_housing, processed))
    return table_result(processed.frame, step.metadata)


def processing_report(raw: pd.DataFrame, processed: Processed) -> StepReport:
    """What was dropped, and how the columns hang together."""
    return StepReport(
        metrics={
            "rows_in": len(raw),
            "rows_out": len(processed.frame),
            "rows_dropped": processed.duplicates_dropped,
            "rows_at_price_cap": processed.capped_rows,
            "n_missing_values": int(processed.frame.isna().sum().sum()),
        },
        figures={"correlation_heatmap": plots.correlation_heatmap(processed.frame)},
    )


@blocking_check(processed_housing, "Schema and ranges; every block_group_id occurs once.")
def processed_rows_are_valid(processed_housing: pd.DataFrame) -> dg.AssetCheckResult:
    """Typed columns within limits and unique ids; failing rows are listed with the reason."""
    return validation_result(validate(processed_housing, PROCESSED_SCHEMA), len(processed_housing))
