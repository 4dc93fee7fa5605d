"""Dagster metadata from frames and step reports: previews, schemas, plots and charted metrics."""

import base64
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pandas as pd

from housing_assets.columns import DESCRIPTIONS
from housing_assets.ml.report import StepReport
from housing_assets.tables import Table, hash_of, nulls_of, sample_of

PREVIEW_ROWS = 8


def table_metadata(table: Table) -> dict[str, dg.MetadataValue]:
    """Row count, column schema and a preview of a stored table."""
    frame, nulls = sample_of(table), nulls_of(table)
    columns = [
        dg.TableColumn(
            name=str(name),
            type=str(dtype),
            description=DESCRIPTIONS.get(str(name)),
            constraints=dg.TableColumnConstraints(nullable=bool(nulls[str(name)])),
        )
        for name, dtype in frame.dtypes.items()
    ]
    return {
        "dagster/row_count": dg.MetadataValue.int(len(table)),
        "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns)),
        "preview": markdown_table(frame.head(PREVIEW_ROWS)),
    }


def table_result(
    table: Table, metadata: Mapping[str, Any], asset: str | None = None
) -> dg.MaterializeResult[Table]:
    """A table as an asset's result: described, and versioned by the hash of its content."""
    digest = hash_of(table)
    return dg.MaterializeResult(
        asset_key=asset,
        value=table,
        metadata={**table_metadata(table), **metadata, "content_hash": digest},
        data_version=dg.DataVersion(digest),
    )


def markdown_table(frame: pd.DataFrame, max_rows: int = 30) -> dg.MarkdownMetadataValue:
    """A small table as Markdown; nulls are empty cells, rows past `max_rows` are counted, not shown."""
    shown = frame.head(max_rows).astype(object).replace(float("nan"), None)
    text = shown.to_markdown(index=False, floatfmt=",.6g") or ""
    if len(frame) > len(shown):
        text += f"\n\n… and {len(frame) - len(shown):,} more rows"
    return dg.MetadataValue.md(text)


def image(title: str, png: bytes) -> dg.MarkdownMetadataValue:
    """A PNG as inline Markdown, so that the asset page needs no other server."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def report_metadata(report: StepReport) -> Mapping[str, dg.MetadataValue]:
    """Metadata of one report: metrics as floats (they chart over time), then tables, then plots."""
    entries: dict[str, dg.MetadataValue] = {
        name: dg.MetadataValue.float(float(value)) for name, value in report.metrics.items()
    }
    entries |= {name: markdown_table(table) for name, table in report.tables.items()}
    entries |= {name: image(name.replace("_", " "), png) for name, png in report.figures.items()}
    return entries
