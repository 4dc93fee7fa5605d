"""Settings of the service, read from the environment (and `.env`) on request, never on import.

The names are the project's one spelling everywhere; an empty value counts as not set.
"""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from housing_serving.environment import load_environment

MIN_KEY_CHARACTERS = 16
_PLACEHOLDERS = ("your-", "your_", "<", "changeme", "change-me", "change_me", "replace", "example", "secret")
# As browsers write it: lower case, no path.
_ORIGIN = re.compile(r"https?://[a-z0-9.:\[\]-]+")


def listed(text: str) -> tuple[str, ...]:
    """The parts of a list that is separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


class ServingSettings(BaseSettings):
    """Where the service listens and which model it serves.

    Raises:
        pydantic.ValidationError: a value is missing, malformed or an unfilled placeholder;
            the message names the variable and what to set it to.
    """

    # Fields are named as their variables: an alias would let the bare name (`HOME`) be read as well.
    # Inputs may be keys, and errors end up in logs.
    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=1, le=65535)
    # Processes that share the port.
    web_concurrency: int = Field(1, ge=1, le=64)
    housing_home: Path = Path(".housing")
    housing_deployment: Literal["local", "gcp"] = "local"
    # After SIGTERM: for load balancers to notice, and for callers to be told to close their connections.
    housing_drain_seconds: float = Field(1.0, ge=0)
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

    # How often the release record is looked at, at the longest.
    housing_release_poll_seconds: float = Field(1.0, gt=0)

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
        """Read secrets and `.env` into the environment (what is set there already wins), then the settings.

        Libraries that read their own names (`STORAGE_EMULATOR_HOST`) then see them too.
        """
        load_environment()
        return cls()

    @field_validator("housing_api_keys")
    @classmethod
    def _keys_cannot_be_guessed(cls, keys: SecretStr | None) -> SecretStr | None:
        parts = listed(keys.get_secret_value()) if keys else ()
        if keys and not parts:
            raise ValueError("holds no key: set keys separated by commas, or remove it")
        for number, key in enumerate(parts, 1):
            if len(key) < MIN_KEY_CHARACTERS:
                problem = f"is shorter than {MIN_KEY_CHARACTERS} characters"
            elif key.lower().startswith(_PLACEHOLDERS) or len(set(key)) < 5:
                problem = "is a placeholder"
            elif not key.isascii() or not key.isprintable() or " " in key:
                problem = "has characters other than ASCII letters, digits and signs"
            else:
                continue
            raise ValueError(f"key {number} {problem}: set one from `openssl rand -hex 32`, or remove it")
        return keys

    @field_validator("housing_rate_limit")
    @classmethod
    def _rate_limit_is_readable(cls, text: str | None) -> str | None:
        if text is None:
            return None
        from limits import parse_many  # noqa: PLC0415  (takes a tenth of a second, and is seldom needed)

        try:
            amounts = [item.amount for item in parse_many(text)]
        except ValueError:
            amounts = []
        if not amounts or not all(amounts):
            raise ValueError(f"holds {text!r}: set it as in 100/minute or 10/second;1000/hour, or remove it")
        return text

    @field_validator("housing_cors_origins")
    @classmethod
    def _origins_are_origins(cls, text: str | None) -> str | None:
        parts = listed(text) if text else ()
        wrong = [part for part in parts if part != "*" and not _ORIGIN.fullmatch(part)]
        if text and (wrong or not parts):
            found = repr(wrong[0] if wrong else text)
            example = "https://app.example.org (lower case, no path)"
            raise ValueError(f"holds {found}: set origins as in {example}, or remove it")
        return text

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
