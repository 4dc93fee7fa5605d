"""`batch_predictions` on a folder and a bucket: priced, described, repeatable, and no row lost."""

import io
import json
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from housing_assets.assets.batch_predictions import batch_predictions
from housing_assets.deployments import build_resources
from housing_assets.settings import Deployment, DeploymentTargetName, Settings
from housing_assets.storage import ObjectStore, open_store
from housing_assets_tests.batch.tables import (
    GOOD,
    RICH,
    as_file,
    bundle,
    csv_bytes,
    csv_row,
    expected,
    random_frame,
)
from housing_assets_tests.deployment.cloud_run_server import cloud_run_server
from housing_assets_tests.serving.bundles import bundle_files
from housing_serving.releases import RELEASE_RECORD, ReleaseRecord

DAY = date(2026, 3, 2)


class Batches:
    """A storage root with two model versions, and the asset on it."""

    def __init__(self, settings: Settings) -> None:
        self.resources = build_resources(settings)
        self.store: ObjectStore = open_store(settings.storage_root)

    def put(self, name: str, data: bytes, day: date = DAY) -> None:
        self.store.write(f"batch/inputs/{day}/{name}", data)

    def run(self, first: date = DAY, last: date | None = None, **config: object) -> dg.ExecuteInProcessResult:
        tags = {
            "dagster/asset_partition_range_start": str(first),
            "dagster/asset_partition_range_end": str(last or first),
        }
        return dg.materialize(
            [batch_predictions],
            tags=tags,
            resources=self.resources,
            instance=dg.DagsterInstance.ephemeral(),
            raise_on_error=False,
            run_config={"ops": {"batch_predictions": {"config": config}}},
        )

    def prices(self, name: str, day: date = DAY) -> pd.DataFrame:
        return pd.read_parquet(io.BytesIO(self.store.read(f"batch/predictions/{day}/{name}.parquet")))

    def objects(self) -> dict[str, bytes]:
        return {name: self.store.read(name) for name in self.store.list("batch/") if "/inputs/" not in name}


def batches_at(home: Path, **changes: object) -> Batches:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    batches = Batches(settings.model_copy(update={"home": home, **changes}))
    for version in (1, 2):
        for name, content in bundle_files(version=version).items():
            batches.store.write(f"models/housing_price_model/{version}/{name}", content)
    batches.store.write(RELEASE_RECORD, ReleaseRecord(stable_version=1).to_json())
    return batches


@pytest.fixture
def batches(tmp_path: Path) -> Batches:
    return batches_at(tmp_path / "home")


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, object]]:
    """What is told of each partition."""
    assert result.success
    return {
        str(event.partition): {name: value.value for name, value in event.metadata.items()}
        for event in result.asset_materializations_for_node("batch_predictions")
    }


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    [event] = [event for event in result.all_events if event.is_step_failure]
    return str(event.step_failure_data.user_failure_data.description)


def check_a_day_of_three_files(batches: Batches) -> None:
    frame = random_frame(200)
    batches.put("a.csv", as_file(frame, "csv"))
    batches.put("b.jsonl", as_file(frame, "jsonl"))
    batches.put("more/c.csv", csv_bytes(GOOD, csv_row(total_rooms="many"), "1,2", GOOD))
    told = metadata_of(batches.run())[str(DAY)]
    assert (told["files"], told["rows_read"], told["dagster/row_count"]) == (3, 404, 402)
    assert (told["rows_rejected"], told["model_version"]) == (2, "1")
    assert float(str(told["rows_per_second"])) > 0
    assert "is no number" in str(told["first_rejected"])
    for name in ("a.csv", "b.jsonl"):
        prices = batches.prices(name)
        assert prices["name"].tolist() == frame["name"].tolist()
        np.testing.assert_array_equal(
            prices[["predicted_price", "lower", "upper"]].to_numpy().T, expected(frame, bundle())
        )
    assert batches.prices("more/c.csv")["predicted_price"].tolist() == [RICH, RICH]
    rejected = pd.read_parquet(io.BytesIO(batches.store.read(f"batch/rejected/{DAY}.parquet")))
    assert rejected["file"].tolist() == ["more/c.csv"] * 2
    assert rejected["row"].tolist() == [2, 3]
    assert rejected["error"].tolist() == [
        "total_rooms 'many' is no number",
        "it has 2 fields, the header has 9: '1,2'",
    ]
    assert json.loads(rejected["values"][0])["total_rooms"] == "many"


