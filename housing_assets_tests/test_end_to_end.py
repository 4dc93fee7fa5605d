"""The whole graph on real data, through the command line: layout, registry, tracking, determinism, GCS."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests

from housing_assets.ml.promotion import Decision
from housing_assets.mlflow_runs import mlflow_client
from housing_assets.registration import load_bundle
from housing_assets.storage import ObjectStore, open_store
from housing_assets_tests.command_line import (
    HOUSING_CSV,
    SNAPSHOT,
    clean_environment,
    housing,
    train_small,
)
from housing_assets_tests.conftest import GcsServer, free_port
from housing_assets_tests.system_programs import require

MODEL = "housing_price_model"
LAYOUT = {
    f"artifacts/{SNAPSHOT}/imputer.skops",
    f"artifacts/{SNAPSHOT}/preprocessing_pipeline.skops",
    f"data/01-raw/{SNAPSHOT}/housing.parquet",
    f"data/02-processed/{SNAPSHOT}/housing_processed.parquet",
    f"data/03-features/{SNAPSHOT}/housing_features.parquet",
    f"data/04-split/{SNAPSHOT}/test/test.parquet",
    f"data/04-split/{SNAPSHOT}/train/train.parquet",
    f"models/05-selection/{SNAPSHOT}/model_selection.yaml",
    f"models/06-sweep/{SNAPSHOT}/best_params.yaml",
    f"models/{MODEL}/1/bundle.json",
    f"models/{MODEL}/1/explanation.npz",
    f"models/{MODEL}/1/imputer.onnx",
    f"models/{MODEL}/1/model.onnx",
    f"models/{MODEL}/1/promotion.json",
    f"models/{MODEL}/1/promotion.md",
    f"models/{MODEL}/1/spread.onnx",
}
STEPS = {
    "raw_housing",
    "processed_housing",
    "featured_housing",
    "test_set and train_set",
    "imputer",
    "preprocessing_pipeline",
    "model_selection",
    "sweep_result",
    "registered_model",
}
TEN_METRICS = (
    *("mae", "rmse", "r2", "mape", "smape", "wmape", "median_ape"),
    *("within_5pct", "within_10pct", "within_15pct"),
)
MODEL_PLOTS = (
    *("feature_importance", "predicted_vs_actual", "residual_map"),
    *("calibration_plot", "learning_curve_plot", "permutation_importance_plot", "protocols_plot"),
    "contributions_plot",
)
MODEL_TABLES = (
    *("protocols", "comparison", "published_figures", "calibration", "learning_curve"),
    *("permutation_importance", "error_by_ocean_proximity", "error_by_price_decile"),
    *("error_by_income_quintile", "error_by_region", "contributions"),
)


def objects(store: ObjectStore) -> set[str]:
    """Names of all stored values; tracking's own files have names of their own."""
    return {name for name in store.list() if name.split("/")[0] in {"data", "artifacts", "models"}}


def versions(tracking_uri: str) -> dict[int, Any]:
    client = mlflow_client(tracking_uri)
    return {int(one.version): one for one in client.search_model_versions(f"name = '{MODEL}'")}


def embedded(home: Path) -> str:
    return f"sqlite:///{home}/mlflow/mlflow.db"


def same_model(ours: ObjectStore, theirs: ObjectStore, version: int, other: int) -> None:
    """Two bundles are the same but for version, moment and commit."""
    first, second = load_bundle(ours, MODEL, version), load_bundle(theirs, MODEL, other)
    ignored = {"model_version", "created_at", "git_commit"}
    assert first.manifest.model_dump(exclude=ignored) == second.manifest.model_dump(exclude=ignored)


@pytest.fixture(scope="session")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home trained once with the small budget under strace, and every connection it attempted."""
    strace = require("strace")
    home = tmp_path_factory.mktemp("home")
    log = home / "strace.log"
    train_small(
        home, under=[strace, "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect,sendto", "-o", str(log)]
    )
    return home, log.read_text()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home trained twice on one snapshot with the small budget."""
    home = tmp_path_factory.mktemp("twice")
    train_small(home)
    train_small(home)
    return home


def test_every_value_lies_at_its_readable_name(trained: Path) -> None:
    again = {name.replace("/1/", "/2/") for name in LAYOUT if f"models/{MODEL}" in name}
    assert objects(open_store(str(trained / "storage"))) == LAYOUT | again


def test_two_runs_on_one_snapshot_give_the_same_model_and_data(trained: Path) -> None:
    store = open_store(str(trained / "storage"))
    same_model(store, store, 1, 2)
    hashes: dict[str, set[object]] = {}
    with dg.DagsterInstance.from_config(str(trained / "dagster")) as instance:
        assert len(instance.get_runs()) == 2
        for asset in ("raw_housing", "processed_housing", "featured_housing", "train_set", "test_set"):
            records = instance.fetch_materializations(dg.AssetKey(asset), limit=10).records
            hashes[asset] = {record.asset_materialization.tags["dagster/data_version"] for record in records}
            assert len(records) == 2
    assert {asset: len(found) for asset, found in hashes.items()} == dict.fromkeys(hashes, 1)


