"""`batch_predictions`: prices of the tables that were put into one day's folder."""

from datetime import date
from functools import cache
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from housing_assets.batch_objects import (
    PricedDay,
    inputs_folder,
    predictions_folder,
    price_day,
    rejected_rows_name,
)
from housing_assets.daily_asset import daily_asset, for_each_day, link
from housing_assets.deployment.release_record import ReleaseStore
from housing_assets.deployment.resource import DeploymentResource
from housing_assets.metadata import markdown_table
from housing_assets.registration import load_bundle, stored_bundles
from housing_assets.registry import RegistryResource
from housing_assets.resources import StorageResource
from housing_assets.storage import ObjectMissing, ObjectStore
from housing_serving.bundle import Bundle


class BatchConfig(dg.Config):
    """Which model prices the rows."""

    model_version: int | None = Field(
        default=None, ge=1, description="Version of the model; left out, the one that serves."
    )


@daily_asset(group="batch", kinds={"parquet"})
def batch_predictions(
    context: dg.AssetExecutionContext,
    config: BatchConfig,
    storage: StorageResource,
    registry: RegistryResource,
    deployment: DeploymentResource,
) -> None:
    """Prices of the tables under `batch/inputs/<day>/`: one row is one row of an input, with its interval.

    Each CSV, Parquet or JSON-lines file gives one Parquet file. Rows that cannot be priced are kept apart,
    with the reason. Made again, it gives the same; with another version, the prices of that one.
    """
    store, name = storage.store(), registry.model_name

    @cache
    def model() -> Bundle:
        version = config.model_version or served_version(store, name, deployment)
        return load_bundle(store, name, version)

    def priced(day: date) -> dict[str, Any]:
        done = price_day(store, day, model())
        return {"model_version": str(model().manifest.model_version), **described(store, day, done)}

    for_each_day(context, priced)


def served_version(store: ObjectStore, model_name: str, deployment: DeploymentResource) -> int:
    """The version that serves or, before the first release, the newest one.

    Raises:
        ObjectMissing: there is no version yet.
    """
    if deployment.cloud_run:
        stable = deployment.target().status().stable
    else:
        record = ReleaseStore(store).read().record
        stable = record.stable_version if record else None
    version = stable or max(stored_bundles(store, model_name), default=None)
    if version is None:
        raise ObjectMissing(f"no model version in {store.root}: materialize registered_model first")
    return version


def described(store: ObjectStore, day: date, done: PricedDay) -> dict[str, Any]:
    """What the asset's page shows of a day."""
    found: dict[str, Any] = {
        "dagster/uri": store.uri(predictions_folder(day)),
        "dagster/row_count": done.priced,
        "inputs": link(store.uri(inputs_folder(day))),
        "files": len(done.files),
        "rows_read": done.rows,
        "rows_rejected": done.rejected,
        "rows_unlike_training": done.unusual,
        "rows_per_second": done.rows / max(done.seconds, 1e-9),
    }
    if done.rejected:
        rows = [(file, *problem) for file, one in done.files.items() for problem in one.problems]
        found["rejected"] = link(store.uri(rejected_rows_name(day)))
        found["first_rejected"] = markdown_table(pd.DataFrame(rows, columns=["file", "row", "error"]))
    return found