def test_a_day_of_three_files(batches: Batches) -> None:
    check_a_day_of_three_files(batches)


def test_the_same_on_a_bucket(gcs_bucket: str, tmp_path: Path) -> None:
    check_a_day_of_three_files(batches_at(tmp_path, deployment=Deployment.GCP, gcs_bucket_name=gcs_bucket))


def test_doing_it_again_changes_nothing_and_follows_the_inputs(batches: Batches) -> None:
    batches.put("a.csv", csv_bytes(GOOD))
    batches.put("b.csv", csv_bytes(csv_row(population="?"), GOOD))
    assert batches.run().success
    before = batches.objects()
    assert len(before) == 3
    assert batches.run().success
    assert batches.objects() == before
    batches.store.delete(f"batch/inputs/{DAY}/b.csv")
    assert batches.run().success
    assert list(batches.objects()) == [f"batch/predictions/{DAY}/a.csv.parquet"]


def test_a_backfill_prices_each_day_and_days_without_inputs_are_empty(batches: Batches) -> None:
    days = [DAY + timedelta(days=number) for number in range(3)]
    batches.put("a.csv", csv_bytes(*[GOOD] * 3), day=days[0])
    batches.put("a.csv", csv_bytes(*[GOOD] * 5), day=days[2])
    told = metadata_of(batches.run(days[0], days[2]))
    assert {day: one["dagster/row_count"] for day, one in told.items()} == {
        str(days[0]): 3,
        str(days[1]): 0,
        str(days[2]): 5,
    }


def test_the_version_is_the_released_one_unless_another_is_named(batches: Batches) -> None:
    batches.put("a.csv", csv_bytes(GOOD))
    metadata_of(batches.run(model_version=2))
    assert batches.prices("a.csv")["model_version"].tolist() == ["2"]
    metadata_of(batches.run())
    assert batches.prices("a.csv")["model_version"].tolist() == ["1"]
    batches.store.delete(RELEASE_RECORD)
    metadata_of(batches.run())
    assert batches.prices("a.csv")["model_version"].tolist() == ["2"]


def test_on_cloud_run_its_service_is_asked_and_no_release_record(gcs_bucket: str, tmp_path: Path) -> None:
    with cloud_run_server(lambda _: "unused") as cloud:
        batches = batches_at(
            tmp_path,
            deployment=Deployment.GCP,
            deployment_target=DeploymentTargetName.CLOUD_RUN,
            gcp_project_id="acme-ml",
            gcs_bucket_name=gcs_bucket,
            cloud_run_image="us-docker.pkg.dev/housing/api:1",
            cloud_run_api_endpoint=cloud.url,
        )
        batches.put("a.csv", csv_bytes(GOOD))
        metadata_of(batches.run())
    # Nothing serves there yet, whatever the record of a fleet says.
    assert batches.prices("a.csv")["model_version"].tolist() == ["2"]


def test_an_input_that_is_none_is_named(batches: Batches) -> None:
    batches.put("notes.txt", b"hello")
    assert "2026-03-02: BatchError" in failure_of(batches.run())
    assert "notes.txt: its format is not known by its name" in failure_of(batches.run())


def test_a_root_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    settings = Settings(_env_file=None).model_copy(update={"home": tmp_path})  # type: ignore[call-arg]
    assert "materialize registered_model first" in failure_of(Batches(settings).run())
