"""Settings of the web app, read from the environment (and `.env`) on request, never on import."""

from typing import Self

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from housing_serving.environment import load_environment
from housing_serving.settings import listed


class WebappSettings(BaseSettings):
    """Where the web app listens, and which API it asks.

    Raises:
        pydantic.ValidationError: a value is malformed; the message names the variable and what to set it to.
    """

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    host: str = "127.0.0.1"
    webapp_port: int = Field(8501, ge=1, le=65535)
    # Of the API beside it, when it is not said where the API is.
    port: int = Field(8080, ge=1, le=65535)
    housing_api_url: str | None = None
    # The keys that the API accepts; the first is sent.
    housing_api_keys: SecretStr | None = None

    @classmethod
    def load(cls) -> Self:
        """Read secrets and `.env` into the environment (what is set there wins), then the settings."""
        load_environment()
        return cls()

    @field_validator("housing_api_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is not None and not url.lower().startswith(("http://", "https://")):
            raise ValueError(f"holds {url!r}: set it to the API's http(s) address, or remove it")
        return url

    @property
    def api_url(self) -> str:
        """The API's address, without a slash at the end."""
        return (self.housing_api_url or f"http://127.0.0.1:{self.port}").rstrip("/")

    @property
    def api_key(self) -> str | None:
        """What the API is to be shown; None where it asks for nothing."""
        keys = listed(self.housing_api_keys.get_secret_value()) if self.housing_api_keys else ()
        return keys[0] if keys else None
