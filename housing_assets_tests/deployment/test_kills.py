"""Processes of a release that are killed at random moments: what is left is always one release."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from housing_assets.deployment.aliases import align_aliases
from housing_assets.deployment.canary import CanaryRules
from housing_assets.deployment.mending import mend
from housing_assets.deployment.rollout import Rollout
from housing_assets.mlflow_runs import mlflow_client
from housing_assets.registry import ModelRegistry
from housing_assets_tests.deployment.fleets import (
    MODEL,
    Fleet,
    add_version,
    like_version,
    record_of,
    running_fleet,
    wait_until,
)

KILLS = int(os.environ.get("HOUSING_RELEASE_KILLS", "8"))
PROCESSES = 2
VERSIONS = (1, 2, 3)
# Long enough to be hit in the middle of it, short enough to be passed.
TRIAL = CanaryRules(percent=20, window_seconds=0.2, max_windows=1)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("kills"), processes=PROCESSES) as running:
        for version in VERSIONS[1:]:
            add_version(running.root, version, like_version(version))
        yield running


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real registry with these versions."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow_client(uri)
    client.create_registered_model(MODEL)
    for version in VERSIONS:
        client.create_model_version(MODEL, source=str(folder / str(version)))
    return uri


def registry(uri: str) -> ModelRegistry:
    return ModelRegistry(mlflow_client(uri), uri, MODEL)


def deploy_again_and_again(fleet: Fleet, uri: str) -> None:
    """What deployments do, one after the other, for ever."""
    models, target = registry(uri), fleet.target()
    while True:
        stable = target.status().stable
        version = 1 if stable is None else stable % len(VERSIONS) + 1
        status = Rollout(target, version, stable, "run-1", "Dagster run run-1", TRIAL).run()
        align_aliases(models, status.stable, status.previous)


def test_after_any_kill_the_fleet_serves_one_version_and_the_registry_says_the_same(
    fleet: Fleet, tracking_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = time.time_ns() % 1_000_000
    moments = random.Random(seed)
    forking = multiprocessing.get_context("fork")
    models = registry(tracking_uri)
    in_trials = 0
    for number in range(KILLS):
        deploying = forking.Process(target=deploy_again_and_again, args=(fleet, tracking_uri))
        deploying.start()
        deploying.join(moments.uniform(0.05, 3.0))
        assert deploying.is_alive(), f"kill {number} of seed {seed}: the deployment ended by itself"
        if number % 3 == 0:
            victim = moments.choice(fleet.workers())
            victim.send_signal(signal.SIGKILL)
            psutil.wait_procs([victim], 30)
        deploying.kill()
        deploying.join()
        in_trials += has_trial(fleet.root)

        mend(fleet.target(), models, lambda _: True, "test")
        mend(fleet.target(), models, lambda _: True, "test")
        agree(fleet, models, f"kill {number} of seed {seed}")
    with capsys.disabled():
        print(f"\n{KILLS} kills, {in_trials} of them during a trial")  # noqa: T201


def has_trial(root: Path) -> bool:
    path = root / "releases" / "housing-price-api.json"
    return path.exists() and record_of(root).canary_version is not None


def agree(fleet: Fleet, models: ModelRegistry, when: str) -> None:
    """Record, processes and aliases say the same, and no trial is left."""
    status = fleet.target().status()
    assert status.canary is None, when
    aliases = dict(models.client.get_registered_model(MODEL).aliases)
    if status.stable is None:
        assert aliases == {}, when
        return
    wanted = {"production": status.stable, "previous": status.previous}
    assert {name: int(found) for name, found in aliases.items()} == {
        name: version for name, version in wanted.items() if version is not None
    }, when
    wait_until(lambda: fleet.versions() == {status.stable: PROCESSES}, f"{when}: {fleet.versions()}")
