"""The code location: what is in it, how it hangs together, and that deployments differ by values alone."""

import re
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
import yaml

from housing_assets.columns import DESCRIPTIONS
from housing_assets.definitions import build_definitions
from housing_assets.deployments import build_executor, build_resources
from housing_assets.freshness import POLICIES
from housing_assets.instance import instance_config
from housing_assets.metadata import table_metadata
from housing_assets.ml.cleaning import ID_COLUMN
from housing_assets.partitions import DAYS, SNAPSHOTS, latest_snapshot
from housing_assets.schedules import weekly_training
from housing_assets.settings import Deployment, Executor, Settings
from housing_serving.features import RAW_FEATURES, ROW_FEATURES, TARGET

LOCAL = Settings(_env_file=None)  # type: ignore[call-arg]
GCP = LOCAL.model_copy(
    update={
        "deployment": Deployment.GCP,
        "gcp_project_id": "acme-ml",
        "gcs_bucket_name": "acme-housing",
        "mlflow_tracking_uri": "http://127.0.0.1:5000",
    }
)
UPSTREAM = {
    "raw_housing": set(),
    "processed_housing": {"raw_housing"},
    "featured_housing": {"processed_housing"},
    "train_set": {"featured_housing"},
    "test_set": {"featured_housing"},
    "imputer": {"train_set"},
    "preprocessing_pipeline": {"train_set", "imputer"},
    "model_selection": {"train_set"},
    "sweep_result": {"train_set", "model_selection"},
    "registered_model": {"train_set", "test_set", "preprocessing_pipeline", "sweep_result"},
    "api_deployment": {"registered_model"},
    "prediction_log": set(),
    "drift_report": {"prediction_log"},
    "performance_report": {"prediction_log", "drift_report"},
    "batch_predictions": set(),
}
BLOCKING_CHECKS = {
    ("raw_housing", "raw_rows_are_valid"),
    ("processed_housing", "processed_rows_are_valid"),
    ("featured_housing", "featured_rows_are_valid"),
    ("train_set", "train_rows_are_valid"),
    ("train_set", "sets_are_disjoint_and_in_proportion"),
    ("test_set", "test_set_does_not_leak"),
    ("imputer", "imputed_column_has_no_nulls"),
    ("preprocessing_pipeline", "feature_matrix_is_finite"),
    ("model_selection", "winner_beats_the_mean"),
    ("sweep_result", "best_params_are_complete"),
    ("registered_model", "bundle_matches_the_pipeline"),
    ("registered_model", "metrics_clear_the_floor"),
    ("registered_model", "model_behaves_sensibly"),
    ("api_deployment", "service_answers_as_its_bundle"),
    ("prediction_log", "served_rows_are_right"),
}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions(LOCAL)


def assets_of(definitions: dg.Definitions) -> list[dg.AssetsDefinition]:
    return [one for one in definitions.assets or [] if isinstance(one, dg.AssetsDefinition)]


