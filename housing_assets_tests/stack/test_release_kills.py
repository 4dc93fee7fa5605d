"""Whatever is killed at whatever moment of a deployment: the fleet ends with one version, by one run.

Every deployment here is requested by the sensor and run by the daemon, in the stack that `housing up` starts.
The version is a copy of one that was trained, registered and reported as `registered_model` reports it.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg
import psutil
import pytest

from housing_assets.deployment.preflight import CHAMPION_TAG, DECISION_TAG, PROMOTE
from housing_assets.registration import load_bundle
from housing_assets.registry import COMPLETE, STATE_TAG
from housing_assets.storage import open_store
from housing_assets_tests.running_stack import Stack, alive, wait_for
from housing_assets_tests.stack.released import (
    MODEL,
    OPEN,
    PROCESSES,
    aliased,
    callers,
    deployed,
    release_of,
    serving,
)
from housing_serving.bundle import MANIFEST_FILE, sha256_hex

KILLS = int(os.environ.get("HOUSING_STACK_KILLS", "1"))
# A worker killed before its first event is missed after 90 s; a retry then takes up what it left.
SECONDS = 500.0
# From the report of a version to the end of its deployment on a machine that does nothing else.
DEPLOYMENT_SECONDS = 22.0


@dataclass(frozen=True)
class Kill:
    """What is killed, and how long after the version was reported."""

    victim: str
    after: float


@pytest.mark.timeout(600 + 600 * KILLS)
def test_whatever_is_killed_one_run_deploys_the_version_everywhere(
    stack: Stack, better: int, capsys: pytest.CaptureFixture[str]
) -> None:
    # A version is judged against what serves, so the one before must have got there.
    wait_for("the version to begin with", lambda: deployed(stack)[-1] == better, SECONDS)
    seed = time.time_ns() % 1_000_000
    moments = random.Random(seed)
    # Each kind equally often, the worker first: it is also the writer of the release record.
    victims = ("run worker", "daemon", "daemon and all that it started", "API process")
    kills = [Kill(victims[n % len(victims)], moments.uniform(0, DEPLOYMENT_SECONDS)) for n in range(KILLS)]
    for number, kill in enumerate(kills):
        with capsys.disabled():
            print(f"\nkill {number} of seed {seed}: {kill.victim} after {kill.after:.1f} s", end="")  # noqa: T201
        survive(stack, better, kill, moments)


def survive(stack: Stack, trained: int, kill: Kill, moments: random.Random) -> None:
    """Deploy another version, kill something meanwhile, and look at what is left."""
    before = aliased(stack, "production")
    # A killed API process takes the requests that it was answering with it.
    with callers(stack, tolerant=kill.victim == "API process"):
        version = report_version(stack, trained, before)
        execute(stack, version, kill, moments)
        wait_for(f"the deployment of version {version}", lambda: deployed(stack)[-1] == version, SECONDS)
        wait_for("every process", lambda: serving(stack) == {str(version): PROCESSES}, SECONDS)
    wait_for("the alias", lambda: aliased(stack, "production") == version, SECONDS)
    assert aliased(stack, "previous") == before
    record = release_of(stack)
    assert (record["stable_version"], record["canary_version"]) == (version, None)
    promoted = [entry["version"] for entry in record["history"] if entry["action"] == "promote"]
    assert promoted.count(version) == 1
    runs = [run for run in stack.runs().values() if run["tags"].get("housing/model_version") == str(version)]
    assert [run["status"] for run in runs if run["status"] in OPEN] == []
    assert sum(run["status"] == "SUCCESS" for run in runs) == 1
    assert sum(run["parentRunId"] is None for run in runs) == 1


def report_version(stack: Stack, trained: int, champion: int) -> int:
    """Register a copy of a trained version that has beaten the champion, and report it; returns its number.

    In the order of a real registration: tags and bundle first, the event that the sensor sees last.
    """
    client = stack.mlflow_client()
    origin = client.get_model_version(MODEL, str(trained))
    model_id = origin.source.removeprefix("models:/")
    created = client.create_model_version(MODEL, origin.source, run_id=origin.run_id, model_id=model_id)
    version = int(created.version)
    store = open_store(str(stack.home / "storage"))
    files = {name.rsplit("/", 1)[1]: store.read(name) for name in store.list(f"models/{MODEL}/{trained}/")}
    manifest = load_bundle(store, MODEL, trained).manifest
    files[MANIFEST_FILE] = manifest.model_copy(update={"model_version": version}).to_json()
    for name in sorted(files, key=lambda name: name == MANIFEST_FILE):
        store.write(f"models/{MODEL}/{version}/{name}", files[name])
    assert load_bundle(store, MODEL, version).manifest.model_version == version
    tags = {
        **origin.tags,
        DECISION_TAG: PROMOTE,
        CHAMPION_TAG: str(champion),
        "bundle_sha256": sha256_hex(files[MANIFEST_FILE]),
        STATE_TAG: COMPLETE,
    }
    for key, value in tags.items():
        client.set_model_version_tag(MODEL, str(version), key, value)
    client.set_registered_model_alias(MODEL, "staging", str(version))
    event = dg.AssetMaterialization(
        "registered_model", metadata={"model_version": version, DECISION_TAG: PROMOTE}
    )
    with dg.DagsterInstance.from_config(str(stack.home / "dagster")) as instance:
        instance.report_runless_asset_event(event)
    return version


def execute(stack: Stack, version: int, kill: Kill, moments: random.Random) -> None:
    """Wait for the moment, then kill."""
    threading.Event().wait(kill.after)
    victims: dict[str, Callable[[], list[int]]] = {
        "run worker": lambda: [wait_for("a worker", lambda: worker(stack, version), SECONDS)],
        "daemon": lambda: [stack.pid("dagster-daemon")],
        "daemon and all that it started": lambda: group(stack.pid("dagster-daemon")),
        "API process": lambda: [moments.choice(api_processes(stack))],
    }
    killed = victims[kill.victim]()
    for pid in killed:
        # What ended by itself in between cannot be killed any more.
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def worker(stack: Stack, version: int) -> int | None:
    """The process that deploys a version, or did: its run may be over by now."""
    for run_id, run in stack.runs().items():
        if run["tags"].get("housing/model_version") == str(version):
            return stack.run_worker(run_id) or None
    return None


def group(leader: int) -> list[int]:
    """The processes that share a leader's process group, the leader first."""
    members = [leader]
    for process in psutil.Process(leader).children(recursive=True):
        try:
            if os.getpgid(process.pid) == os.getpgid(leader):
                members.append(process.pid)
        except ProcessLookupError:
            continue
    return members


def api_processes(stack: Stack) -> list[int]:
    """The processes that answer requests, without the one that tracks shared resources for Python."""
    children = psutil.Process(stack.pid("api")).children()
    return [child.pid for child in children if "resource_tracker" not in " ".join(child.cmdline())]
