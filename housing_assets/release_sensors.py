"""Sensors of the release: a new model is deployed, and what a killed deployment left behind is mended."""

import dagster as dg

from housing_assets.deployment.mending import mend
from housing_assets.deployment.preflight import DECISION_TAG, PROMOTE, REASON_TAG
from housing_assets.deployment.resource import DeploymentResource
from housing_assets.jobs import deployment_job
from housing_assets.registry import RegistryResource

MODEL = dg.AssetKey("registered_model")
SENSOR_SECONDS = 5
MEND_SECONDS = 15
MAX_EVENTS = 50
DEPLOYMENT_TAG = "deployment"


@dg.sensor(
    job=deployment_job,
    name="redeploy_api_on_new_model",
    minimum_interval_seconds=SENSOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "When registered_model has a new version that won the promotion gate: requests one deployment of it. "
        "A version that lost stays in `staging`; the skip reason says why."
    ),
)
def redeploy_api_on_new_model(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Look at every materialization since the last tick, and request the newest winner."""
    records = new_models(context)
    if not records:
        return dg.SkipReason("no model version was registered since the last look")
    context.update_cursor(str(records[-1].storage_id))
    winners = [record for record in records if decision_of(record) == PROMOTE]
    if not winners:
        return dg.SkipReason("; ".join(stays(record) for record in records))
    # Judged against the same version as those before it, of which only one could still be deployed.
    newest = winners[-1]
    version = version_of(newest)
    request = dg.RunRequest(
        # One materialization is one version; a registry that starts again at 1 is told apart.
        run_key=f"{version}-{newest.storage_id}",
        run_config={"ops": {"api_deployment": {"config": {"model_version": version}}}},
        tags={"housing/model_version": str(version)},
    )
    return dg.SensorResult(run_requests=[request])


def new_models(context: dg.SensorEvaluationContext) -> list[dg.EventLogRecord]:
    """Materializations since the cursor, the newest last; without a cursor only the newest."""
    cursor = int(context.cursor) if context.cursor else None
    found = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=MODEL, after_storage_id=cursor),
        limit=MAX_EVENTS if cursor is not None else 1,
        ascending=cursor is not None,
    )
    return list(found.records)


def decision_of(record: dg.EventLogRecord) -> str | None:
    """What the promotion gate decided."""
    return text_of(record, DECISION_TAG)


def version_of(record: dg.EventLogRecord) -> int:
    """The version that was registered."""
    version = text_of(record, "model_version")
    if version is None:
        raise ValueError(f"materialization {record.storage_id} of {MODEL.to_user_string()} names no version")
    return int(version)


def stays(record: dg.EventLogRecord) -> str:
    """Why a version is not deployed."""
    reason = text_of(record, REASON_TAG) or "no promotion gate has judged it"
    return f"version {text_of(record, 'model_version')} stays in staging: {reason}"


def text_of(record: dg.EventLogRecord, name: str) -> str | None:
    """One metadata value of a materialization, as text."""
    materialization = record.asset_materialization
    entry = materialization.metadata.get(name) if materialization else None
    return None if entry is None else str(entry.value)


@dg.run_failure_sensor(
    name="report_failed_deployment",
    monitored_jobs=[deployment_job],
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="When a deployment fails: says so in the log and, with the reason, on the version in MLflow.",
)
def report_failed_deployment(context: dg.RunFailureSensorContext, registry: RegistryResource) -> None:
    """Note the failure where people look for the version."""
    version = context.dagster_run.tags.get("housing/model_version")
    reason = context.failure_event.message or "no message"
    failures = [event.event_specific_data for event in context.get_step_failure_events()]
    for failure in failures:
        reason = getattr(getattr(failure, "user_failure_data", None), "description", None) or reason
    context.log.error("deployment of version %s failed: %s", version or "(staging)", reason)
    if version is not None:
        models = registry.registry()
        models.client.set_model_version_tag(models.name, version, DEPLOYMENT_TAG, f"failed: {reason}"[:5000])


@dg.sensor(
    name="keep_release_in_step",
    minimum_interval_seconds=MEND_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Every 15 seconds: ends a trial whose run has died, and lets the registry's aliases say what the "
        "release says, if a killed process left them apart."
    ),
)
def keep_release_in_step(
    context: dg.SensorEvaluationContext, deployment: DeploymentResource, registry: RegistryResource
) -> dg.SkipReason:
    """Mend what was left half-done, and say what it was."""
    done = mend(
        deployment.target(),
        registry.registry(),
        lambda owner: is_over(context.instance, owner),
        "keep_release_in_step",
    )
    return dg.SkipReason("; ".join(done) or "release and registry agree")


def is_over(instance: dg.DagsterInstance, owner: str | None) -> bool:
    """Whether the run that owns a trial has ended for good; a crashed one may be about to start again."""
    if owner is None:
        return True
    runs = [run for run in (instance.get_run_by_id(owner),) if run is not None]
    runs += instance.get_runs(dg.RunsFilter(tags={"dagster/root_run_id": owner}))
    if any(not run.is_finished for run in runs):
        return False
    retried = {run.parent_run_id for run in runs}
    return not any(run.tags.get("dagster/will_retry") == "true" and run.run_id not in retried for run in runs)


RELEASE_SENSORS = [redeploy_api_on_new_model, report_failed_deployment, keep_release_in_step]