def test_the_code_location_loads(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_the_graph_has_exactly_the_designed_edges(definitions: dg.Definitions) -> None:
    found = {
        key.to_user_string(): {up.to_user_string() for up in upstream}
        for definition in assets_of(definitions)
        for key, upstream in definition.asset_deps.items()
    }
    assert found == UPSTREAM


def test_only_the_registered_model_reads_the_test_set(definitions: dg.Definitions) -> None:
    readers = [
        key.to_user_string()
        for definition in assets_of(definitions)
        for key, upstream in definition.asset_deps.items()
        if dg.AssetKey("test_set") in upstream
    ]
    assert readers == ["registered_model"]


def test_every_asset_is_grouped_owned_and_described(definitions: dg.Definitions) -> None:
    for definition in assets_of(definitions):
        for spec in definition.specs:
            # There is one service, whatever snapshot its model is from; what it served goes by days.
            partitions = {"serving": None, "monitoring": DAYS, "batch": DAYS}.get(
                str(spec.group_name), SNAPSHOTS
            )
            assert spec.partitions_def == partitions, spec.key
            groups = {"data", "preprocessing", "training", "serving", "monitoring", "batch"}
            assert spec.group_name in groups, spec.key
            assert spec.owners == ["team:ml-platform"], spec.key
            assert spec.code_version, spec.key
            assert spec.kinds, spec.key
            assert spec.description and len(spec.description) > 40, spec.key


def test_everything_that_people_see_explains_itself(definitions: dg.Definitions) -> None:
    specs = [spec for one in assets_of(definitions) for spec in one.specs]
    checks = [spec for one in assets_of(definitions) for spec in one.check_specs]
    checks += [spec for one in definitions.asset_checks or [] for spec in one.check_specs]
    named = {spec.key.to_user_string(): spec.description for spec in specs}
    named |= {f"check {spec.name}": spec.description for spec in checks}
    for kind, found in (
        ("job", definitions.jobs),
        ("schedule", definitions.schedules),
        ("sensor", definitions.sensors),
    ):
        named |= {f"{kind} {one.name}": one.description for one in found or []}
    known = {"raw_housing", "check raw_rows_are_valid", "job training_job", "schedule weekly_training"}
    assert {*known, "sensor raise_alerts"} <= named.keys()
    # A sentence, not a name: it begins with a capital, has some words, and ends.
    sentence = re.compile(r"[A-Z].{25,}[.]$", re.DOTALL)
    assert {name: text for name, text in named.items() if not sentence.match(text or "")} == {}


def test_every_setting_of_a_run_is_described(definitions: dg.Definitions) -> None:
    undescribed = [
        f"{one.op.name}.{name}"
        for one in assets_of(definitions)
        for name, field in getattr(one.op.config_schema.config_type, "fields", {}).items()
        if not field.description
    ]
    assert undescribed == []


def test_every_column_of_the_stored_tables_is_described() -> None:
    columns = {*RAW_FEATURES, TARGET, ID_COLUMN, *ROW_FEATURES}
    assert columns == DESCRIPTIONS.keys()
    schema = table_metadata(pd.DataFrame({name: [1.0] for name in columns}))["dagster/column_schema"].value
    assert {one.name: one.description for one in schema.columns} == dict(DESCRIPTIONS)


def test_every_asset_that_is_made_by_the_clock_has_a_freshness_policy(definitions: dg.Definitions) -> None:
    policies = {
        spec.key.to_user_string(): spec.freshness_policy
        for definition in assets_of(definitions)
        for spec in definition.specs
    }
    assert policies.pop("api_deployment") is None
    assert policies.pop("batch_predictions") is None
    assert {name: policy for name, policy in policies.items() if policy not in POLICIES.values()} == {}
    assert policies["registered_model"] == POLICIES["training"]


def test_the_daemon_judges_freshness(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(instance_config(LOCAL)))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert "FRESHNESS_DAEMON" in instance.get_required_daemon_types()


def test_every_check_blocks(definitions: dg.Definitions) -> None:
    specs = [spec for definition in assets_of(definitions) for spec in definition.check_specs]
    specs += [spec for check in definitions.asset_checks or [] for spec in check.check_specs]
    assert {(spec.asset_key.to_user_string(), spec.name) for spec in specs} == BLOCKING_CHECKS
    assert all(spec.blocking for spec in specs)


def test_deployments_have_the_same_keys_and_distinct_storage() -> None:
    local, gcp = build_resources(LOCAL), build_resources(GCP)
    assert local.keys() == gcp.keys()
    assert {name: type(resource) for name, resource in local.items()} == {
        name: type(resource) for name, resource in gcp.items()
    }
    assert gcp["storage"].root == "gs://acme-housing"
    assert local["storage"].root.endswith("/.housing/storage")
    assert instance_config(LOCAL).keys() == instance_config(GCP).keys()


def test_gcp_sends_compute_logs_to_the_bucket() -> None:
    logs = instance_config(GCP)["compute_logs"]
    assert logs["class"] == "GCSComputeLogManager"
    assert logs["config"]["bucket"] == "acme-housing"


def test_the_executor_is_a_value() -> None:
    assert build_executor(LOCAL).name == "in_process"
    assert build_executor(LOCAL.model_copy(update={"executor": Executor.MULTIPROCESS})).name == "multiprocess"


def test_the_schedule_trains_on_the_snapshot_of_its_sunday() -> None:
    context = dg.build_schedule_context(scheduled_execution_time=datetime(2026, 11, 22, 2, tzinfo=UTC))
    request = weekly_training(context)
    assert isinstance(request, dg.RunRequest)
    assert (request.partition_key, request.run_key) == ("2026-11-22", "2026-11-22")
    assert weekly_training.cron_schedule == "0 2 * * 0"


def test_the_schedule_says_why_it_skips() -> None:
    context = dg.build_schedule_context(scheduled_execution_time=datetime(2024, 1, 7, 2, tzinfo=UTC))
    skipped = weekly_training(context)
    assert isinstance(skipped, dg.SkipReason)
    assert "2024-01-07 is no snapshot" in str(skipped.skip_message)


def test_the_running_week_has_its_snapshot() -> None:
    newest = datetime.fromisoformat(latest_snapshot()).replace(tzinfo=UTC)
    assert newest.strftime("%A") == "Sunday"
    assert 0 <= (datetime.now(UTC) - newest).days < 7
