"""Settings of the service, read from the environment (and `.env`) on request, never on import.

The names are the project's one spelling everywhere; an empty value counts as not set.
"""

from pathlib import Path
from typing import Literal, Self

from dotenv import load_dotenv
from pydantic import Field, model_validator
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
    housing_home: Path = Path(".housing")
    housing_deployment: Literal["local", "gcp"] = "local"
    gcp_project_id: str | None = None
    gcs_bucket_name: str | None = None
    # A bundle's directory; wins over everything else.
    local_model_path: Path | None = None
    # Prefix of a bundle in the bucket; wins over the release record.
    gcs_model_path: str | None = None
    mlflow_model_name: str = "housing_price_model"
    # How often a service without a model looks again.
    housing_model_poll_seconds: float = Field(5.0, gt=0)

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
