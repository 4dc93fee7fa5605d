"""`processed_housing`: typed, de-duplicated, range-checked rows with a stable id."""

import dagster as dg

from housing_assets.compute import ComputeResource, Processed
from housing_assets.metadata import table_result
from housing_assets.ml import plots
from housing_assets.ml.report import StepReport
from housing_assets.ml.schemas import PROCESSED_SCHEMA
from housing_assets.snapshot_asset import blocking_check, snapshot_asset, validation_result
from housing_assets.tables import Table, nulls_of, sample_of
from housing_assets.tracking import TrackingResource

STORED_AT = "data/02-processed/{snapshot}/housing_processed.parquet"


@snapshot_asset(group="data", kinds={"parquet", "pandas"}, stored_at=STORED_AT)
def processed_housing(
    context: dg.AssetExecutionContext,
    raw_housing: Table,
    tracking: TrackingResource,
    compute: ComputeResource,
) -> dg.MaterializeResult[Table]:
    """Clean rows: one row is one block group, identified by `block_group_id`, in the order of that id.

    The id hashes where and how large the block group is, so neither the order of the source nor a corrected
    price changes it.
    """
    with tracking.step(context, job_type="preprocessing", artifact_type="processed_data") as step:
        processed = compute.process(raw_housing, STORED_AT.format(snapshot=context.partition_key))
        step.log(processing_report(raw_housing, processed))
    return table_result(processed.table, step.metadata)


def processing_report(raw: Table, processed: Processed) -> StepReport:
    """What was dropped, and how the columns hang together."""
    return StepReport(
        metrics={
            "rows_in": len(raw),
            "rows_out": len(processed.table),
            "rows_dropped": processed.duplicates_dropped,
            "rows_at_price_cap": processed.capped_rows,
            "n_missing_values": int(nulls_of(processed.table).sum()),
        },
        figures={"correlation_heatmap": plots.correlation_heatmap(sample_of(processed.table))},
    )


@blocking_check(processed_housing, "Schema and ranges; every block_group_id occurs once.")
def processed_rows_are_valid(processed_housing: Table, compute: ComputeResource) -> dg.AssetCheckResult:
    """Typed columns within limits and unique ids; failing rows are listed with the reason."""
    return validation_result(compute.check(processed_housing, PROCESSED_SCHEMA), len(processed_housing))
