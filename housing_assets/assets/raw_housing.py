"""`raw_housing`: the source rows as published, immutable and content-hashed."""

import dagster as dg
import pandas as pd
from pydantic import Field

from housing_assets.metadata import table_metadata
from housing_assets.ml.report import StepReport
from housing_assets.ml.schemas import RAW_SCHEMA, validate
from housing_assets.resources import SourceResource
from housing_assets.snapshot_asset import blocking_check, snapshot_asset, validation_result
from housing_assets.sources import Source, parse
from housing_assets.tracking import TrackingResource


class RawHousingConfig(dg.Config):
    """Where this run reads its rows."""

    location: str | None = Field(
        default=None,
        description=(
            "https, gs:// or local path of a csv, csv.gz, parquet or tgz; may hold {snapshot}. "
            "Empty: HOUSING_SOURCE_URI, else the table that ships with the package."
        ),
    )


@snapshot_asset(group="data", kinds={"parquet", "pandas"}, stored_at="data/01-raw/{snapshot}/housing.parquet")
def raw_housing(
    context: dg.AssetExecutionContext,
    config: RawHousingConfig,
    source: SourceResource,
    tracking: TrackingResource,
) -> dg.MaterializeResult[pd.DataFrame]:
    """Source rows as published: one row is one census block group of California (1990).

    Nothing is repaired here; the checks say what is wrong and stop the graph.
    """
    with tracking.step(context, job_type="download_data", artifact_type="raw_data") as step:
        fetched = source.read(context.partition_key, config.location)
        frame = parse(fetched)
        step.log(source_report(fetched, frame))
    return dg.MaterializeResult(
        value=frame,
        metadata={**table_metadata(frame), **step.metadata, "source": fetched.location},
        data_version=dg.DataVersion(fetched.sha256),
    )


def source_report(source: Source, frame: pd.DataFrame) -> StepReport:
    """Size, shape and gaps of the source file."""
    missing = frame.isna().sum()
    return StepReport(
        params={"source": source.location, "source_sha256": source.sha256, "member": source.member},
        metrics={
            "file_size_mb": len(source.data) / 1e6,
            "n_rows": len(frame),
            "n_columns": frame.shape[1],
            "n_missing_values": int(missing.sum()),
        },
        tables={"missing_values": missing.rename_axis("column").rename("missing").reset_index()},
    )


@blocking_check(raw_housing, "Columns, types, ranges and categories of every source row.")
def raw_rows_are_valid(raw_housing: pd.DataFrame) -> dg.AssetCheckResult:
    """Every row lies within the published limits; failing rows are listed with the reason."""
    return validation_result(validate(raw_housing, RAW_SCHEMA), len(raw_housing))