def test_versions_carry_scores_lineage_and_the_staging_alias(trained: Path) -> None:
    found = versions(embedded(trained))
    assert set(found) == {1, 2}
    client = mlflow_client(embedded(trained))
    assert int(client.get_model_version_by_alias(MODEL, "staging").version) == 2
    tags = found[1].tags
    assert {name: tags[name] for name in TEN_METRICS} == {name: found[2].tags[name] for name in TEN_METRICS}
    assert tags["registration_state"] == "complete"
    assert tags["algorithm"] == "DecisionTree"
    assert tags["snapshot"] == SNAPSHOT
    assert tags["bundle_uri"] == str(trained / "storage" / "models" / MODEL / "1" / "bundle.json")
    names = {"data_hash", "test_set_id", "git_commit", "sweep_id", "cv_wmape", "spatial_cv_wmape"}
    assert names <= tags.keys()
    assert "## DecisionTree" in found[1].description


def test_the_decision_on_promotion_is_told_by_asset_registry_mlflow_run_and_wandb(trained: Path) -> None:
    found = versions(embedded(trained))[2]
    reason = found.tags["promotion_reason"]
    stored = Decision.from_json(Path(found.tags["promotion_report_uri"]).read_text())
    assert (stored.candidate_version, stored.reason, stored.verdict) == (2, reason, found.tags["promotion"])
    assert stored.test_rows == 4136
    assert found.tags["promotion_champion"] == "none"
    with dg.DagsterInstance.from_config(str(trained / "dagster")) as instance:
        [record] = instance.fetch_materializations(dg.AssetKey("registered_model"), limit=1).records
    metadata = record.asset_materialization.metadata
    names = ("promotion", "promotion_reason", "promotion_champion", "promotion_report_uri")
    assert {name: metadata[name].value for name in names} == {name: found.tags[name] for name in names}
    assert metadata["promotion_report"].value == stored.to_markdown()
    assert "promotion_checks" not in metadata
    client = mlflow_client(embedded(trained))
    assert client.get_run(found.run_id).data.params["promotion_reason"] == reason
    listed = {file.path for file in client.list_artifacts(found.run_id)}
    assert {"promotion.json", "promotion.md"} <= listed
    content = b"".join(path.read_bytes() for path in (trained / "wandb" / "wandb").rglob("*.wandb"))
    assert b"promotion_reason" in content
    assert reason.encode() in content


def test_mlflow_has_one_finished_parent_per_run_with_a_child_per_step(trained: Path) -> None:
    client = mlflow_client(embedded(trained))
    experiment = client.get_experiment_by_name("housing-price")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    for parent in parents:
        children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert {child.info.run_name for child in children} == STEPS
    final = next(run for run in runs if run.info.run_name == "registered_model")
    assert set(TEN_METRICS) <= final.data.metrics.keys()
    listed = {file.path for file in client.list_artifacts(final.info.run_id, "plots")}
    assert listed == {f"plots/{name}.png" for name in MODEL_PLOTS}


