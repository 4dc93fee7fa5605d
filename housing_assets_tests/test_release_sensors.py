"""The sensor that redeploys: which versions it requests, how often, and what it says when it does not."""

import dagster as dg
import pytest

from housing_assets.jobs import deployment_job
from housing_assets.release_sensors import is_over, redeploy_api_on_new_model


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


def register(instance: dg.DagsterInstance, version: int, decision: str, reason: str = "because") -> None:
    """A materialization of `registered_model`, with the metadata that the asset gives it."""
    metadata = {"model_version": version, "promotion": decision, "promotion_reason": reason}
    instance.report_runless_asset_event(
        dg.AssetMaterialization("registered_model", partition="2025-01-05", metadata=metadata)
    )


def tick(instance: dg.DagsterInstance, cursor: str | None) -> tuple[list[dg.RunRequest], str, str | None]:
    """Run requests, skip message and the next cursor of one tick."""
    context = dg.build_sensor_context(instance, cursor=cursor)
    result = redeploy_api_on_new_model(context)
    if isinstance(result, dg.SkipReason):
        return [], str(result.skip_message), context.cursor
    assert isinstance(result, dg.SensorResult)
    return list(result.run_requests or []), "", context.cursor


def version_of(request: dg.RunRequest) -> int:
    version: int = request.run_config["ops"]["api_deployment"]["config"]["model_version"]
    return version


def test_without_a_model_there_is_nothing_to_do(instance: dg.DagsterInstance) -> None:
    requests, message, cursor = tick(instance, None)
    assert (requests, cursor) == ([], None)
    assert message == "no model version was registered since the last look"


def test_a_winner_is_requested_once(instance: dg.DagsterInstance) -> None:
    register(instance, 1, "promote")
    [request], _, cursor = tick(instance, None)
    assert version_of(request) == 1
    assert request.tags["housing/model_version"] == "1"
    assert tick(instance, cursor) == ([], "no model version was registered since the last look", cursor)


def test_a_sensor_that_lost_its_cursor_asks_with_the_same_run_key(instance: dg.DagsterInstance) -> None:
    register(instance, 1, "promote")
    [first], _, _ = tick(instance, None)
    [again], _, _ = tick(instance, None)
    # Dagster starts one run per key, whatever happens to the daemon in between.
    assert first.run_key == again.run_key


def test_a_registry_that_starts_again_at_one_is_told_apart(instance: dg.DagsterInstance) -> None:
    register(instance, 1, "promote")
    [first], _, cursor = tick(instance, None)
    register(instance, 1, "promote")
    [second], _, _ = tick(instance, cursor)
    assert first.run_key != second.run_key


def test_a_version_that_lost_is_left_in_staging_and_the_tick_says_why(instance: dg.DagsterInstance) -> None:
    register(instance, 1, "keep", "it is 2.0 % worse")
    requests, message, cursor = tick(instance, None)
    assert requests == []
    assert message == "version 1 stays in staging: it is 2.0 % worse"
    assert tick(instance, cursor)[0] == []


def test_of_several_winners_between_two_looks_the_newest_is_requested(instance: dg.DagsterInstance) -> None:
    register(instance, 1, "promote")
    _, _, cursor = tick(instance, None)
    for version, decision in ((2, "promote"), (3, "keep"), (4, "promote"), (5, "keep")):
        register(instance, version, decision)
    requests, _, cursor = tick(instance, cursor)
    assert [version_of(request) for request in requests] == [4]
    assert tick(instance, cursor)[0] == []


def test_a_model_that_no_gate_has_judged_is_not_deployed(instance: dg.DagsterInstance) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization("registered_model", metadata={"model_version": 9})
    )
    requests, message, _ = tick(instance, None)
    assert (requests, message) == (
        [],
        "version 9 stays in staging: no promotion gate has judged it",
    )


def test_the_first_look_considers_only_the_newest_version(instance: dg.DagsterInstance) -> None:
    for version in (1, 2, 3):
        register(instance, version, "promote")
    [request], _, _ = tick(instance, None)
    assert version_of(request) == 3


def run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **tags: str) -> str:
    """A stored run in some state."""
    stored = instance.create_run_for_job(dg.job(name="any")(lambda: None), status=status, tags=tags)
    return stored.run_id


def test_a_trial_is_over_with_the_last_run_of_its_owner(instance: dg.DagsterInstance) -> None:
    going = run(instance, dg.DagsterRunStatus.STARTED)
    ended = run(instance, dg.DagsterRunStatus.FAILURE)
    to_be_retried = run(instance, dg.DagsterRunStatus.FAILURE, **{"dagster/will_retry": "true"})
    assert not is_over(instance, going)
    assert is_over(instance, ended)
    assert not is_over(instance, to_be_retried)
    assert is_over(instance, "no-such-run")
    assert is_over(instance, None)


def test_the_deployment_job_runs_one_at_a_time() -> None:
    assert deployment_job.tags["housing/kind"] == "deployment"
