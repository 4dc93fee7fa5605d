"""Settings of the asset graph, read from the environment (and `.env`) on request, never on import.

The names are the project's one spelling everywhere; `.env.example` lists them all.
"""

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from housing_serving.environment import load_environment

POSTGRES_VARIABLE = "DAGSTER_POSTGRES_URL"
POSTGRES_SCHEMES = ("postgresql://", "postgresql+")
PLACEHOLDERS = frozenset({"changeme", "change-me", "todo", "xxx", "none", "null"})


class Executor(StrEnum):
    """How the steps of a run execute: a step in its own process costs seconds."""

    IN_PROCESS = "in_process"
    MULTIPROCESS = "multiprocess"
    K8S = "k8s"


class RunLauncher(StrEnum):
    """Where runs execute: as processes beside the daemon, or as jobs of a Kubernetes cluster."""

    DEFAULT = "default"
    K8S = "k8s"


class DeploymentTargetName(StrEnum):
    """Where a registered model is served."""

    FLEET = "fleet"
    CLOUD_RUN = "cloud_run"


class Deployment(StrEnum):
    """Where the graph runs: values differ between deployments, code does not."""

    LOCAL = "local"
    GCP = "gcp"


def is_placeholder(value: str) -> bool:
    """Whether a value is an unfilled template (`your-…`, `<…>`, `changeme`) or blank."""
    text = value.strip().lower()
    return not text or text in PLACEHOLDERS or text.startswith(("your-", "your_", "<"))


def first_key(keys: str | None) -> str | None:
    """The first of some keys that are separated by commas."""
    return next((key.strip() for key in (keys or "").split(",") if key.strip()), None)


