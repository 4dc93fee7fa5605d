"""A folder of files through the data assets: the graph of a file, with tables in parts."""

from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from benchmarks.block_groups import block_groups
from housing_assets.assets import featured_housing, processed_housing, raw_housing, train_test_sets
from housing_assets.datasets import steps
from housing_assets.datasets.dataset import Dataset, find_dataset
from housing_assets.deployments import build_resources
from housing_assets.ml.cleaning import content_hash, process
from housing_assets.partitions import SNAPSHOTS
from housing_assets.settings import Settings
from housing_assets.storage import open_store
from housing_assets_tests.command_line import SNAPSHOT

MODULES = (raw_housing, processed_housing, featured_housing, train_test_sets)


@dg.asset(partitions_def=SNAPSHOTS)
def rows_to_train_on(train_set: pd.DataFrame) -> dg.MaterializeResult[None]:
    """Asks for a frame, as everything that trains does."""
    return dg.MaterializeResult(metadata={"rows": len(train_set)})


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    monkeypatch.setenv("HOUSING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOUSING_SOURCE_URI", f"{tmp_path}/{{snapshot}}/")
    (tmp_path / SNAPSHOT).mkdir()
    for number in range(2):
        block_groups(500, number).to_parquet(tmp_path / SNAPSHOT / f"{number}.parquet", index=False)
    return Settings(_env_file=None)  # type: ignore[call-arg]


def materialize(settings: Settings) -> dg.ExecuteInProcessResult:
    definitions = [*dg.load_assets_from_modules(MODULES), *dg.load_asset_checks_from_modules(MODULES)]
    return dg.materialize(
        [*definitions, rows_to_train_on],
        partition_key=SNAPSHOT,
        resources=build_resources(settings),
        raise_on_error=False,
    )


def test_a_folder_of_files_goes_through_every_asset_and_check_in_parts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "PART_ROWS", 300)
    result = materialize(settings)
    assert result.success
    passed = {one.check_name: one.passed for one in result.get_asset_check_evaluations()}
    assert len(passed) == 6 and all(passed.values())
    processed = process(pd.concat([block_groups(500, number) for number in range(2)])).frame
    table = result.output_for_node("processed_housing")
    assert isinstance(table, Dataset)
    [event] = result.asset_materializations_for_node("processed_housing")
    assert event.metadata["dagster/row_count"].value == len(processed)
    assert event.metadata["content_hash"].value == content_hash(processed)
    [event] = result.asset_materializations_for_node("rows_to_train_on")
    assert event.metadata["rows"].value == len(result.output_for_node("train_test_sets", "train_set"))
    store = open_store(settings.storage_root)
    assert find_dataset(store, f"data/02-processed/{SNAPSHOT}/housing_processed.parquet") == table


def test_a_wrong_row_of_a_file_stops_the_graph(settings: Settings, tmp_path: Path) -> None:
    frame = block_groups(500, 1)
    frame.loc[7, "median_income"] = -1.0
    frame.to_parquet(tmp_path / SNAPSHOT / "1.parquet", index=False)
    result = materialize(settings)
    assert not result.success
    [check] = [one for one in result.get_asset_check_evaluations() if not one.passed]
    assert check.check_name == "raw_rows_are_valid"
    assert "row 508 (-1.0)" in str(check.description)


def test_a_folder_with_another_checksum_is_refused(settings: Settings) -> None:
    result = materialize(settings.model_copy(update={"source_sha256": "0" * 64}))
    assert not result.success
    [failure] = [
        event for event in result.all_events if event.is_step_failure and event.step_key == "raw_housing"
    ]
    assert "the sha256 of its files is" in str(failure.step_failure_data.error_display_string)
