"""A backfill of several snapshots through the daemon, which is killed twice while it works."""

from collections import Counter
from typing import Any

from housing_assets_tests.running_stack import Stack, wait_for
from housing_assets_tests.stack.conftest import ASSETS, SNAPSHOTS, DisturbedBackfill
from housing_assets_tests.stack.released import OPEN


def test_the_backfill_ends_completed_with_every_partition_of_every_asset(
    stack: Stack, backfill: DisturbedBackfill
) -> None:
    found = stack.backfill(backfill.backfill_id)
    assert found["status"] == "COMPLETED_SUCCESS"
    counts = {
        status["assetKey"]["path"][0]: (
            status["numPartitionsTargeted"],
            status["numPartitionsMaterialized"],
            status["numPartitionsFailed"],
        )
        for status in found["assetBackfillData"]["assetBackfillStatuses"]
    }
    assert counts == dict.fromkeys(ASSETS, (len(SNAPSHOTS), len(SNAPSHOTS), 0))


def test_a_run_outlives_the_daemon_that_launched_it(stack: Stack, backfill: DisturbedBackfill) -> None:
    assert stack.runs()[backfill.survivor]["status"] == "SUCCESS"
    assert len(set(backfill.daemons)) == 3


def test_a_killed_run_fails_and_is_retried_within_the_backfill(
    stack: Stack, backfill: DisturbedBackfill
) -> None:
    runs = stack.runs()
    assert runs[backfill.victim]["status"] == "FAILURE"
    [again] = [run for run in runs.values() if run["parentRunId"] == backfill.victim]
    assert again["status"] == "SUCCESS"
    assert again["tags"]["dagster/backfill"] == backfill.backfill_id
    assert again["tags"]["dagster/partition"] == runs[backfill.victim]["tags"]["dagster/partition"]


def test_no_run_stays_open_and_none_is_lost(stack: Stack, backfill: DisturbedBackfill) -> None:
    runs = [
        run for run in stack.runs().values() if run["tags"].get("dagster/backfill") == backfill.backfill_id
    ]
    assert [run["status"] for run in runs if run["status"] in OPEN] == []
    good = Counter(run["tags"]["dagster/partition"] for run in runs if run["status"] == "SUCCESS")
    assert good == dict.fromkeys(SNAPSHOTS, 1)
    assert len(runs) == len(SNAPSHOTS) + 1


def test_every_snapshot_has_registered_a_version(stack: Stack, backfill: DisturbedBackfill) -> None:
    versions = stack.mlflow_client().search_model_versions("name='housing_price_model'")
    assert sorted(version.tags["snapshot"] for version in versions) == list(SNAPSHOTS)
    for version in versions:
        folder = stack.home / "storage" / "models" / "housing_price_model" / str(version.version)
        assert (folder / "bundle.json").is_file()


def test_every_run_has_one_parent_in_mlflow_with_its_outcome(
    stack: Stack, backfill: DisturbedBackfill
) -> None:
    expected = {
        run_id: "FINISHED" if run["status"] == "SUCCESS" else "FAILED"
        for run_id, run in stack.runs().items()
        # What is tracked is training; a deployment trains nothing.
        if run["tags"].get("housing/kind") != "deployment"
    }

    def closed() -> bool:
        return {run.info.status for run in mlflow_runs(stack)} == {"FINISHED", "FAILED"}

    wait_for("all MLflow runs are closed", closed, 60)
    parents = [run for run in mlflow_runs(stack) if "mlflow.parentRunId" not in run.data.tags]
    assert Counter(run.data.tags["dagster.run_id"] for run in parents) == dict.fromkeys(expected, 1)
    assert {run.data.tags["dagster.run_id"]: run.info.status for run in parents} == expected


def test_artifacts_are_on_the_storage_root(stack: Stack, backfill: DisturbedBackfill) -> None:
    stored = {path.name for path in (stack.home / "storage" / "mlflow").rglob("*") if path.is_file()}
    assert {"feature_importance.png", "residual_map.png", "best_params.yaml", "MLmodel"} <= stored


def mlflow_runs(stack: Stack) -> list[Any]:
    """All runs of the experiment."""
    client = stack.mlflow_client()
    experiment = client.get_experiment_by_name("housing-price")
    return list(client.search_runs([experiment.experiment_id], max_results=500))
