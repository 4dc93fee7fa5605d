"""What Dagster loads: assets, checks, jobs, schedules, sensors and the resources of the deployment.

`build_definitions` takes overrides, so tests replace values instead of patching.
"""

from collections.abc import Mapping

import dagster as dg

from housing_assets import assets
from housing_assets.day_sensors import DAY_SENSORS
from housing_assets.deployments import build_executor, build_resources
from housing_assets.freshness import with_freshness
from housing_assets.jobs import data_job, deployment_job, monitoring_job, release_job, training_job
from housing_assets.monitoring_sensors import MONITORING_SENSORS
from housing_assets.release_sensors import RELEASE_SENSORS
from housing_assets.schedules import daily_monitoring, weekly_training
from housing_assets.sensors import SENSORS
from housing_assets.settings import Settings


def build_definitions(
    settings: Settings, resource_overrides: Mapping[str, object] | None = None
) -> dg.Definitions:
    """The whole code location for one deployment."""
    return dg.Definitions(
        assets=[
            with_freshness(one) if isinstance(one, dg.AssetsDefinition) else one
            for one in dg.load_assets_from_package_module(assets)
        ],
        asset_checks=dg.load_asset_checks_from_package_module(assets),
        jobs=[training_job, data_job, deployment_job, release_job, monitoring_job],
        schedules=[weekly_training, daily_monitoring],
        sensors=[*SENSORS, *RELEASE_SENSORS, *MONITORING_SENSORS, *DAY_SENSORS],
        resources={**build_resources(settings), **(resource_overrides or {})},
        executor=build_executor(settings),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The entry point: settings come from the environment and `.env`, when Dagster loads the location."""
    return build_definitions(Settings.load())


def training_job_definition() -> dg.JobDefinition:
    """`training_job` with resources bound, for execution outside of a code location."""
    return build_definitions(Settings.load()).resolve_job_def("training_job")


def deployment_job_definition() -> dg.JobDefinition:
    """`deployment_job`, likewise."""
    return build_definitions(Settings.load()).resolve_job_def("deployment_job")


def monitoring_job_definition() -> dg.JobDefinition:
    """`monitoring_job`, likewise."""
    return build_definitions(Settings.load()).resolve_job_def("monitoring_job")
