"""`prediction_log`: what the service answered on one day, each instance once, in one table."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg
import pandas as pd

from housing_assets.daily_asset import daily_asset, for_each_day, link
from housing_assets.metadata import markdown_table
from housing_assets.monitoring.compaction import Compaction
from housing_assets.monitoring.prediction_rows import SCHEMA
from housing_assets.monitoring_objects import compact_day, rejected_name
from housing_assets.resources import StorageResource

CHECK = "served_rows_are_right"
# A caller may use a request id again; beyond this, the service itself writes what it should not.
MAX_REJECTED_SHARE = 0.05
COLUMNS = dg.MetadataValue.table_schema(
    dg.TableSchema([dg.TableColumn(field.name, str(field.type)) for field in SCHEMA])
)


@daily_asset(
    kinds={"parquet"},
    check_specs=[
        dg.AssetCheckSpec(
            CHECK,
            asset="prediction_log",
            blocking=True,
            description="The service's files are readable, and hardly a row in them was rejected.",
        )
    ],
)
def prediction_log(
    context: dg.AssetExecutionContext, storage: StorageResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """The predictions of one UTC day: one row is one answered instance of a request.

    Made from the files that the service wrote, late ones included when it is made again. Every row that was
    read is in the table, a duplicate, or rejected with a reason.
    """
    store, done = storage.store(), dict[date, Compaction]()

    def compacted(day: date) -> dict[str, Any]:
        done[day], stored = compact_day(store, day)
        rejected = {"rejected": link(store.uri(rejected_name("predictions", day)))}
        return {
            "dagster/uri": stored.uri,
            "dagster/row_count": done[day].rows,
            "dagster/column_schema": COLUMNS,
            "sha256": stored.sha256,
            "size_bytes": stored.size,
            **counts(done[day]),
            **(rejected if done[day].rows_rejected else {}),
        }

    for_each_day(context, compacted)
    yield dg.MaterializeResult()
    yield check_rows(done)


def counts(done: Compaction) -> dict[str, int | dg.MetadataValue]:
    """Every row that was read, by what became of it."""
    found: dict[str, int | dg.MetadataValue] = {
        "files": done.files,
        "rows_read": done.rows_read,
        "rows": done.rows,
        "duplicates": done.duplicates,
        "rows_rejected": done.rows_rejected,
        # What the service counts as housing_prediction_log_written_rows_total: rows of files, each file once.
        "rows_written_by_service": done.rows_read - done.duplicates,
    }
    if done.rejected:
        table = pd.DataFrame(list(done.rejected.items()), columns=["reason", "rows"])
        found["rejected_rows"] = markdown_table(table)
    if done.wrong_files:
        table = pd.DataFrame(list(done.wrong_files.items()), columns=["file", "problem"])
        found["wrong_files"] = markdown_table(table)
    return found


def check_rows(days: Mapping[date, Compaction]) -> dg.AssetCheckResult:
    """Some wrong rows are a warning; an unreadable file, or many of them, stop what comes next."""
    severe = any(done.wrong_files or rejected_share(done) > MAX_REJECTED_SHARE for done in days.values())
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=not any(done.rows_rejected or done.wrong_files for done in days.values()),
        severity=dg.AssetCheckSeverity.ERROR if severe else dg.AssetCheckSeverity.WARN,
        description="\n".join(f"{day}: {told(done)}" for day, done in days.items()),
        metadata={
            "largest_rejected_share": max(map(rejected_share, days.values()), default=0.0),
            "wrong_files": sum(len(done.wrong_files) for done in days.values()),
        },
    )


def rejected_share(done: Compaction) -> float:
    """Share of the rows that were read."""
    return done.rows_rejected / max(done.rows_read, 1)


def told(done: Compaction) -> str:
    """What became of the rows of a day, in words."""
    parts = [f"{done.rows:,} rows of {done.files:,} files, {done.duplicates:,} duplicates"]
    parts += [f"{rows:,} rejected: {reason}" for reason, rows in done.rejected.items()]
    parts += [f"{name} {problem}" for name, problem in done.wrong_files.items()]
    return "; ".join(parts)