class Settings(BaseSettings):
    """Values of one deployment.

    Raises:
        pydantic.ValidationError: a value is missing, malformed or an unfilled placeholder;
            the message names the variable and what to set it to.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore")

    deployment: Deployment = Field(Deployment.LOCAL, validation_alias="HOUSING_DEPLOYMENT")
    home: Path = Field(Path(".housing"), validation_alias="HOUSING_HOME")
    source_uri: str | None = Field(None, validation_alias="HOUSING_SOURCE_URI")
    source_sha256: str | None = Field(None, validation_alias="HOUSING_SOURCE_SHA256")
    gcp_project_id: str | None = Field(None, validation_alias="GCP_PROJECT_ID")
    gcs_bucket_name: str | None = Field(None, validation_alias="GCS_BUCKET_NAME")
    gcp_region: str = Field("us-central1", validation_alias="GCP_REGION")
    mlflow_tracking_uri: str | None = Field(None, validation_alias="MLFLOW_TRACKING_URI")
    mlflow_experiment: str = Field("housing-price", validation_alias="MLFLOW_EXPERIMENT_NAME")
    mlflow_model_name: str = Field("housing_price_model", validation_alias="MLFLOW_MODEL_NAME")
    wandb_api_key: SecretStr | None = Field(None, validation_alias="WANDB_API_KEY")
    wandb_project: str = Field("housing-mlops-gcp", validation_alias="WANDB_PROJECT")
    wandb_entity: str | None = Field(None, validation_alias="WANDB_ENTITY")
    # Addresses of the API processes, separated by commas; the one of `make up` when not set.
    api_urls: str | None = Field(None, validation_alias="HOUSING_API_URLS")
    api_keys: SecretStr | None = Field(None, validation_alias="HOUSING_API_KEYS")
    # Where a registered model is served: by processes that follow the release record, or by Cloud Run.
    deployment_target: DeploymentTargetName = Field(
        DeploymentTargetName.FLEET, validation_alias="HOUSING_DEPLOYMENT_TARGET"
    )
    cloud_run_image: str | None = Field(None, validation_alias="CLOUD_RUN_IMAGE")
    cloud_run_service: str = Field("housing-price-api", validation_alias="CLOUD_RUN_SERVICE")
    cloud_run_service_account: str | None = Field(None, validation_alias="CLOUD_RUN_SERVICE_ACCOUNT")
    cloud_run_ingress: Literal["internal", "internal-and-cloud-load-balancing", "all"] = Field(
        "internal", validation_alias="CLOUD_RUN_INGRESS"
    )
    cloud_run_invokers: str | None = Field(None, validation_alias="CLOUD_RUN_INVOKERS")
    cloud_run_min_instances: int = Field(0, ge=0, validation_alias="CLOUD_RUN_MIN_INSTANCES")
    cloud_run_max_instances: int = Field(10, ge=1, validation_alias="CLOUD_RUN_MAX_INSTANCES")
    cloud_run_cpu: str = Field("1", validation_alias="CLOUD_RUN_CPU")
    cloud_run_memory: str = Field("1Gi", validation_alias="CLOUD_RUN_MEMORY")
    # Other addresses of the Admin and Monitoring APIs, such as a local stand-in's.
    cloud_run_api_endpoint: str | None = Field(None, validation_alias="CLOUD_RUN_API_ENDPOINT")
    cloud_run_monitoring_endpoint: str | None = Field(None, validation_alias="CLOUD_RUN_MONITORING_ENDPOINT")
    # What a new version must show before it answers everything: share of the requests, seconds, requests.
    canary_percent: float = Field(10.0, gt=0, lt=100, validation_alias="HOUSING_CANARY_PERCENT")
    canary_seconds: float | None = Field(None, gt=0, validation_alias="HOUSING_CANARY_SECONDS")
    canary_min_requests: int = Field(50, ge=1, validation_alias="HOUSING_CANARY_MIN_REQUESTS")
    canary_promote_when_quiet: bool = Field(True, validation_alias="HOUSING_CANARY_PROMOTE_WHEN_QUIET")
    # How often the running day is looked at, once `monitor_running_day` is on.
    monitoring_minutes: float = Field(60.0, validation_alias="HOUSING_MONITORING_MINUTES", gt=0)
    # Who is told of alerts, beside the log.
    alert_webhook_url: SecretStr | None = Field(None, validation_alias="HOUSING_ALERT_WEBHOOK_URL")
    alert_email_to: str | None = Field(None, validation_alias="HOUSING_ALERT_EMAIL_TO")
    alert_email_from: str | None = Field(None, validation_alias="HOUSING_ALERT_EMAIL_FROM")
    alert_wandb: bool = Field(False, validation_alias="HOUSING_ALERT_WANDB")
    smtp_host: str | None = Field(None, validation_alias="SMTP_HOST")
    smtp_port: int = Field(587, ge=1, le=65535, validation_alias="SMTP_PORT")
    smtp_security: Literal["starttls", "tls", "plain"] = Field("starttls", validation_alias="SMTP_SECURITY")
    smtp_username: str | None = Field(None, validation_alias="SMTP_USERNAME")
    smtp_password: SecretStr | None = Field(None, validation_alias="SMTP_PASSWORD")
    # Where Dagster keeps runs and events, in place of SQLite files.
    dagster_postgres_url: SecretStr | None = Field(None, validation_alias=POSTGRES_VARIABLE)
    # Who works on tables in parts and on trials of the sweep: this machine, or a Dask cluster.
    compute: str = Field("local", pattern=r"^(local|dask://.+:\d+)$", validation_alias="HOUSING_COMPUTE")
    run_launcher: RunLauncher = Field(RunLauncher.DEFAULT, validation_alias="HOUSING_RUN_LAUNCHER")
    # What its jobs are made of: service account, config maps and secrets of the environment, namespace.
    k8s_namespace: str = Field("default", validation_alias="HOUSING_K8S_NAMESPACE")
    k8s_image: str | None = Field(None, validation_alias="HOUSING_K8S_IMAGE")
    k8s_service_account: str = Field("dagster", validation_alias="HOUSING_K8S_SERVICE_ACCOUNT")
    k8s_env: str = Field("housing-env", validation_alias="HOUSING_K8S_ENV")
    executor: Executor = Field(Executor.IN_PROCESS, validation_alias="HOUSING_EXECUTOR")
    # Where `housing run` listens, on PORT.
    host: str = Field("127.0.0.1", validation_alias="HOST")
    # The code location of a webserver and a daemon that run elsewhere, as host:port.
    code_server: str | None = Field(None, pattern=r"^[^:/]+:\d+$", validation_alias="HOUSING_CODE_SERVER")
    # Where `housing run mlflow` keeps its records; a SQLite file in HOUSING_HOME when not set.
    mlflow_backend_store_uri: SecretStr | None = Field(None, validation_alias="MLFLOW_BACKEND_STORE_URI")
    port: int = Field(8080, ge=1, le=65535, validation_alias="PORT")
    dagster_port: int = Field(3000, ge=1, le=65535, validation_alias="DAGSTER_PORT")
    mlflow_port: int = Field(5000, ge=1, le=65535, validation_alias="MLFLOW_PORT")
    webapp_port: int = Field(8501, ge=1, le=65535, validation_alias="WEBAPP_PORT")
    exporter_port: int = Field(9109, ge=1, le=65535, validation_alias="HOUSING_EXPORTER_PORT")

    @classmethod
    def load(cls) -> Self:
        """Read secrets and `.env` into the environment (what is set there already wins), then the settings.

        Libraries that read their own names (`WANDB_API_KEY`, `STORAGE_EMULATOR_HOST`) then see them too.
        """
        load_environment()
        return cls()

    @model_validator(mode="after")
    def _deployment_is_complete(self) -> Self:
        problems = self._placeholder_problems()
        if self.deployment is Deployment.GCP:
            required = {
                "GCP_PROJECT_ID": (self.gcp_project_id, "the project that owns the bucket"),
                "GCS_BUCKET_NAME": (self.gcs_bucket_name, "an existing bucket, without gs://"),
                "MLFLOW_TRACKING_URI": (self.mlflow_tracking_uri, "the tracking server's http(s) URL"),
            }
            problems += [
                f"{name} is not set: set it to {meaning} (HOUSING_DEPLOYMENT=gcp needs it)"
                for name, (value, meaning) in required.items()
                if value is None
            ]
        if self.deployment_target is DeploymentTargetName.CLOUD_RUN:
            needed_by = "(HOUSING_DEPLOYMENT_TARGET=cloud_run needs it)"
            if self.deployment is not Deployment.GCP:
                problems.append(f"HOUSING_DEPLOYMENT is not gcp: revisions read the bucket {needed_by}")
            if self.cloud_run_image is None:
                problems.append(f"CLOUD_RUN_IMAGE is not set: set it to the service's image {needed_by}")
        problems += self._postgres_problems()
        problems += self._k8s_problems()
        problems += self._alert_problems()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _postgres_problems(self) -> list[str]:
        if self.dagster_postgres_url is None:
            return []
        if not self.dagster_postgres_url.get_secret_value().startswith(POSTGRES_SCHEMES):
            return [
                f"{POSTGRES_VARIABLE} is no address of a database: set it to postgresql://user:password@host/name"
            ]
        if find_spec("dagster_postgres") is None:
            return [f"{POSTGRES_VARIABLE} needs dagster-postgres: pip install 'housing-assets[postgres]'"]
        return []

    def _k8s_problems(self) -> list[str]:
        wanted = {
            "HOUSING_EXECUTOR": self.executor is Executor.K8S,
            "HOUSING_RUN_LAUNCHER": self.run_launcher is RunLauncher.K8S,
        }
        problems = [
            f"{name}=k8s needs dagster-k8s: pip install 'housing-assets[k8s]'"
            for name, chosen in wanted.items()
            if chosen and find_spec("dagster_k8s") is None
        ]
        if wanted["HOUSING_RUN_LAUNCHER"]:
            if self.k8s_image is None:
                problems.append(
                    "HOUSING_K8S_IMAGE is not set: set it to the image of runs (HOUSING_RUN_LAUNCHER=k8s)"
                )
            if self.dagster_postgres_url is None:
                problems.append(
                    f"{POSTGRES_VARIABLE} is not set: pods share no SQLite file (HOUSING_RUN_LAUNCHER=k8s)"
                )
        elif wanted["HOUSING_EXECUTOR"]:
            problems.append(
                "HOUSING_RUN_LAUNCHER is not k8s: steps in pods need runs in pods (HOUSING_EXECUTOR=k8s)"
            )
        return problems

    def _alert_problems(self) -> list[str]:
        problems = []
        url = self.alert_webhook_url.get_secret_value() if self.alert_webhook_url else None
        if url is not None and not url.lower().startswith(("https://", "http://")):
            problems.append("HOUSING_ALERT_WEBHOOK_URL is no http(s) address: set it to the webhook's")
        if self.alert_email_to is not None and self.smtp_host is None:
            problems.append(
                "SMTP_HOST is not set: set it to the mail server (HOUSING_ALERT_EMAIL_TO needs it)"
            )
        if self.alert_email_to is None and self.smtp_host is not None:
            problems.append("HOUSING_ALERT_EMAIL_TO is not set: set it to who gets mail from SMTP_HOST")
        if (self.smtp_username is None) != (self.smtp_password is None):
            problems.append("one of SMTP_USERNAME and SMTP_PASSWORD is not set: set both, or none of them")
        if self.alert_wandb and self.wandb_api_key is None:
            problems.append("WANDB_API_KEY is not set: set it to a key (HOUSING_ALERT_WANDB needs it)")
        return problems

    def _placeholder_problems(self) -> list[str]:
        problems = []
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            text = value.get_secret_value() if isinstance(value, SecretStr) else value
            if isinstance(text, str) and is_placeholder(text):
                problems.append(
                    f"{field.validation_alias} holds a blank or placeholder value: "
                    "set a real one or remove it"
                )
        return problems

    @property
    def storage_root(self) -> str:
        """The storage root: `gs://bucket` or the absolute path of the local folder."""
        if self.deployment is Deployment.GCP:
            return f"gs://{self.gcs_bucket_name}"
        return str((self.home / "storage").resolve())

    @property
    def fleet_urls(self) -> tuple[str, ...]:
        """Where the API processes answer."""
        listed = self.api_urls or f"http://127.0.0.1:{self.port}"
        return tuple(part.strip().rstrip("/") for part in listed.split(",") if part.strip())

    @property
    def canary_window_seconds(self) -> float:
        """How long a canary is watched; Cloud Run's metrics arrive minutes late."""
        default = 10.0 if self.deployment_target is DeploymentTargetName.FLEET else 600.0
        return self.canary_seconds or default

    @property
    def cloud_run(self) -> dict[str, Any]:
        """The values of `CloudRunSettings`; empty where the target is another."""
        if self.deployment_target is not DeploymentTargetName.CLOUD_RUN:
            return {}
        invokers = [part.strip() for part in (self.cloud_run_invokers or "").split(",") if part.strip()]
        values = {
            "project": self.gcp_project_id,
            "region": self.gcp_region,
            "bucket": self.gcs_bucket_name,
            "model_name": self.mlflow_model_name,
            "image": self.cloud_run_image,
            "service": self.cloud_run_service,
            "service_account": self.cloud_run_service_account,
            "ingress": self.cloud_run_ingress,
            "invokers": invokers,
            "min_instances": self.cloud_run_min_instances,
            "max_instances": self.cloud_run_max_instances,
            "cpu": self.cloud_run_cpu,
            "memory": self.cloud_run_memory,
            "api_endpoint": self.cloud_run_api_endpoint,
            "monitoring_endpoint": self.cloud_run_monitoring_endpoint,
        }
        return {name: value for name, value in values.items() if value is not None}

    @property
    def alerts(self) -> dict[str, Any]:
        """The values of `ChannelValues`, but for the secrets."""
        return {
            "email_to": self.alert_email_to,
            "email_from": self.alert_email_from,
            "smtp_host": self.smtp_host,
            "smtp_port": self.smtp_port,
            "smtp_security": self.smtp_security,
            "smtp_username": self.smtp_username,
            "wandb": self.alert_wandb,
            "wandb_project": self.wandb_project,
            "wandb_entity": self.wandb_entity,
            "wandb_folder": str((self.home / "wandb").resolve()),
        }

    @property
    def alert_secrets(self) -> dict[str, Any]:
        """The secrets among the values of `ChannelValues`, as far as they are set."""
        secrets = {"webhook_url": self.alert_webhook_url, "smtp_password": self.smtp_password}
        return {name: secret.get_secret_value() for name, secret in secrets.items() if secret is not None}

    @property
    def api_key(self) -> str | None:
        """One of the keys that the API accepts."""
        return first_key(self.api_keys.get_secret_value() if self.api_keys else None)

    @property
    def tracking_uri(self) -> str:
        """The MLflow tracking and registry URI: the server's, or the embedded SQLite store."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.mlflow_database}"

    @property
    def mlflow_database(self) -> Path:
        """The SQLite file of the embedded tracking, whether a server stands before it or not."""
        return (self.home / "mlflow" / "mlflow.db").resolve()

    @property
    def dagster_home(self) -> Path:
        """Folder of the Dagster instance."""
        return (self.home / "dagster").resolve()
