"""Settings of the service, read from the environment (and `.env`) on request, never on import.

The names are the project's one spelling everywhere; an empty value counts as not set.
"""

from pathlib import Path
from typing import Literal, Self

from dotenv import load_dotenv
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServingSettings(BaseSettings):
    """Where the service listens and which model it serves.

    Raises:
        pydantic.ValidationError: a value is missing, malformed or an unfilled placeholder;
            the message names the variable and what to set it to.
    """

    # Fields are named as their variables: an alias would let the bare name (`HOME`) be read as well.
    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True)

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=1, le=65535)
    # Processes that share the port.
    web_concurrency: int = Field(1, ge=1, le=64)
    housing_home: Path = Path(".housing")
    housing_deployment: Literal["local", "gcp"] = "local"
    housing_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    # Model sources, asked in this order: the registry's alias, the bucket, the local folder.
    # Without an http(s) address there is no registry to ask: the embedded one belongs to training.
    mlflow_tracking_uri: str | None = None
    mlflow_tracking_username: str | None = None
    mlflow_tracking_password: SecretStr | None = None
    mlflow_tracking_token: SecretStr | None = None
    mlflow_model_name: str = "housing_price_model"
    mlflow_model_alias: str = "production"
    gcp_project_id: str | None = None
    gcs_bucket_name: str | None = None
    # Prefix of a bundle in the bucket; wins over the release record there.
    gcs_model_path: str | None = None
    # A bundle's directory; wins over what lies in HOUSING_HOME.
    local_model_path: Path | None = None
    # How long one source may take to name and deliver a model.
    housing_source_timeout_seconds: float = Field(10.0, gt=0)
    # How often a service without the model of its first source looks again.
    housing_model_poll_seconds: float = Field(5.0, gt=0)

    # Callers. Lists are separated by commas; empty means that the protection is off.
    housing_api_keys: SecretStr | None = None
    # As "100/minute" or "10/second;1000/hour", per caller and process.
    housing_rate_limit: str | None = None
    housing_cors_origins: str | None = None
    # Proxies whose X-Forwarded-For names the caller.
    forwarded_allow_ips: str = "127.0.0.1"

    # What was answered, as Parquet in the storage root.
    housing_prediction_log: bool = True
    housing_prediction_log_seconds: float = Field(60.0, gt=0)
    wandb_api_key: SecretStr | None = None
    wandb_project: str = "housing-mlops-gcp"
    wandb_entity: str | None = None

    @classmethod
    def load(cls) -> Self:
        """Read `.env` into the environment (what is set there already wins), then the settings.

        Libraries that read their own names (`STORAGE_EMULATOR_HOST`) then see them too.
        """
        load_dotenv(".env", override=False)
        return cls()

    @model_validator(mode="after")
    def _bucket_is_known_where_needed(self) -> Self:
        names = {"GCS_BUCKET_NAME": self.gcs_bucket_name, "GCS_MODEL_PATH": self.gcs_model_path}
        for name, value in names.items():
            if value and value.lower().startswith(("your-", "your_", "<", "changeme", "gs://")):
                raise ValueError(f"{name} holds {value!r}: set a real name, without gs://, or remove it")
        if self.gcs_bucket_name is None and (self.housing_deployment == "gcp" or self.gcs_model_path):
            needed_by = "HOUSING_DEPLOYMENT=gcp" if self.housing_deployment == "gcp" else "GCS_MODEL_PATH"
            raise ValueError(
                f"GCS_BUCKET_NAME is not set: set it to an existing bucket ({needed_by} needs it)"
            )
        return self
