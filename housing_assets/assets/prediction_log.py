"""`prediction_log`: what the service answered on one day, each instance once, in one table."""

from collections.abc import Iterator

import dagster as dg
import pandas as pd

from housing_assets.daily_asset import daily_asset, day_of, final_errors, link
from housing_assets.metadata import markdown_table
from housing_assets.monitoring.compaction import Compaction
from housing_assets.monitoring.prediction_rows import SCHEMA
from housing_assets.monitoring_objects import compact_day, rejected_name
from housing_assets.resources import StorageResource

CHECK = "served_rows_are_right"
# A caller may use a request id again; beyond this, the service itself writes what it should not.
MAX_REJECTED_SHARE = 0.05


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
    day, store = day_of(context), storage.store()
    with final_errors():
        done, stored = compact_day(store, day)
    rejected = {"rejected": link(store.uri(rejected_name("predictions", day)))} if done.rows_rejected else {}
    yield dg.MaterializeResult(
        metadata={
            "dagster/uri": stored.uri,
            "dagster/row_count": done.rows,
            "dagster/column_schema": dg.MetadataValue.table_schema(
                dg.TableSchema([dg.TableColumn(field.name, str(field.type)) for field in SCHEMA])
            ),
            "sha256": stored.sha256,
            "size_bytes": stored.size,
            **counts(done),
            **rejected,
        },
        data_version=dg.DataVersion(stored.sha256),
    )
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


def check_rows(done: Compaction) -> dg.AssetCheckResult:
    """Some wrong rows are a warning; an unreadable file, or many of them, stop what comes next."""
    share = done.rows_rejected / max(done.rows_read, 1)
    severe = bool(done.wrong_files) or share > MAX_REJECTED_SHARE
    told = [f"{done.rows:,} rows of {done.files:,} files, {done.duplicates:,} duplicates"]
    told += [f"{rows:,} rejected: {reason}" for reason, rows in done.rejected.items()]
    told += [f"{name} {problem}" for name, problem in done.wrong_files.items()]
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=not done.rows_rejected and not done.wrong_files,
        severity=dg.AssetCheckSeverity.ERROR if severe else dg.AssetCheckSeverity.WARN,
        description="; ".join(told),
        metadata={"rejected_share": share, "wrong_files": len(done.wrong_files)},
    )
