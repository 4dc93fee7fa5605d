"""The IO manager: transient storage trouble is retried, everything else fails at once and is described."""

from pathlib import Path

import dagster as dg
import pytest

from housing_assets.assets.raw_housing import raw_housing
from housing_assets.deployments import build_resources
from housing_assets.io_managers import HousingIOManager, keep_replaced, kept_name
from housing_assets.mlflow_runs import mlflow_client
from housing_assets.resources import SourceResource, StorageResource
from housing_assets.settings import Settings
from housing_assets.sources import packaged_source
from housing_assets.storage import (
    LocalStore,
    ObjectStore,
    StorageError,
    StorageUnavailable,
    StorageWriteFailed,
    StoredObject,
)
from housing_assets_tests.command_line import SNAPSHOT
from housing_assets_tests.tiny_graph import first, second

FAILURES: list[StorageError] = []


class FlakyStore(LocalStore):
    """A real folder whose next writes fail as listed in `FAILURES`."""

    def write(
        self, name: str, data: bytes, *, if_absent: bool = False, if_generation: int | None = None
    ) -> StoredObject:
        if FAILURES and name.startswith("tiny/"):
            raise FAILURES.pop(0)
        return super().write(name, data, if_absent=if_absent, if_generation=if_generation)


class FlakyStorage(StorageResource):
    """The storage resource over a flaky store."""

    def store(self) -> ObjectStore:
        return FlakyStore(self.root)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    monkeypatch.setenv("HOUSING_HOME", str(tmp_path / "home"))
    return Settings(_env_file=None)  # type: ignore[call-arg]


def materialize(settings: Settings, *failures: StorageError) -> dg.ExecuteInProcessResult:
    FAILURES[:] = failures
    resources = build_resources(settings)
    storage = FlakyStorage(root=settings.storage_root, gcs=resources["storage"].gcs)
    return dg.materialize(
        [first, second],
        partition_key=SNAPSHOT,
        resources={**resources, "storage": storage, "io_manager": HousingIOManager(storage=storage)},
        raise_on_error=False,
    )


def statuses(settings: Settings) -> list[tuple[str, str]]:
    client = mlflow_client(settings.tracking_uri)
    experiment = client.get_experiment_by_name("housing-price")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    return [(run.info.run_name, run.info.status) for run in runs if "mlflow.parentRunId" in run.data.tags]


def test_unavailable_storage_is_retried_until_it_answers(settings: Settings) -> None:
    result = materialize(settings, StorageUnavailable("gs://b/x: no answer from http://127.0.0.1:9"))
    assert result.success
    assert [event.step_key for event in result.all_events if event.is_step_up_for_retry] == ["first"]
    assert statuses(settings) == [("first", "FAILED"), ("first", "FINISHED"), ("second", "FINISHED")]


def test_a_full_disk_fails_at_once_and_names_the_object(settings: Settings) -> None:
    result = materialize(settings, StorageWriteFailed("/data/first.parquet: no space left on device"))
    assert not result.success
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    [failure] = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.user_failure_data.description == (
        "StorageWriteFailed: /data/first.parquet: no space left on device"
    )
    assert statuses(settings) == [("first", "FAILED")]


def test_a_missing_upstream_object_is_named(settings: Settings) -> None:
    assert materialize(settings).success
    (Path(settings.storage_root) / "tiny" / SNAPSHOT / "first.parquet").unlink()
    resources = build_resources(settings)
    result = dg.materialize(
        [first, second],
        selection="key:second",
        partition_key=SNAPSHOT,
        resources=resources,
        raise_on_error=False,
    )
    assert not result.success
    [failure] = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert "first.parquet" in str(failure.user_failure_data.description)


def test_a_stored_value_is_described_on_its_asset(settings: Settings) -> None:
    result = materialize(settings)
    metadata = result.asset_materializations_for_node("second")[0].metadata
    assert metadata["dagster/uri"].value == f"{settings.storage_root}/tiny/{SNAPSHOT}/second.json"
    assert metadata["size_bytes"].value == len(b'{\n  "sum": 3.0\n}\n')
    assert len(str(metadata["sha256"].value)) == 64


RAW = f"data/01-raw/{SNAPSHOT}/housing.parquet"


def test_what_a_new_content_replaces_is_kept_by_its_checksum(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first = store.write(RAW, b"first")
    for content in (b"first", b"second", b"first", b"second"):
        keep_replaced(store, RAW, content)
        second = store.write(RAW, content)
    kept = [kept_name(RAW, stored.sha256) for stored in (first, second)]
    assert kept[0] == f"data/01-raw/{SNAPSHOT}/replaced/{first.sha256}.parquet"
    assert store.list() == sorted([RAW, *kept])
    assert [store.read(name) for name in (RAW, *kept)] == [b"second", b"first", b"second"]


def test_a_republished_snapshot_leaves_what_was_trained_on(settings: Settings, tmp_path: Path) -> None:
    published = tmp_path / f"{SNAPSHOT}.csv"
    lines = packaged_source().data.splitlines(keepends=True)
    store = LocalStore(settings.storage_root)
    resources = {
        **build_resources(settings),
        "source": SourceResource(location=f"{tmp_path}/{{snapshot}}.csv"),
    }
    digests = []
    for rows in (200, 300, 300):
        published.write_bytes(b"".join(lines[: rows + 1]))
        result = dg.materialize([raw_housing], partition_key=SNAPSHOT, resources=resources)
        [event] = result.asset_materializations_for_node("raw_housing")
        digests.append(str(event.metadata["sha256"].value))
    assert digests[0] != digests[1] == digests[2]
    assert store.list("data/") == [RAW, kept_name(RAW, digests[0])]
    store.read(kept_name(RAW, digests[0]), expected_sha256=digests[0])