def test_the_logged_pipeline_loads_with_signature_and_example(trained: Path) -> None:
    code = (
        "import mlflow, pandas as pd\n"
        f"mlflow.set_tracking_uri({embedded(trained)!r})\n"
        f"info = mlflow.models.get_model_info('models:/{MODEL}@staging')\n"
        "example = info.signature.inputs.input_names()\n"
        f"model = mlflow.sklearn.load_model('models:/{MODEL}@staging')\n"
        "print(len(example), type(model).__name__, info.saved_input_example_info is not None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["9", "Pipeline", "True"], done.stderr


def test_assets_tell_their_rows_columns_and_plots(trained: Path) -> None:
    with dg.DagsterInstance.from_config(str(trained / "dagster")) as instance:

        def metadata(asset: str) -> Any:
            [record] = instance.fetch_materializations(dg.AssetKey(asset), limit=1).records
            return record.asset_materialization.metadata

        raw = metadata("raw_housing")
        assert raw["dagster/row_count"].value == 20640
        assert len(raw["dagster/column_schema"].value.columns) == 10
        for asset, plot in (
            ("processed_housing", "correlation_heatmap"),
            ("train_set", "train_test_distributions"),
            ("preprocessing_pipeline", "cluster_scan"),
            ("model_selection", "model_comparison_plot"),
            ("sweep_result", "sweep_history"),
            ("sweep_result", "parallel_coordinates"),
            *(("registered_model", plot) for plot in MODEL_PLOTS),
        ):
            assert metadata(asset)[plot].value.startswith("!["), (asset, plot)
            assert "data:image/png;base64,iVBOR" in metadata(asset)[plot].value, (asset, plot)
        model = metadata("registered_model")
        for figure in ("rmse", "shuffled_cv_rmse", "spatial_cv_rmse", "rmse_ratio_to_published_forest"):
            assert isinstance(model[figure].value, float), figure
        assert float(model["spatial_cv_rmse"].value) > float(model["shuffled_cv_rmse"].value)
        for table in MODEL_TABLES:
            assert model[table].value.startswith("| "), table


def test_wandb_has_an_offline_run_per_step(trained: Path) -> None:
    folders = list((trained / "wandb" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 * len(STEPS)
    content = b"".join(path.read_bytes() for folder in folders for path in folder.glob("*.wandb"))
    for job_type in (b"download_data", b"preprocessing", b"segregation", b"model_selection", b"sweep"):
        assert job_type in content
    assert b"WANDB_API_KEY" not in content


def test_nothing_outside_loopback_is_contacted(traced: tuple[Path, str]) -> None:
    _, log = traced
    addresses = re.findall(r"(?:inet_addr|inet_pton)\((?:AF_INET6, )?\"([^\"]+)\"", log)
    assert "connect(" in log, "nothing was traced"
    assert {one for one in addresses if not one.startswith("127.") and one != "::1"} == set()


def test_the_published_file_trains_too(tmp_path: Path) -> None:
    if not HOUSING_CSV.exists():
        pytest.skip(f"{HOUSING_CSV} is absent: it may not be committed")
    train_small(tmp_path, HOUSING_SOURCE_URI=str(HOUSING_CSV))
    assert objects(open_store(str(tmp_path / "storage"))) == LAYOUT
    assert float(versions(embedded(tmp_path))[1].tags["r2"]) > 0.6


@pytest.fixture
def mlflow_server(tmp_path: Path, gcs_server: GcsServer, gcs_bucket: str) -> Iterator[str]:
    """A real tracking server: SQLite behind it, artifacts in the bucket."""
    port = free_port()
    command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command += ["--artifacts-destination", f"gs://{gcs_bucket}/mlflow"]
    values = {
        "STORAGE_EMULATOR_HOST": gcs_server.endpoint,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (tmp_path / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            env=clean_environment(tmp_path, **values),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/health", process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(url: str, process: "subprocess.Popen[bytes]", seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            if requests.get(url, timeout=2).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError(f"{url} did not answer")


def test_gcp_gives_the_same_layout_data_and_model_as_local(
    trained: Path, tmp_path: Path, mlflow_server: str, gcs_server: GcsServer, gcs_bucket: str
) -> None:
    train_small(
        tmp_path,
        HOUSING_DEPLOYMENT="gcp",
        GCP_PROJECT_ID="acme-ml",
        GCS_BUCKET_NAME=gcs_bucket,
        MLFLOW_TRACKING_URI=mlflow_server,
        STORAGE_EMULATOR_HOST=gcs_server.endpoint,
    )
    local, cloud = open_store(str(trained / "storage")), open_store(f"gs://{gcs_bucket}")
    assert objects(cloud) == LAYOUT
    for name in LAYOUT:
        # skops writes object ids into its files, a bundle names its moment, a report measured latencies.
        if not name.endswith((".skops", "bundle.json", "promotion.json", "promotion.md")):
            assert cloud.read(name) == local.read(name), name
    same_model(local, cloud, 1, 1)
    here, there = versions(embedded(trained))[1].tags, versions(mlflow_server)[1].tags
    scores = [f"{prefix}{name}" for prefix in ("", "cv_", "spatial_cv_") for name in TEN_METRICS]
    compared = {*scores, "data_hash", "test_set_id", "sweep_id"}
    assert {name: there[name] for name in compared} == {name: here[name] for name in compared}
    assert there["bundle_uri"] == f"gs://{gcs_bucket}/models/{MODEL}/1/bundle.json"
    assert [name for name in cloud.list("dagster/") if name.endswith((".out", ".err"))], "no compute logs"
    assert [name for name in cloud.list("mlflow/") if name.endswith("residual_map.png")]


def test_the_demo_ends_with_a_price_from_the_version_it_registered(tmp_path: Path) -> None:
    port = free_port()
    done = housing("demo", home=tmp_path, PORT=str(port))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Version 1: LightGBM" in done.stdout
    price = re.search(r"Berkeley hills: \$([\d,]+) \(90% interval \$([\d,]+) to \$([\d,]+)", done.stdout)
    assert price, done.stdout
    value, lower, upper = (int(group.replace(",", "")) for group in price.groups())
    assert lower < value < upper
    assert 350_000 < value < 500_000
    assert "10 assets in" in done.stdout
    assert not [line for line in done.stderr.splitlines() if "Warning" in line]
    summary = json.loads(open_store(str(tmp_path / "storage")).read(f"models/{MODEL}/1/bundle.json"))
    assert summary["metrics"]["r2"] > 0.85
    shutil.rmtree(tmp_path / "storage" / "mlflow")
