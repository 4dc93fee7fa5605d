"""A deployment as values: the one function that maps settings to the resources of the graph."""

import dagster as dg
from dagster_gcp import GCSResource

from housing_assets.alerts.resource import AlertsResource
from housing_assets.compute import ComputeResource
from housing_assets.deployment.resource import DeploymentResource
from housing_assets.io_managers import HousingIOManager
from housing_assets.registry import RegistryResource
from housing_assets.resources import FeatureResource, MonitoringResource, SourceResource, StorageResource
from housing_assets.settings import Executor, Settings
from housing_assets.sweep_engines import SweepResource
from housing_assets.tracking import TrackingResource


def build_resources(settings: Settings) -> dict[str, object]:
    """Resources by key; the keys are the same in every deployment."""
    storage = StorageResource(root=settings.storage_root, gcs=GCSResource(project=settings.gcp_project_id))
    return {
        "storage": storage,
        "io_manager": HousingIOManager(storage=storage),
        "source": SourceResource(location=settings.source_uri, sha256=settings.source_sha256),
        "compute": ComputeResource(storage=storage, address=settings.compute),
        "features": FeatureResource(),
        "tracking": TrackingResource(
            storage=storage,
            mlflow_tracking_uri=settings.tracking_uri,
            mlflow_experiment=settings.mlflow_experiment,
            wandb_project=settings.wandb_project,
            wandb_entity=settings.wandb_entity,
            wandb_online=settings.wandb_api_key is not None,
            wandb_folder=str((settings.home / "wandb").resolve()),
        ),
        "sweep": SweepResource(
            folder=str((settings.home / "sweeps").resolve()),
            compute=settings.compute,
            wandb_project=settings.wandb_project,
            wandb_entity=settings.wandb_entity,
            wandb_online=settings.wandb_api_key is not None,
            wandb_folder=str((settings.home / "wandb").resolve()),
        ),
        "deployment": DeploymentResource(
            storage=storage,
            api_urls=list(settings.fleet_urls),
            # By name: the UI shows what a resource was given.
            api_keys=dg.EnvVar("HOUSING_API_KEYS") if settings.api_keys else None,
            cloud_run=settings.cloud_run,
            canary_percent=settings.canary_percent,
            canary_seconds=settings.canary_window_seconds,
            canary_min_requests=settings.canary_min_requests,
            canary_promote_when_quiet=settings.canary_promote_when_quiet,
        ),
        "monitoring": MonitoringResource(running_day_minutes=settings.monitoring_minutes),
        "alerts": AlertsResource(
            storage=storage,
            **settings.alerts,
            # By name, as above.
            webhook_url=dg.EnvVar("HOUSING_ALERT_WEBHOOK_URL") if settings.alert_webhook_url else None,
            smtp_password=dg.EnvVar("SMTP_PASSWORD") if settings.smtp_password else None,
        ),
        "registry": RegistryResource(
            tracking_uri=settings.tracking_uri, model_name=settings.mlflow_model_name
        ),
    }


def build_executor(settings: Settings) -> dg.ExecutorDefinition:
    """How the steps of a run execute, by value."""
    if settings.executor is Executor.MULTIPROCESS:
        return dg.multiprocess_executor
    if settings.executor is Executor.K8S:
        from dagster_k8s import k8s_job_executor  # noqa: PLC0415  (an optional dependency)

        executor: dg.ExecutorDefinition = k8s_job_executor
        return executor
    return dg.in_process_executor
