"""What the daily assets share: partitions, owners, retries; for monitoring thresholds and links to pages."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import date
from typing import Any, TypeVar

import dagster as dg
import pandas as pd
from pydantic import Field

from housing_assets.metadata import markdown_table
from housing_assets.monitoring.findings import Kind, Report, report_name
from housing_assets.monitoring_objects import html_name
from housing_assets.partitions import DAYS
from housing_assets.snapshot_asset import CODE_VERSION, OWNERS, TRANSIENT_RETRIES
from housing_assets.storage import ObjectStore, StorageUnavailable

Rules = TypeVar("Rules")
# Of a backfill: starting a run takes longer than a day's work, and one that fails costs the others a retry.
DAYS_OF_A_RUN = 10


class ThresholdsConfig(dg.Config):
    """Other thresholds for a run."""

    thresholds: dict[str, float] = Field(
        default={}, description="Thresholds of this run by name, in place of the usual ones."
    )


def thresholds(config: ThresholdsConfig, rules: Rules) -> Rules:
    """The rules with the thresholds of a run.

    Raises:
        dagster.Failure: there is no threshold of such a name.
    """
    known = [field.name for field in fields(rules)]  # type: ignore[arg-type]
    if unknown := sorted(set(config.thresholds) - set(known)):
        problem = f"no threshold {', '.join(unknown)}; there are {', '.join(known)}"
        raise dg.Failure(problem, allow_retries=False)
    return replace(rules, **config.thresholds)  # type: ignore[type-var]


def daily_asset(
    *,
    kinds: set[str],
    group: str = "monitoring",
    **options: Any,  # noqa: ANN401  (passed on to dg.asset)
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """An asset of one UTC day, which stores its result itself; a backfill gives a run several days."""
    decorate: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
        partitions_def=DAYS,
        group_name=group,
        kinds=kinds,
        owners=OWNERS,
        code_version=CODE_VERSION,
        retry_policy=TRANSIENT_RETRIES,
        backfill_policy=dg.BackfillPolicy.multi_run(DAYS_OF_A_RUN),
        **options,
    )
    return decorate


def for_each_day(context: dg.AssetExecutionContext, look: Callable[[date], Mapping[str, Any]]) -> None:
    """Do what an asset does for each day of the run, and describe that day's partition by what it returns.

    Raises:
        StorageUnavailable: transient, so the step is retried.
        dagster.Failure: for every other error, with the day and the error's message.
    """
    for key in context.partition_keys:
        try:
            metadata = look(date.fromisoformat(key))
        except StorageUnavailable:
            raise
        except Exception as error:
            problem = f"{key}: {type(error).__name__}: {error}"
            raise dg.Failure(problem, allow_retries=False) from error
        context.add_asset_metadata(metadata, partition_key=key)


def report_links(store: ObjectStore, kind: Kind, day: date) -> Mapping[str, dg.MetadataValue]:
    """Where the findings and their page are."""
    return {
        "report": link(store.uri(html_name(kind, day))),
        "dagster/uri": dg.MetadataValue.text(store.uri(report_name(kind, day))),
    }


def link(uri: str) -> dg.MetadataValue:
    """Where an object can be looked at: a page of the bucket, or a path, which browsers do not follow."""
    if uri.startswith("gs://"):
        return dg.MetadataValue.url(f"https://storage.cloud.google.com/{uri.removeprefix('gs://')}")
    return dg.MetadataValue.path(uri)


def findings_metadata(report: Report) -> Mapping[str, dg.MetadataValue]:
    """The findings as a table, and their numbers, which chart over days."""
    columns = ["severity", "cause", "value", "threshold", "text", "action"]
    rows = [[getattr(finding, name) for name in columns] for finding in report.findings]
    critical = sum(finding.severity == "critical" for finding in report.findings)
    return {
        "findings": markdown_table(pd.DataFrame(rows, columns=columns)),
        "findings_count": dg.MetadataValue.int(len(report.findings)),
        "critical_findings": dg.MetadataValue.int(critical),
    }
