"""The Dagster instance of a deployment: writes `dagster.yaml` into `HOUSING_HOME/dagster`."""

import os
import warnings
from pathlib import Path
from typing import Any

import yaml

from housing_assets.settings import POSTGRES_VARIABLE, Deployment, RunLauncher, Settings

# A training uses every core, so a backfill runs one at a time, and people still get a second slot.
MAX_CONCURRENT_RUNS = 2
MAX_CONCURRENT_BACKFILL_RUNS = 1
DEQUEUE_SECONDS = 1
POSTGRES_DRIVER = "postgresql+psycopg2"
INSTANCE_CONFIG_MAP = "dagster-instance"
# Of a run that keeps its steps; one whose steps are pods only waits.
RUN_RESOURCES = {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}}


def instance_config(settings: Settings) -> dict[str, Any]:
    """The content of `dagster.yaml`: the same keys in every deployment, other values."""
    return {
        "storage": event_storage(settings),
        "run_launcher": run_launcher(settings),
        "compute_logs": compute_logs(settings),
        "concurrency": {
            "runs": {
                "max_concurrent_runs": MAX_CONCURRENT_RUNS,
                "tag_concurrency_limits": [
                    {"key": "dagster/backfill", "limit": MAX_CONCURRENT_BACKFILL_RUNS},
                    {"key": "housing/kind", "value": "deployment", "limit": 1},
                ],
            }
        },
        # A deployment waits for nobody, so it does not wait for the next look at the queue either.
        "run_queue": {"dequeue_interval_seconds": DEQUEUE_SECONDS},
        # A crashed worker is retried; a failed step (bad data, failed check) is a person's to look at.
        "run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False},
        "run_monitoring": {"enabled": True, "start_timeout_seconds": 90, "poll_interval_seconds": 15},
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
    }


def event_storage(settings: Settings) -> dict[str, Any]:
    """Where runs, events and schedules are kept: PostgreSQL where it is set, else SQLite files.

    The password stays in the environment: the file names the variable.
    """
    if settings.dagster_postgres_url is not None:
        return {"postgres": {"postgres_url": {"env": POSTGRES_VARIABLE}}}
    return {"sqlite": {"base_dir": str(settings.dagster_home)}}


def with_driver(url: str) -> str:
    """The address with the driver that is installed, where it is PostgreSQL's and names none.

    SQLAlchemy would take psycopg 3, which refuses Dagster's `NOTIFY` with a parameter.
    """
    scheme, _, rest = url.partition("://")
    return f"{POSTGRES_DRIVER if scheme == 'postgresql' else scheme}://{rest}"


def run_launcher(settings: Settings) -> dict[str, Any]:
    """Who starts runs: the daemon's machine, or a Kubernetes cluster that has a job for each."""
    if settings.run_launcher is RunLauncher.DEFAULT:
        return {"module": "dagster", "class": "DefaultRunLauncher"}
    return {
        "module": "dagster_k8s",
        "class": "K8sRunLauncher",
        "config": {
            "job_namespace": settings.k8s_namespace,
            "job_image": settings.k8s_image,
            "service_account_name": settings.k8s_service_account,
            # The environment of a pod: a config map of values, and a secret of the same name.
            "env_config_maps": [settings.k8s_env],
            "env_secrets": [settings.k8s_env],
            "dagster_home": "/data/dagster",
            "instance_config_map": INSTANCE_CONFIG_MAP,
            "resources": RUN_RESOURCES,
            "fail_pod_on_run_failure": False,
        },
    }


def compute_logs(settings: Settings) -> dict[str, Any]:
    """Where the output of steps goes: the bucket in `gcp`, else a folder."""
    folder = str(settings.dagster_home / "compute_logs")
    if settings.deployment is Deployment.GCP:
        return {
            "module": "dagster_gcp.gcs.compute_log_manager",
            "class": "GCSComputeLogManager",
            "config": {"bucket": settings.gcs_bucket_name, "prefix": "dagster", "local_dir": folder},
        }
    return {
        "module": "dagster._core.storage.local_compute_log_manager",
        "class": "LocalComputeLogManager",
        "config": {"base_dir": folder},
    }


def create_databases() -> None:
    """Create the instance's tables, before several processes do it at the same time and break them."""
    import dagster as dg  # noqa: PLC0415  (seconds to import)

    with dg.DagsterInstance.get() as instance:
        instance.get_runs_count()


def prepare_instance(settings: Settings) -> Path:
    """Write the instance's `dagster.yaml`, point `DAGSTER_HOME` at it, and return the folder."""
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    text = "# Written by `housing`; change values in .env instead.\n" + yaml.safe_dump(
        instance_config(settings)
    )
    # Whole or not at all: the parts of a deployment may share the folder, and start at the same time.
    written = home / f"dagster.yaml.{os.getpid()}"
    written.write_text(text, encoding="utf-8")
    written.replace(home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(home)
    if settings.dagster_postgres_url is not None:
        os.environ[POSTGRES_VARIABLE] = with_driver(settings.dagster_postgres_url.get_secret_value())
    os.environ["HOUSING_HOME"] = str(settings.home.resolve())
    return home


def quieten_dagster() -> None:
    """Hide what Dagster says about its own API: that is for developers, not for who runs a command."""
    import dagster as dg  # noqa: PLC0415

    for category in (dg.BetaWarning, dg.PreviewWarning):
        warnings.simplefilter("ignore", category)
