"""Bad input meets the graph: the run fails with an error that says what is wrong, and stores nothing torn."""

import csv
from pathlib import Path

import dagster as dg
import pytest

from housing_assets import assets
from housing_assets.deployments import build_resources
from housing_assets.mlflow_runs import mlflow_client
from housing_assets.settings import Deployment, Settings
from housing_assets.sources import PACKAGED_LOCATION, packaged_source
from housing_assets.storage import open_store
from housing_assets_tests.command_line import SNAPSHOT

ROWS = 60
Row = dict[str, str]
DATA_ASSETS = "key:raw_housing or key:processed_housing or key:featured_housing"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    monkeypatch.setenv("HOUSING_HOME", str(tmp_path / "home"))
    return Settings(_env_file=None)  # type: ignore[call-arg]


@pytest.fixture(scope="module")
def good_rows() -> list[Row]:
    lines = packaged_source().data.decode().splitlines()[: ROWS + 1]
    return list(csv.DictReader(lines))


def write(path: Path, rows: list[Row]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def changed(rows: list[Row], position: int, **values: str) -> list[Row]:
    return [{**row, **values} if index == position else row for index, row in enumerate(rows)]


def materialize(
    settings: Settings, source: str, select: str = DATA_ASSETS
) -> tuple[dg.ExecuteInProcessResult, str]:
    """Materialize the first assets in this process; returns the result and what failed, in words."""
    loaded = [
        *dg.load_assets_from_package_module(assets),
        *dg.load_asset_checks_from_package_module(assets),
    ]
    result = dg.materialize(
        loaded,
        selection=select,
        partition_key=SNAPSHOT,
        resources=build_resources(settings),
        run_config={"ops": {"raw_housing": {"config": {"location": source}}}},
        raise_on_error=False,
    )
    told = []
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            told.append(data.user_failure_data.description if data.user_failure_data else data.error.message)
    told += [check.description or "" for check in result.get_asset_check_evaluations() if not check.passed]
    return result, "\n".join(str(one) for one in told)


def stored(settings: Settings) -> set[str]:
    return {name.split("/")[1] for name in open_store(settings.storage_root).list("data/")}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"total_rooms": "-5"}, ["total_rooms", "row 8", "-5"]),
        ({"longitude": "-70.5"}, ["longitude", "row 8", "-70.5"]),
        ({"ocean_proximity": "ON THE MOON"}, ["ocean_proximity", "row 8", "ON THE MOON"]),
        ({"median_income": ""}, ["median_income", "row 8"]),
    ],
)
def test_impossible_rows_stop_the_graph_and_are_named(
    settings: Settings, tmp_path: Path, good_rows: list[Row], values: Row, expected: list[str]
) -> None:
    source = write(tmp_path / "rows.csv", changed(good_rows, 7, **values))
    result, told = materialize(settings, source)
    assert not result.success
    for part in expected:
        assert part in told
    # What was published is kept for inspection; nothing is derived from it.
    assert stored(settings) == {"01-raw"}


def test_text_in_a_number_names_column_row_and_value(
    settings: Settings, tmp_path: Path, good_rows: list[Row]
) -> None:
    source = write(tmp_path / "rows.csv", changed(good_rows, 7, households="many"))
    result, told = materialize(settings, source)
    assert not result.success
    assert "households" in told
    assert "many" in told
    assert "row 8" in told
    assert stored(settings) == set()


def test_a_missing_source_is_named_and_marked_failed_in_mlflow(settings: Settings, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.csv")
    result, told = materialize(settings, absent)
    assert not result.success
    assert absent in told
    client = mlflow_client(settings.tracking_uri)
    experiment = client.get_experiment_by_name("housing-price")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FAILED"}
    assert len(runs) == 2


def test_contradicting_rows_are_refused_by_number(
    settings: Settings, tmp_path: Path, good_rows: list[Row]
) -> None:
    contradiction = {**good_rows[3], "median_house_value": "123456"}
    result, told = materialize(settings, write(tmp_path / "rows.csv", [*good_rows, contradiction]))
    assert not result.success
    assert f"rows 4, {ROWS + 1}" in told
    assert stored(settings) == {"01-raw"}


def test_duplicates_byte_order_mark_and_reordered_columns_are_accepted(
    settings: Settings, tmp_path: Path, good_rows: list[Row]
) -> None:
    mixed = [dict(reversed(row.items())) for row in [*good_rows, good_rows[0], good_rows[5]]]
    path = Path(write(tmp_path / "rows.csv", mixed))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    result, told = materialize(settings, str(path))
    assert result.success, told
    processed = result.asset_materializations_for_node("processed_housing")[0].metadata
    assert processed["rows_dropped"].value == 2
    assert processed["dagster/row_count"].value == ROWS


def test_a_snapshot_in_the_location_is_filled_in(
    settings: Settings, tmp_path: Path, good_rows: list[Row]
) -> None:
    write(tmp_path / f"{SNAPSHOT}.csv", good_rows)
    result, told = materialize(settings, str(tmp_path / "{snapshot}.csv"), "key:raw_housing")
    assert result.success, told


def test_a_dead_tracking_server_fails_the_first_step_with_its_address(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    dead = settings.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:9"})
    result, told = materialize(dead, PACKAGED_LOCATION, "key:raw_housing")
    assert not result.success
    assert "MLflow at http://127.0.0.1:9 does not answer" in told
    assert stored(dead) == set()


def test_a_missing_bucket_is_named_with_its_setting(settings: Settings, gcs_bucket: str) -> None:
    absent = settings.model_copy(
        update={"deployment": Deployment.GCP, "gcs_bucket_name": f"{gcs_bucket}-absent"}
    )
    result, told = materialize(absent, PACKAGED_LOCATION, "key:raw_housing")
    assert not result.success
    assert f"{gcs_bucket}-absent does not exist" in told
    assert "GCS_BUCKET_NAME" in told
