"""The release workflow's steps, end to end: a stand-in for Google Cloud, the real service as container."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from housing_assets.deployment.cloud_monitoring import REQUESTS
from housing_assets.mlflow_runs import mlflow_client
from housing_assets.storage import open_store
from housing_assets_tests.command_line import clean_environment
from housing_assets_tests.conftest import GcsServer
from housing_assets_tests.deployment.cloud_run_server import (
    PROJECT,
    REGION,
    SERVICE,
    CloudRun,
    Fault,
    cloud_run_server,
)
from housing_assets_tests.deployment.test_cloud_run import MODEL, Containers, new_target, release
from housing_assets_tests.shipping.workflow_steps import Step, run_job
from housing_serving.bundle import sha256_hex

SHA = "0123456789abcdef0123456789abcdef01234567"
IMAGE = f"{REGION}-docker.pkg.dev/{PROJECT}/housing/serving:{SHA}"


@pytest.fixture(scope="module")
def containers(gcs_server: GcsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    started = Containers(gcs_server, tmp_path_factory.mktemp("containers"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", gcs_server.endpoint)
        for version in (1, 2):
            started.upload(version)
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture
def cloud(containers: Containers) -> Iterator[CloudRun]:
    """Version 1 serves, from an image of an earlier commit."""
    with cloud_run_server(containers.start) as running:
        release(new_target(running, bucket=containers.bucket, image=IMAGE.replace(SHA, "earlier")), 1)
        yield running


@pytest.fixture
def tracking_uri(containers: Containers, gcs_server: GcsServer, tmp_path: Path) -> str:
    """A registry where version 2 is in staging, having beaten version 1."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow_client(uri)
    client.create_registered_model(MODEL)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", gcs_server.endpoint)
        store = open_store(f"gs://{containers.bucket}")
        for version, champion in ((1, "none"), (2, "1")):
            manifest = store.read(f"models/{MODEL}/{version}/bundle.json")
            tags = {"registration_state": "complete", "promotion": "promote", "promotion_champion": champion}
            tags["bundle_sha256"] = sha256_hex(manifest)
            client.create_model_version(MODEL, source=str(tmp_path), tags=tags)
    client.set_registered_model_alias(MODEL, "staging", "2")
    return uri


@pytest.fixture
def run(
    cloud: CloudRun, containers: Containers, gcs_server: GcsServer, tracking_uri: str, tmp_path: Path
) -> Callable[..., dict[str, Step]]:
    """Runs the job that lets a release into production."""
    contexts = {
        "github.sha": SHA,
        "vars.CLOUD_RUN_INVOKERS": "serviceAccount:web@example.iam.gserviceaccount.com",
        "vars.CLOUD_RUN_SERVICE_ACCOUNT": "serving@example.iam.gserviceaccount.com",
        "vars.GCP_PROJECT_ID": PROJECT,
        "vars.GCP_REGION": REGION,
        "vars.GCS_BUCKET_NAME": containers.bucket,
        "vars.MLFLOW_TRACKING_URI": tracking_uri,
    }
    tools = tmp_path / "venv"
    tools.mkdir()
    (tools / "bin").symlink_to(Path(sys.executable).parent)
    (tools / ".installed").touch()
    # Newer than anything it could be made from: what is there stays as it is.
    os.utime(tools / ".installed", (time.time() + 1e6,) * 2)
    environment = clean_environment(
        tmp_path / "home",
        CLOUD_RUN_API_ENDPOINT=cloud.url,
        CLOUD_RUN_MONITORING_ENDPOINT=cloud.url,
        HOUSING_CANARY_SECONDS="2",
        HOUSING_CANARY_MIN_REQUESTS="10",
        STORAGE_EMULATOR_HOST=gcs_server.endpoint,
        VENV=str(tools),
    )
    return lambda **more: run_job("release.yml", "production", contexts, {**environment, **more}, tmp_path)


def outcomes(steps: dict[str, Step]) -> dict[str, str]:
    return {name: step.outcome for name, step in steps.items() if name in ("deploy", "check", "Go back")}


def printed(steps: dict[str, Step]) -> str:
    return "\n".join(step.printed for step in steps.values())


def test_a_version_that_does_well_is_promoted(cloud: CloudRun, run: Callable[..., dict[str, Step]]) -> None:
    steps = run()
    assert outcomes(steps) == {"deploy": "success", "check": "success", "Go back": "skipped"}, printed(steps)
    assert steps["deploy"].outputs == {"promoted": "true", "version": "2"}
    assert cloud.shares() == {f"{SERVICE}-v2-1": 100}
    assert "by version 2" in steps["check"].printed
    [image] = {
        revision["containers"][0]["image"] for name, revision in cloud.revisions.items() if "-v2-" in name
    }
    assert image == IMAGE


def test_a_canary_that_fails_is_taken_back(cloud: CloudRun, run: Callable[..., dict[str, Step]]) -> None:
    def fail() -> None:
        cloud.measured(REQUESTS, f"{SERVICE}-v2-1", "5xx", {"int64Value": "30"})

    cloud.faults = [Fault("timeSeries", 0, times=2), Fault("timeSeries", 0, meanwhile=fail)]
    # Long enough for a second look: Cloud Monitoring is not asked all the time.
    steps = run(HOUSING_CANARY_SECONDS="120")
    assert outcomes(steps) == {"deploy": "failure", "check": "skipped", "Go back": "skipped"}, printed(steps)
    assert steps["deploy"].outputs == {"promoted": "false", "version": "1"}
    assert "failed 30 of 30 requests" in steps["deploy"].printed
    assert cloud.shares() == {f"{SERVICE}-v1-1": 100}


def test_a_release_that_does_not_answer_is_rolled_back(
    cloud: CloudRun, run: Callable[..., dict[str, Step]]
) -> None:
    cloud.broken = {"-v2-"}
    steps = run()
    assert outcomes(steps) == {"deploy": "success", "check": "failure", "Go back": "success"}, printed(steps)
    assert "answers 503" in steps["check"].printed
    assert cloud.shares() == {f"{SERVICE}-v1-1": 100}
    assert "version 1 is released again" in steps["Go back"].printed
