"""`raw_housing`: the source rows as published, immutable and content-hashed."""

from collections.abc import Sequence
from hashlib import sha256

import dagster as dg
import pandas as pd
from pydantic import Field

from housing_assets.compute import ComputeResource
from housing_assets.datasets.steps import SourceFile
from housing_assets.metadata import table_metadata
from housing_assets.ml.report import Param, StepReport
from housing_assets.ml.schemas import RAW_SCHEMA
from housing_assets.resources import SourceResource
from housing_assets.snapshot_asset import blocking_check, snapshot_asset, validation_result
from housing_assets.sources import Source, is_folder, list_files, parse
from housing_assets.tables import Table, nulls_of
from housing_assets.tracking import TrackingResource

STORED_AT = "data/01-raw/{snapshot}/housing.parquet"


class RawHousingConfig(dg.Config):
    """Where this run reads its rows."""

    location: str | None = Field(
        default=None,
        description=(
            "https, gs:// or local path of a csv, csv.gz, parquet or tgz; may hold {snapshot}. "
            "Ends with / for all files of a local or gs:// folder, which may be larger than memory. "
            "Empty: HOUSING_SOURCE_URI, else the table that ships with the package."
        ),
    )


@snapshot_asset(group="data", kinds={"parquet", "pandas"}, stored_at=STORED_AT)
def raw_housing(
    context: dg.AssetExecutionContext,
    config: RawHousingConfig,
    source: SourceResource,
    tracking: TrackingResource,
    compute: ComputeResource,
) -> dg.MaterializeResult[Table]:
    """Source rows as published: one row is one census block group of California (1990).

    Nothing is repaired here; the checks say what is wrong and stop the graph.
    """
    with tracking.step(context, job_type="download_data", artifact_type="raw_data") as step:
        place = source.place(context.partition_key, config.location)
        if is_folder(place):
            table, report = read_folder(source, compute, place, context.partition_key)
        else:
            table, report = read_file(source, place)
        step.log(report)
    return dg.MaterializeResult(
        value=table,
        metadata={**table_metadata(table), **step.metadata, "source": place},
        data_version=dg.DataVersion(str(report.params["source_sha256"])),
    )


def read_file(source: SourceResource, place: str) -> tuple[Table, StepReport]:
    """A file as a frame, and what there is to say of it."""
    fetched = source.read(place)
    frame = parse(fetched)
    return frame, source_report(fetched, frame)


def read_folder(
    source: SourceResource, compute: ComputeResource, place: str, snapshot: str
) -> tuple[Table, StepReport]:
    """All files of a folder as a dataset, and what there is to say of them."""
    table, files = compute.read_files(list_files(place), STORED_AT.format(snapshot=snapshot))
    report = folder_report(place, files, table)
    source.verify(place, str(report.params["source_sha256"]))
    return table, report


def source_report(source: Source, frame: pd.DataFrame) -> StepReport:
    """Size, shape and gaps of the source file."""
    return table_report(
        {"source": source.location, "source_sha256": source.sha256, "member": source.member},
        len(source.data),
        frame,
    )


def folder_report(place: str, files: Sequence[SourceFile], table: Table) -> StepReport:
    """Size, shape and gaps of all files; the checksum is that of what `sha256sum` lists."""
    listing = "".join(f"{file.sha256}  {file.location.removeprefix(place)}\n" for file in files)
    params: dict[str, Param] = {
        "source": place,
        "source_sha256": sha256(listing.encode()).hexdigest(),
        "files": len(files),
    }
    return table_report(params, sum(file.size for file in files), table)


def table_report(params: dict[str, Param], size: int, table: Table) -> StepReport:
    """Where rows came from, how many bytes and rows they are, and what is missing in them."""
    missing = nulls_of(table)
    return StepReport(
        params=params,
        metrics={
            "file_size_mb": size / 1e6,
            "n_rows": len(table),
            "n_columns": len(missing),
            "n_missing_values": int(missing.sum()),
        },
        tables={"missing_values": missing.rename_axis("column").rename("missing").reset_index()},
    )


@blocking_check(raw_housing, "Columns, types, ranges and categories of every source row.")
def raw_rows_are_valid(raw_housing: Table, compute: ComputeResource) -> dg.AssetCheckResult:
    """Every row lies within the published limits; failing rows are listed with the reason."""
    return validation_result(compute.check(raw_housing, RAW_SCHEMA), len(raw_housing))
