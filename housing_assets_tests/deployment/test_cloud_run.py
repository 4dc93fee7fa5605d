"""The Cloud Run target: Google's client, a stand-in for Google, and the real service as its container."""

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from google.auth.exceptions import DefaultCredentialsError
from pydantic import ValidationError

from housing_assets.deployment import cloud_run_smoke
from housing_assets.deployment.canary import CanaryRules
from housing_assets.deployment.cloud_monitoring import LATENCIES, REQUESTS, upper_bounds
from housing_assets.deployment.cloud_run import CloudRunTarget
from housing_assets.deployment.cloud_run_service import environment as cloud_run_environment
from housing_assets.deployment.cloud_run_settings import CloudRunSettings
from housing_assets.deployment.cloud_run_smoke import SmokeTestFailed, id_token, smoke_test
from housing_assets.deployment.rollout import CanaryRejected, Rollout
from housing_assets.deployment.target import (
    DeploymentConflict,
    DeploymentError,
    DeploymentTarget,
    TargetUnavailable,
)
from housing_assets.storage import open_store
from housing_assets_tests.conftest import GcsServer
from housing_assets_tests.deployment.cloud_run_server import (
    PATH,
    PROJECT,
    REGION,
    SERVICE,
    CloudRun,
    Fault,
    cloud_run_server,
)
from housing_assets_tests.scripted_http import answer, scripted_server
from housing_assets_tests.serving.bundles import bundle_files
from housing_assets_tests.serving.running_service import running_service
from housing_serving.releases import MAX_HISTORY, ReleaseRecord, change

MODEL = "housing_price_model"
VERSIONS = (1, 2, 3, 4)


class Containers:
    """Runs revisions as Cloud Run does: the real service, with the revision's own variables."""

    def __init__(self, gcs: GcsServer, folder: Path) -> None:
        self.bucket = gcs.new_bucket()
        self._gcs = gcs
        self._folder = folder
        self._running = ExitStack()
        self._urls: dict[str, str] = {}

    def upload(self, version: int) -> None:
        for name, data in bundle_files(version=version).items():
            open_store(f"gs://{self.bucket}").write(f"models/{MODEL}/{version}/{name}", data)

    def start(self, variables: Mapping[str, str]) -> str:
        path = variables["GCS_MODEL_PATH"]
        if path not in self._urls:
            folder = self._folder / path.replace("/", "-")
            folder.mkdir()
            here = {
                "HOST": "127.0.0.1",
                "LOCAL_MODEL_PATH": "",
                "STORAGE_EMULATOR_HOST": self._gcs.endpoint,
                "HOUSING_PREDICTION_LOG": "false",
            }
            service = self._running.enter_context(running_service(folder, **{**variables, **here}))
            self._urls[path] = service.url
        return self._urls[path]

    def serving(self, version: int) -> str:
        """Where a version answers."""
        settings = CloudRunSettings(project=PROJECT, region=REGION, bucket=self.bucket, image="api:1")
        return self.start(cloud_run_environment(settings, version))

    def stop(self) -> None:
        self._running.close()


