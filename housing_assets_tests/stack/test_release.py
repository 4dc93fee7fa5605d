"""A release from the Dagster UI to every process: the gate decides, the sensor deploys, a kill is mended.

Runs after the backfill, whose first version is released by the sensor.
"""

import os
import signal
import time

import pytest

from housing_assets.deployment.fleet import FleetTarget
from housing_assets.storage import open_store
from housing_assets_tests.running_stack import Stack, wait_for
from housing_assets_tests.stack.conftest import DisturbedBackfill
from housing_assets_tests.stack.released import (
    MODEL,
    PROCESSES,
    aliased,
    all_versions,
    callers,
    deployed,
    launch,
    release_of,
    serving,
)
from housing_serving.releases import change

TICKS = """query ($name: String!) {sensorOrError(sensorSelector: {sensorName: $name,
  repositoryLocationName: "housing", repositoryName: "__repository__"}) {... on Sensor {
  sensorState {ticks(limit: 50) {status skipReason runIds error {message}}}}}}"""
# On a machine that does much else besides: after a kill, 15 s until it is noticed, a new run, a new trial.
SECONDS = 400.0


def test_what_the_gate_let_pass_is_deployed_in_order_and_nothing_else(
    stack: Stack, backfill: DisturbedBackfill
) -> None:
    versions = sorted(all_versions(stack), key=lambda version: int(version.version))
    winners = [version for version in versions if version.tags["promotion"] == "promote"]
    numbers = [int(version.version) for version in winners]
    wait_for("their deployment", lambda: deployed(stack) == numbers, SECONDS)
    assert 1 < len(winners) < len(versions)
    # Never an older week in place of a newer one, and each has beaten the one that served until then.
    weeks = [version.tags["snapshot"] for version in winners]
    assert weeks == sorted(set(weeks))
    beaten = [version.tags["promotion_champion"] for version in winners]
    assert beaten == ["none", *map(str, numbers[:-1])]
    assert aliased(stack, "production") == numbers[-1]
    assert serving(stack) == {str(numbers[-1]): PROCESSES}


def test_a_version_that_lost_stays_in_staging_with_its_report_and_the_tick_says_why(
    stack: Stack, backfill: DisturbedBackfill
) -> None:
    numbers = [int(version.version) for version in all_versions(stack)]
    assert aliased(stack, "staging") == max(numbers)
    loser = next(version for version in all_versions(stack) if version.tags["promotion"] == "keep")
    folder = stack.home / "storage" / "models" / MODEL / loser.version
    assert loser.tags["promotion_reason"][1:] in (folder / "promotion.md").read_text()
    stays = f"version {loser.version} stays in staging: {loser.tags['promotion_reason']}"
    wait_for(
        "a tick that says so",
        lambda: any(stays in reason for reason in skip_reasons(stack, "redeploy_api_on_new_model")),
        SECONDS,
    )


def test_a_better_model_materialized_in_the_ui_reaches_every_process(
    stack: Stack, backfill: DisturbedBackfill, better: int, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    [before] = serving(stack)
    with callers(stack):
        wait_for("every process with it", lambda: serving(stack) == {str(better): PROCESSES}, SECONDS)
        seconds = time.monotonic() - begun
    with capsys.disabled():
        print(f"\nfrom the materialization to every process: {seconds:.1f} s")  # noqa: T201
    # Beside other tests on the same processors it would be their time that is measured.
    if "PYTEST_XDIST_WORKER" not in os.environ:
        assert seconds < 45
    wait_for("the alias", lambda: aliased(stack, "production") == better, 60)
    assert aliased(stack, "previous") == int(before)
    wait_for("the end of its run", lambda: deployed(stack)[-1] == better, SECONDS)


def test_a_deployment_whose_process_is_killed_is_taken_up_again(stack: Stack, better: int) -> None:
    stack.housing("release", "rollback", "--reason", "to deploy it again")
    first = aliased(stack, "production")
    assert first != better
    config = {"ops": {"api_deployment": {"config": {"model_version": better}}}}
    run_id = launch(stack, "deployment_job", config, {})
    with callers(stack):
        wait_for("a trial", lambda: release_of(stack)["canary_version"] == better, SECONDS)
        os.kill(stack.run_worker(run_id), signal.SIGKILL)
        os.kill(stack.pid("dagster-daemon"), signal.SIGKILL)
        wait_for("the version", lambda: serving(stack) == {str(better): PROCESSES}, SECONDS)
    again = wait_for("the second run", lambda: retry_of(stack, run_id), SECONDS)
    assert stack.wait_for_end(again, SECONDS)["status"] == "SUCCESS"
    assert stack.runs()[run_id]["status"] == "FAILURE"
    record = release_of(stack)
    assert (record["stable_version"], record["canary_version"]) == (better, None)
    assert [entry["action"] for entry in record["history"]][-2:] == ["canary", "promote"]
    assert (aliased(stack, "production"), aliased(stack, "previous")) == (better, first)


def test_a_trial_that_nobody_watches_any_more_is_ended(stack: Stack, better: int) -> None:
    stack.housing("release", "rollback", "--reason", "to leave a trial behind")
    store = open_store(str(stack.home / "storage"))
    step = change("canary", better, "nobody", "10 %")
    stable = release_of(stack)["stable_version"]
    FleetTarget(store, []).start_canary(better, 10, stable=stable, owner="no-such-run", change=step)
    wait_for("its end", lambda: release_of(stack)["canary_version"] is None, SECONDS)
    last = release_of(stack)["history"][-1]
    assert (last["action"], last["by"]) == ("abort", "keep_release_in_step")
    assert "has ended without a decision" in last["reason"]


def retry_of(stack: Stack, run_id: str) -> str | None:
    """The run that took up what another one left."""
    return next((each for each, run in stack.runs().items() if run["parentRunId"] == run_id), None)


def skip_reasons(stack: Stack, sensor: str) -> list[str]:
    """What a sensor said when it requested nothing."""
    ticks = stack.graphql(TICKS, name=sensor)["sensorOrError"]["sensorState"]["ticks"]
    assert [tick["error"]["message"] for tick in ticks if tick["error"]] == []
    return [tick["skipReason"] for tick in ticks if tick["skipReason"]]
