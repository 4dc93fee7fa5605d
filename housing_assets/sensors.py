"""Sensors: what the graph does by itself when something happens."""

import dagster as dg

from housing_assets.orphans import fail_orphans
from housing_assets.tracking import TrackingResource

MLFLOW_STATUS = {
    dg.DagsterRunStatus.SUCCESS: "FINISHED",
    dg.DagsterRunStatus.FAILURE: "FAILED",
    dg.DagsterRunStatus.CANCELED: "KILLED",
}


def close_tracking(status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    """A sensor that gives the MLflow runs of an ended Dagster run its outcome."""
    outcome = MLFLOW_STATUS[status]

    @dg.run_status_sensor(
        run_status=status,
        name=f"close_tracking_on_{status.value.lower()}",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"When a run ends with {status.value}: marks its MLflow parent, and children that a killed "
            f"process left running, as {outcome}."
        ),
    )
    def close(context: dg.RunStatusSensorContext, tracking: TrackingResource) -> None:
        closed = tracking.runs.close_parent(context.dagster_run.run_id, outcome)
        context.log.info("closed %d MLflow runs of %s", len(closed), context.dagster_run.run_id)

    return close


@dg.sensor(
    name="fail_orphaned_runs",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Every 15 seconds: reports runs whose process on this machine was killed as failed, so that they "
        "neither stay STARTED for ever nor block the queue. Crashed runs are then retried by the instance."
    ),
)
def fail_orphaned_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Look for orphaned runs and say what was found."""
    failed = fail_orphans(context.instance)
    return dg.SkipReason(f"reported as failed: {', '.join(failed)}" if failed else "no orphaned runs")


SENSORS = [*(close_tracking(status) for status in MLFLOW_STATUS), fail_orphaned_runs]