@pytest.fixture(scope="module")
def containers(gcs_server: GcsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    started = Containers(gcs_server, tmp_path_factory.mktemp("containers"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", gcs_server.endpoint)
        for version in VERSIONS:
            started.upload(version)
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture
def cloud(containers: Containers) -> Iterator[CloudRun]:
    with cloud_run_server(containers.start) as running:
        yield running


@pytest.fixture
def target(cloud: CloudRun, containers: Containers) -> CloudRunTarget:
    return new_target(cloud, bucket=containers.bucket)


def new_target(cloud: CloudRun, **changes: Any) -> CloudRunTarget:
    values: dict[str, Any] = {
        "project": PROJECT,
        "region": REGION,
        "bucket": "unused",
        "image": "us-docker.pkg.dev/housing/api:1",
        "api_endpoint": cloud.url,
        "monitoring_endpoint": cloud.url,
        "ready_seconds": 20,
        "smoke_seconds": 3,
        "retry_seconds": 2,
        "metrics_seconds": 0,
    }
    return CloudRunTarget(CloudRunSettings(**(values | changes)))


def canary(
    target: CloudRunTarget,
    version: int,
    stable: int,
    owner: str = "run-1",
    percent: float = 10,
    reason: str = "a try",
) -> None:
    said = change("canary", version, "me", reason)
    target.start_canary(version, percent, stable=stable, owner=owner, change=said)


def release(target: CloudRunTarget, *versions: int) -> None:
    """Release versions one after the other, without a trial."""
    for version in versions:
        stable = target.status().stable
        said = change("promote", version, "me", "because")
        target.promote(version, stable=stable, owner=None, change=said)


def environment(cloud: CloudRun, revision: str) -> dict[str, str]:
    container = cloud.revisions[f"{PATH}/revisions/{revision}"]["containers"][0]
    return {item["name"]: item["value"] for item in container["env"]}


def patches(cloud: CloudRun) -> list[str]:
    return [line for line in cloud.requests if line.startswith("PATCH")]


class TestFirstRelease:
    def test_before_it_there_is_nothing(self, target: CloudRunTarget) -> None:
        status = target.status()
        assert (status.stable, status.serving, status.url) == (None, {}, None)
        assert target.history() == ()
        with pytest.raises(DeploymentError, match="materialize registered_model"):
            target.read()

    def test_makes_a_private_service_with_a_pinned_revision(
        self, cloud: CloudRun, target: CloudRunTarget, containers: Containers
    ) -> None:
        release(target, 3)
        service = cloud.services[PATH]
        assert service["ingress"] == 2  # INGRESS_TRAFFIC_INTERNAL_ONLY
        assert not service.get("invokerIamDisabled")
        assert cloud.policies == {}
        assert cloud.shares() == {f"{SERVICE}-v3-1": 100}
        assert environment(cloud, f"{SERVICE}-v3-1") == {
            "HOUSING_DEPLOYMENT": "gcp",
            "GCP_PROJECT_ID": PROJECT,
            "GCS_BUCKET_NAME": containers.bucket,
            "GCS_MODEL_PATH": f"models/{MODEL}/3",
            "MLFLOW_MODEL_NAME": MODEL,
            "HOST": "0.0.0.0",
        }
        status = target.status()
        assert (status.stable, status.previous, status.serving) == (3, None, {3: 100})
        assert status.problems == ()
        assert [(item.action, item.version) for item in target.history()] == [("promote", 3)]

    def test_a_first_revision_that_fails_is_not_released_and_gives_way_to_the_next(
        self, cloud: CloudRun, target: CloudRunTarget
    ) -> None:
        cloud.never_ready = {"-v3-": "The container failed to start on PORT=8080"}
        with pytest.raises(DeploymentError, match="failed to start on PORT=8080"):
            release(target, 3)
        assert target.status().stable is None
        release(target, 4)
        assert target.status().serving == {4: 100}

    def test_nobody_is_let_in_before_the_smoke_test(self, cloud: CloudRun, containers: Containers) -> None:
        cloud.run = lambda _: containers.serving(2)
        target = new_target(cloud, invokers=("user:a@example.org",))
        with pytest.raises(SmokeTestFailed):
            release(target, 3)
        assert cloud.policies == {}

    def test_goes_on_where_a_killed_deployment_stopped(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        # The service is there, and whoever made it never came back.
        target.start_canary(3, 10, stable=None, owner="run-1", change=change("canary", 3, "me", ""))
        assert target.status().stable is None
        release(target, 3)
        assert list(cloud.revisions) == [f"{PATH}/revisions/{SERVICE}-v3-1"]
        assert target.status().stable == 3

    def test_takes_a_service_over_that_others_have_made(
        self, cloud: CloudRun, target: CloudRunTarget
    ) -> None:
        release(target, 3)
        service = cloud.services[PATH]
        service["annotations"] = {"team": "pricing"}
        service["traffic"] = [{"type": 1, "percent": 100}]  # whatever is the latest
        release(target, 4)
        assert cloud.shares() == {f"{SERVICE}-v4-1": 100}
        assert cloud.services[PATH]["annotations"]["team"] == "pricing"
        # The new revision had no traffic before its test, although it was the latest.
        prepared = [line for line in patches(cloud) if "template" in line]
        assert len(prepared) == 1


class TestCanary:
    def test_gets_its_share_after_a_test_by_its_tag_url(
        self, cloud: CloudRun, target: CloudRunTarget
    ) -> None:
        release(target, 3)
        cloud.polls = 4
        canary(target, 4, stable=3, percent=10)
        assert cloud.shares() == {f"{SERVICE}-v3-1": 90, f"{SERVICE}-v4-1": 10}
        status = target.status()
        assert (status.stable, status.canary, status.canary_percent) == (3, 4, 10)
        assert (status.canary_owner, status.serving) == ("run-1", {3: 90, 4: 10})

    @pytest.mark.parametrize(("asked", "given"), [(0.2, 1), (12.6, 13)])
    def test_gets_whole_percents(
        self, cloud: CloudRun, target: CloudRunTarget, asked: float, given: int
    ) -> None:
        release(target, 3)
        canary(target, 4, stable=3, percent=asked)
        assert cloud.shares()[f"{SERVICE}-v4-1"] == given
        assert target.status().canary_percent == given

    def test_is_promoted_and_the_one_before_stays_at_hand(
        self, cloud: CloudRun, target: CloudRunTarget
    ) -> None:
        release(target, 3)
        canary(target, 4, stable=3)
        target.promote(4, stable=3, owner="run-1", change=change("promote", 4, "me", "good"))
        assert cloud.shares() == {f"{SERVICE}-v4-1": 100}
        assert cloud.tags() == {"v3": f"{SERVICE}-v3-1", "v4": f"{SERVICE}-v4-1"}
        assert (target.status().stable, target.status().previous) == (4, 3)

    def test_is_aborted_and_leaves_no_tag(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 3)
        canary(target, 4, stable=3)
        for _ in range(2):
            target.abort_canary(4, change=change("abort", 4, "me", "slow"))
        assert cloud.shares() == {f"{SERVICE}-v3-1": 100}
        assert cloud.tags() == {"v3": f"{SERVICE}-v3-1"}
        assert [item.action for item in target.history()] == ["promote", "canary", "abort"]

    def test_aborting_gives_way_to_another_change_and_comes_again(
        self, cloud: CloudRun, target: CloudRunTarget
    ) -> None:
        release(target, 3)
        canary(target, 4, stable=3)
        theirs = cloud.services[PATH]["annotations"]["housing-release"].replace("a try", "another")
        changed = {"etag": "theirs", "annotations": {"housing-release": theirs}}
        cloud.faults = [Fault("PATCH", 0, meanwhile=lambda: cloud.services[PATH].update(changed))]
        target.abort_canary(4, change=change("abort", 4, "me", "slow"))
        assert target.status().canary is None
        assert [item.reason for item in target.history()] == ["because", "another", "slow"]

    def test_of_an_interrupted_deployment_goes_on(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 3)
        canary(target, 4, stable=3)
        before = len(patches(cloud))
        canary(target, 4, stable=3)
        assert len(patches(cloud)) == before

    def test_a_revision_made_before_a_crash_is_used(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 3)
        # Killed between the revision and its traffic: the last request never goes out.
        cloud.faults = [Fault("PATCH", 0), Fault("PATCH", 403, message="killed")]
        with pytest.raises(DeploymentError, match="killed"):
            canary(target, 4, stable=3)
        canary(target, 4, stable=3)
        assert [name for name in cloud.revisions if "-v4-" in name] == [f"{PATH}/revisions/{SERVICE}-v4-1"]
        assert cloud.shares() == {f"{SERVICE}-v3-1": 90, f"{SERVICE}-v4-1": 10}

    def test_another_image_makes_another_revision(
        self, cloud: CloudRun, target: CloudRunTarget, containers: Containers
    ) -> None:
        release(target, 3)
        canary(target, 4, stable=3)
        target.abort_canary(4, change=change("abort", 4, "me", "slow"))
        canary(new_target(cloud, bucket=containers.bucket, image="api:2"), 4, stable=3)
        assert cloud.shares() == {f"{SERVICE}-v3-1": 90, f"{SERVICE}-v4-2": 10}

    def test_is_another_version_than_the_stable_one(self, target: CloudRunTarget) -> None:
        release(target, 3)
        with pytest.raises(DeploymentError, match="version 3 serves already"):
            canary(target, 3, stable=3)
        assert target.status().serving == {3: 100}

    def test_only_its_owner_promotes_it(self, target: CloudRunTarget) -> None:
        release(target, 3)
        canary(target, 4, stable=3, owner="run-1")
        for owner in ("run-2", None):
            with pytest.raises(DeploymentConflict, match="being tried out by run-1"):
                target.promote(4, stable=3, owner=owner, change=change("promote", 4, "me", ""))
        with pytest.raises(DeploymentConflict, match="being tried out by run-1"):
            canary(target, 2, stable=3, owner="run-2")

    def test_that_was_ended_meanwhile_is_not_promoted(self, target: CloudRunTarget) -> None:
        release(target, 3)
        canary(target, 4, stable=3)
        target.abort_canary(4, change=change("abort", 4, "you", "no"))
        with pytest.raises(DeploymentConflict, match="was ended by somebody else"):
            target.promote(4, stable=3, owner="run-1", change=change("promote", 4, "me", ""))
        assert target.status().serving == {3: 100}


class TestFailure:
    def test_a_revision_that_never_becomes_ready_changes_no_traffic(
        self, cloud: CloudRun, target: CloudRunTarget
    ) -> None:
        release(target, 3)
        cloud.never_ready = {"-v4-1": "The image 'api:1' was not found"}
        with pytest.raises(
            DeploymentError, match=r"v4-1 did not become ready: The image 'api:1' was not found"
        ):
            canary(target, 4, stable=3)
        assert cloud.shares() == {f"{SERVICE}-v3-1": 100}
        assert cloud.tags() == {"v3": f"{SERVICE}-v3-1"}
        assert target.status().canary is None
        # Its name is taken for ever; what was wrong with it can be mended all the same.
        canary(target, 4, stable=3)
        assert cloud.shares()[f"{SERVICE}-v4-2"] == 10

    def test_a_revision_that_nothing_is_heard_of_is_given_up(
        self, cloud: CloudRun, containers: Containers
    ) -> None:
        target = new_target(cloud, bucket=containers.bucket, ready_seconds=3)
        release(target, 3)
        cloud.stuck = {"-v4-1"}
        began = time.monotonic()
        with pytest.raises(DeploymentError, match="v4-1 did not become ready: Cloud Run does not say why"):
            canary(target, 4, stable=3)
        assert time.monotonic() - began < 15
        assert cloud.shares() == {f"{SERVICE}-v3-1": 100}
        assert cloud.tags() == {"v3": f"{SERVICE}-v3-1"}

    def test_a_revision_with_another_model_changes_no_traffic(
        self, cloud: CloudRun, target: CloudRunTarget, containers: Containers
    ) -> None:
        release(target, 3)
        cloud.run = lambda _: containers.serving(3)
        with pytest.raises(SmokeTestFailed, match="answers with model version 3, not 4"):
            canary(target, 4, stable=3)
        assert cloud.shares() == {f"{SERVICE}-v3-1": 100}
        assert cloud.tags() == {"v3": f"{SERVICE}-v3-1"}

    def test_traffic_that_cannot_be_led_is_put_back_with_the_record(
        self, cloud: CloudRun, target: CloudRunTarget
    ) -> None:
        release(target, 3, 4)
        cloud.unroutable = {f"{SERVICE}-v3-1"}
        with pytest.raises(DeploymentError, match="cannot serve traffic"):
            target.roll_back(stable=4, change=change("rollback", 3, "me", "bad"))
        assert cloud.shares() == {f"{SERVICE}-v4-1": 100}
        wanted = {row["revision"]: row.get("percent", 0) for row in cloud.services[PATH]["traffic"]}
        assert wanted == {f"{SERVICE}-v4-1": 100, f"{SERVICE}-v3-1": 0}
        status = target.status()
        assert (status.stable, status.previous) == (4, 3)
        assert "cannot serve traffic" in status.problems[0]

    def test_a_lost_answer_is_no_failure(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        cloud.faults = [Fault(r"POST .*/services$", 503, after=True)]
        release(target, 3)
        cloud.faults = [Fault("PATCH", 503, after=True)]
        canary(target, 4, stable=3)
        cloud.faults = [Fault("PATCH", 503, after=True)]
        target.promote(4, stable=3, owner="run-1", change=change("promote", 4, "me", ""))
        assert cloud.shares() == {f"{SERVICE}-v4-1": 100}
        assert len(cloud.revisions) == 2
        assert [item.action for item in target.history()] == ["promote", "canary", "promote"]

    @pytest.mark.parametrize("pattern", ["PATCH", "GET .*/operations/", "GET .*/revisions"])
    def test_a_quota_is_waited_for(self, cloud: CloudRun, target: CloudRunTarget, pattern: str) -> None:
        release(target, 3)
        cloud.faults = [Fault(pattern, 429, times=2, message="Quota exceeded")]
        canary(target, 4, stable=3)
        assert cloud.faults[0].times == 0
        assert target.status().canary == 4

    def test_a_quota_that_stays_used_up_is_named(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 3)
        cloud.faults = [Fault("PATCH", 429, times=1000, message="Write requests per minute")]
        with pytest.raises(
            DeploymentError, match=r"quota of housing-test is used up.*Write requests per min"
        ):
            canary(target, 4, stable=3)
        assert cloud.shares() == {f"{SERVICE}-v3-1": 100}
        assert target.status().canary is None

    def test_a_missing_role_is_named(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        cloud.faults = [Fault("POST", 403, message="Permission 'run.services.create' denied")]
        with pytest.raises(
            DeploymentError,
            match=r"run\.services\.create.*roles/run\.developer.*roles/iam\.serviceAccountUser",
        ):
            release(target, 3)

    def test_an_api_that_is_off_is_named(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        text = "Cloud Run Admin API has not been used in project 1 before or it is disabled."
        cloud.faults = [Fault("GET", 403, message=text)]
        with pytest.raises(DeploymentError, match=r"gcloud services enable run\.googleapis\.com"):
            target.status()

    def test_an_unknown_region_is_named(self, cloud: CloudRun) -> None:
        with pytest.raises(DeploymentError, match="check GCP_PROJECT_ID, GCP_REGION"):
            release(new_target(cloud, region="mars-north1"), 3)

    def test_a_value_that_is_refused_is_repeated(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        cloud.faults = [Fault("POST", 400, message="image: must be set")]
        with pytest.raises(DeploymentError, match="image: must be set"):
            release(target, 3)

    def test_an_outage_is_one(self, target: CloudRunTarget, cloud: CloudRun) -> None:
        cloud.faults = [Fault("GET", 503, times=1000)]
        with pytest.raises(TargetUnavailable, match="Cloud Run does not answer"):
            target.status()

    def test_a_record_that_is_none_is_named(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 3)
        cloud.services[PATH]["annotations"]["housing-release"] = "{}"
        with pytest.raises(DeploymentError, match="annotation housing-release"):
            target.status()


class TestConflict:
    @pytest.mark.parametrize("status", [409, 412])
    def test_a_release_by_somebody_else_wins(
        self, cloud: CloudRun, containers: Containers, status: int
    ) -> None:
        target = new_target(cloud, bucket=containers.bucket)
        release(target, 2, 3)
        # Refused as both kinds of preconditions are, while somebody else has rolled back.
        record = cloud.services[PATH]["annotations"]["housing-release"].replace(
            '"stable_version":3', '"stable_version":2'
        )
        theirs = {"etag": "theirs", "annotations": {"housing-release": record}}
        cloud.faults = [Fault("PATCH", status, meanwhile=lambda: cloud.services[PATH].update(theirs))]
        with pytest.raises(DeploymentConflict, match="somebody else"):
            canary(target, 4, stable=3)
        assert cloud.shares() == {f"{SERVICE}-v3-1": 100}
        assert "v4" not in cloud.tags()

    @pytest.mark.parametrize("action", ["canary", "promote", "roll back"])
    def test_another_stable_version_than_expected(
        self, cloud: CloudRun, target: CloudRunTarget, action: str
    ) -> None:
        release(target, 2, 3)
        before = len(patches(cloud))
        with pytest.raises(DeploymentConflict, match="version 3 serves by now, not version 2"):
            if action == "canary":
                canary(target, 4, stable=2)
            elif action == "promote":
                target.promote(4, stable=2, owner=None, change=change("promote", 4, "me", ""))
            else:
                target.roll_back(stable=2, change=change("rollback", 1, "me", ""))
        assert len(patches(cloud)) == before

    @pytest.mark.parametrize("versions", [(2, 4), (4, 4)])
    def test_of_two_canaries_at_once_one_wins(
        self, cloud: CloudRun, containers: Containers, versions: tuple[int, int]
    ) -> None:
        release(new_target(cloud, bucket=containers.bucket), 3)
        cloud.polls = 3
        for version in versions:
            containers.serving(version)
        together = threading.Barrier(2)

        def deploy(number: int) -> str | DeploymentError:
            target = new_target(cloud, bucket=containers.bucket)
            together.wait()
            try:
                canary(target, versions[number], stable=3, owner=f"run-{number}")
            except DeploymentConflict as error:
                return error
            return f"run-{number}"

        with ThreadPoolExecutor(2) as threads:
            outcomes = list(threads.map(deploy, range(2)))
        winners = [item for item in outcomes if isinstance(item, str)]
        assert len(winners) == 1, outcomes
        status = new_target(cloud, bucket=containers.bucket).status()
        winner = versions[int(winners[0][-1])]
        assert (status.stable, status.canary, status.canary_owner) == (3, winner, winners[0])
        assert status.serving == {3: 90, winner: 10}
        assert set(cloud.tags()) == {"v3", f"v{winner}"}

    def test_of_two_first_releases_at_once_one_wins(self, cloud: CloudRun, containers: Containers) -> None:
        cloud.polls = 3
        together = threading.Barrier(2)

        def deploy(version: int) -> int | None:
            target = new_target(cloud, bucket=containers.bucket)
            together.wait()
            try:
                target.promote(version, stable=None, owner="run", change=change("promote", version, "me", ""))
            except DeploymentConflict:
                return None
            return version

        with ThreadPoolExecutor(2) as threads:
            winners = [item for item in threads.map(deploy, (2, 4)) if item]
        assert len(winners) == 1
        status = new_target(cloud, bucket=containers.bucket).status()
        assert (status.stable, status.previous, status.serving) == (winners[0], None, {winners[0]: 100})

    def test_who_only_prepares_is_not_in_the_way(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 3)
        touched = Fault("PATCH", 0, times=2, meanwhile=lambda: cloud.services[PATH].update(etag="theirs"))
        cloud.faults = [touched]
        canary(target, 4, stable=3)
        assert touched.times == 0
        assert cloud.shares() == {f"{SERVICE}-v3-1": 90, f"{SERVICE}-v4-1": 10}
        assert len(cloud.revisions) == 2


class TestRollback:
    def test_leads_everything_to_the_named_version_before(
        self, cloud: CloudRun, target: CloudRunTarget
    ) -> None:
        release(target, 2, 3, 4)
        made = len(cloud.revisions)
        assert target.roll_back(stable=4, change=change("rollback", 3, "me", "bad")) == 3
        assert cloud.shares() == {f"{SERVICE}-v3-1": 100}
        assert target.status().previous == 2
        target.roll_back(stable=3, change=change("rollback", 2, "me", "bad"))
        assert cloud.shares() == {f"{SERVICE}-v2-1": 100}
        assert len(cloud.revisions) == made
        # An old version that comes back has its revision already.
        release(target, 4)
        assert cloud.shares() == {f"{SERVICE}-v4-1": 100}
        assert len(cloud.revisions) == made

    def test_ends_a_trial(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 2, 3)
        canary(target, 4, stable=3)
        target.roll_back(stable=3, change=change("rollback", 2, "me", "bad"))
        assert cloud.shares() == {f"{SERVICE}-v2-1": 100}
        assert target.status().canary is None

    def test_needs_a_version_before(self, target: CloudRunTarget) -> None:
        release(target, 3)
        with pytest.raises(DeploymentError, match="no version before version 3"):
            target.roll_back(stable=3, change=change("rollback", 2, "me", ""))
        release(target, 4)
        with pytest.raises(DeploymentConflict, match="version 3 is what rollback restores, not version 2"):
            target.roll_back(stable=4, change=change("rollback", 2, "me", ""))

    def test_finds_the_revision_whose_tag_was_removed(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 3, 4)
        traffic = cloud.services[PATH]["traffic"]
        traffic[:] = [row for row in traffic if row.get("tag") != "v3"]
        target.roll_back(stable=4, change=change("rollback", 3, "me", ""))
        assert cloud.shares() == {f"{SERVICE}-v3-1": 100}
        cloud.revisions = {name: item for name, item in cloud.revisions.items() if "-v3-" in name}
        cloud.services[PATH]["traffic"][0]["tag"] = "by-hand"
        cloud.revisions[f"{PATH}/revisions/{SERVICE}-v3-1"]["labels"] = {}
        with pytest.raises(DeploymentError, match="no revision of version 3 any more"):
            target.read()


class TestStatus:
    def test_says_what_was_done_by_hand(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 3)
        for key in ("traffic", "trafficStatuses"):
            cloud.services[PATH][key][0].update(percent=60)
            cloud.services[PATH][key].append(
                {"type": 2, "revision": "debug-1", "percent": 40, "tag": "debug"}
            )
        status = target.status()
        assert status.serving == {3: 60}
        assert status.problems == ("40 % of the traffic goes to debug-1, which was not released",)

    def test_the_record_stays_small(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 2)
        canary(target, 3, stable=2, reason="x" * 10_000)
        annotations = cloud.services[PATH]["annotations"]
        record = ReleaseRecord.model_validate_json(annotations["housing-release"])
        long = record.model_copy(update={"history": (record.history[-1],) * MAX_HISTORY})
        annotations["housing-release"] = long.model_dump_json()
        target.abort_canary(3, change=change("abort", 3, "me", "y" * 10_000))
        assert len(target.history()) == MAX_HISTORY
        assert len(annotations["housing-release"]) > 10_000
        assert len(cloud.services[PATH]["annotations"]["housing-release"]) < 32_000

    def test_tags_that_people_have_set_stay(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 3)
        row = {"type": 2, "revision": f"{SERVICE}-v3-1", "tag": "demo"}
        cloud.services[PATH]["traffic"].append(row)
        release(target, 4)
        assert cloud.tags()["demo"] == f"{SERVICE}-v3-1"


class TestAccess:
    def test_those_who_are_configured_may_call(self, cloud: CloudRun, containers: Containers) -> None:
        theirs = {"role": "roles/run.invoker", "members": ["user:b@example.org"]}
        other = {"role": "roles/run.viewer", "members": ["user:c@example.org"]}
        cloud.policies[PATH] = {"etag": "YQ==", "bindings": [other, theirs]}
        cloud.faults = [Fault(":setIamPolicy", 409)]
        release(new_target(cloud, bucket=containers.bucket, invokers=("user:a@example.org",)), 3)
        bindings = {item["role"]: item["members"] for item in cloud.policies[PATH]["bindings"]}
        assert bindings == {
            "roles/run.viewer": ["user:c@example.org"],
            "roles/run.invoker": ["user:b@example.org", "user:a@example.org"],
        }

    def test_the_role_for_it_is_named(self, cloud: CloudRun, containers: Containers) -> None:
        cloud.faults = [Fault(":setIamPolicy", 403, message="denied")]
        with pytest.raises(DeploymentError, match=r"roles/run\.admin"):
            release(new_target(cloud, bucket=containers.bucket, invokers=("user:a@example.org",)), 3)

    @pytest.mark.parametrize(
        ("ingress", "number"), [("all", 1), ("internal", 2), ("internal-and-cloud-load-balancing", 3)]
    )
    def test_ingress_is_as_configured(
        self, cloud: CloudRun, containers: Containers, ingress: str, number: int
    ) -> None:
        release(new_target(cloud, bucket=containers.bucket), 3)
        # What somebody has opened by hand, the next release closes.
        cloud.services[PATH].update(ingress=1, invokerIamDisabled=True)
        release(new_target(cloud, bucket=containers.bucket, ingress=ingress), 4)
        assert cloud.services[PATH]["ingress"] == number
        assert not cloud.services[PATH].get("invokerIamDisabled")

    @pytest.mark.parametrize("field", ["image", "bucket", "project"])
    def test_an_empty_value_is_refused(self, field: str) -> None:
        values = {"project": "p", "region": "r", "bucket": "b", "image": "i"}
        with pytest.raises(ValidationError, match=field):
            CloudRunSettings(**(values | {field: ""}))


class TestMetrics:
    def latencies(self, *counts: int) -> dict[str, Any]:
        options = {"exponentialBuckets": {"numFiniteBuckets": 3, "growthFactor": 10, "scale": 1}}
        value = {"count": str(sum(counts)), "mean": 20.0, "bucketOptions": options}
        return {"distributionValue": value | {"bucketCounts": [str(count) for count in counts]}}

    def test_count_requests_errors_and_latencies_by_revision(
        self, cloud: CloudRun, target: CloudRunTarget
    ) -> None:
        release(target, 3)
        canary(target, 4, stable=3)
        empty = target.read()
        assert (empty.stable.requests, empty.stable.latencies.size) == (0, 0)
        stable, new = f"{SERVICE}-v3-1", f"{SERVICE}-v4-1"
        for code, count in (("2xx", 5), ("2xx", 2), ("4xx", 50), ("5xx", 1)):
            cloud.measured(REQUESTS, stable, code, {"int64Value": str(count)})
        cloud.measured(REQUESTS, new, "2xx", {"int64Value": "3"})
        cloud.measured(LATENCIES, stable, "2xx", self.latencies(0, 4, 3))
        cloud.measured(LATENCIES, stable, "5xx", self.latencies(0, 0, 0, 0, 1))
        reading = target.read()
        assert (reading.stable.requests, reading.stable.errors, reading.stable.prices) == (8, 1, None)
        assert reading.canary is not None
        assert (reading.canary.requests, reading.canary.errors) == (3, 0)
        np.testing.assert_allclose(reading.stable.latencies.bounds, [0.001, 0.01, 0.1, 1.0, np.inf])
        assert reading.stable.latencies.counts.tolist() == [0, 4, 3, 0, 1]
        assert reading.stable.latencies.total == pytest.approx(8 * 0.02)

    def test_buckets_are_linear_explicit_or_exponential(self) -> None:
        linear = {"linearBuckets": {"numFiniteBuckets": 2, "width": 5, "offset": 10}}
        assert upper_bounds(linear).tolist() == [10, 15, 20, np.inf]
        assert upper_bounds({"explicitBuckets": {"bounds": [1, 2.5]}}).tolist() == [1, 2.5, np.inf]

    def test_are_not_asked_for_more_often_than_needed(self, cloud: CloudRun, containers: Containers) -> None:
        target = new_target(cloud, bucket=containers.bucket, metrics_seconds=60)
        release(target, 3)
        for _ in range(3):
            target.read()
        assert sum("timeSeries" in line for line in cloud.requests) == 2

    def test_that_may_not_be_read_name_the_role(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 3)
        cloud.faults = [Fault("timeSeries", 403)]
        with pytest.raises(DeploymentError, match=r"roles/monitoring\.viewer"):
            target.read()
        cloud.faults = [Fault("timeSeries", 503)]
        with pytest.raises(TargetUnavailable, match="Cloud Monitoring"):
            target.read()


class TestRollout:
    """A whole deployment, as the asset runs it."""

    rules = CanaryRules(window_seconds=1.0, min_requests=10)

    def rollout(self, target: DeploymentTarget) -> Rollout:
        return Rollout(target, 4, 3, owner="run-1", by="me", rules=self.rules)

    def measure(self, cloud: CloudRun, errors: int) -> Any:
        """Let the canary be seen at work from its second look on."""

        def look() -> None:
            for code, count in (("2xx", 20), ("5xx", errors)):
                cloud.measured(REQUESTS, f"{SERVICE}-v4-1", code, {"int64Value": str(count)})

        return [Fault("timeSeries", 0, times=2), Fault("timeSeries", 0, meanwhile=look)]

    def test_promotes_a_canary_that_does_well(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 3)
        cloud.faults = self.measure(cloud, errors=0)
        assert self.rollout(target).run().serving == {4: 100}
        assert "20 requests" in target.history()[-1].reason

    def test_ends_a_canary_that_fails(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 3)
        cloud.faults = self.measure(cloud, errors=20)
        with pytest.raises(CanaryRejected, match="failed 20 of 40 requests"):
            self.rollout(target).run()
        status = target.status()
        assert (status.stable, status.canary, status.serving) == (3, None, {3: 100})


class TestNewImageOfTheVersionThatServes:
    image = "us-docker.pkg.dev/housing/api:2"

    def renew(self, target: DeploymentTarget) -> None:
        Rollout(target, 3, None, owner="run-2", by="me").run()

    def test_takes_over_after_its_smoke_test(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 2, 3)
        renewing = new_target(cloud, image=self.image)
        self.renew(renewing)
        assert cloud.shares() == {f"{SERVICE}-v3-2": 100}
        assert cloud.tags() == {"v2": f"{SERVICE}-v2-1", "v3": f"{SERVICE}-v3-2"}
        status = renewing.status()
        assert (status.stable, status.previous, status.problems) == (3, 2, ())
        assert renewing.history()[-1].reason == "the values of the deployment have changed"
        before = patches(cloud)
        self.renew(renewing)
        assert patches(cloud) == before

    def test_that_does_not_start_leaves_the_old_one(self, cloud: CloudRun, target: CloudRunTarget) -> None:
        release(target, 2, 3)
        cloud.never_ready = {"-v3-2": "The container failed to start on PORT=8080"}
        renewing = new_target(cloud, image=self.image)
        with pytest.raises(DeploymentError, match="failed to start on PORT=8080"):
            self.renew(renewing)
        assert cloud.shares() == {f"{SERVICE}-v3-1": 100}
        assert cloud.tags() == {"v2": f"{SERVICE}-v2-1", "v3": f"{SERVICE}-v3-1"}
        assert renewing.status().serving == {3: 100}


class TestSmokeTest:
    def test_waits_for_a_url_that_is_not_known_everywhere_yet(self, containers: Containers) -> None:
        url = containers.serving(3)
        with scripted_server(url) as server:
            server.script = [answer(404), answer(503)]
            assert smoke_test(server.url, 3, token=None, seconds=10) == 301_000

    @pytest.mark.parametrize(
        ("status", "body", "said"),
        [
            (200, b'{"model_version": "3", "predictions": [{"predicted_price": NaN}]}', "no price"),
            (200, b'{"model_version": "3"}', "no price"),
            (200, b"[]", "model version None"),
            (200, b"<html>", "smoke test of version 3 failed"),
            (403, b"", "roles/run.invoker"),
            (404, b"", "CLOUD_RUN_INGRESS"),
            (500, b"boom", "answers 500: boom"),
        ],
    )
    def test_says_what_is_wrong(self, status: int, body: bytes, said: str) -> None:
        with scripted_server() as server:
            server.afterwards = answer(status, body)
            with pytest.raises(SmokeTestFailed, match=said):
                smoke_test(server.url, 3, token=None, seconds=0.5)

    def test_sends_the_token(self) -> None:
        with scripted_server() as server:
            seen: list[str | None] = []
            priced = b'{"model_version": "3", "predictions": [{"predicted_price": 1.5}]}'

            def look(handler: Any, body: bytes) -> None:
                seen.append(handler.headers["Authorization"])
                answer(200, priced)(handler, body)

            server.afterwards = look
            assert smoke_test(server.url, 3, token="abc", seconds=5) == 1.5
        assert seen == ["Bearer abc", "Bearer abc"]

    def test_does_without_a_token_where_there_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def none(*_: object) -> str:
            raise DefaultCredentialsError

        monkeypatch.setattr("google.oauth2.id_token.fetch_id_token", none)
        assert id_token("https://api.example.org") is None

    def test_asks_for_an_example_that_the_service_accepts(self, containers: Containers) -> None:
        url = containers.serving(3)
        body = {"instances": [cloud_run_smoke.EXAMPLE]}
        priced = requests.post(f"{url}/api/v1/predict", json=body, timeout=10).json()
        assert priced["predictions"][0]["warnings"] == []


def test_without_credentials_it_says_how_to_get_some(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    with pytest.raises(DeploymentError, match="gcloud auth application-default login"):
        CloudRunTarget(CloudRunSettings(project="p", region="r", bucket="b", image="i"))
