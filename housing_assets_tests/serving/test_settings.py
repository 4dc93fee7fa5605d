"""Service settings: the environment's names, defaults, and errors that say what to set."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from housing_serving.settings import ServingSettings


def test_defaults_are_a_local_service_on_loopback() -> None:
    settings = ServingSettings.load()

    assert (settings.host, settings.port, settings.housing_deployment) == ("127.0.0.1", 8080, "local")
    assert (settings.housing_home, settings.mlflow_model_name) == (Path(".housing"), "housing_price_model")
    assert (settings.local_model_path, settings.gcs_model_path, settings.gcs_bucket_name) == (None,) * 3
    assert settings.housing_model_poll_seconds == 5.0


def test_every_value_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, object] = {
        "host": "0.0.0.0",
        "port": 9000,
        "web_concurrency": 3,
        "housing_home": Path("/data"),
        "housing_deployment": "gcp",
        "housing_drain_seconds": 2.5,
        "housing_log_level": "WARNING",
        "mlflow_tracking_uri": "http://mlflow:5000",
        "mlflow_tracking_username": "reader",
        "mlflow_tracking_password": "a password",
        "mlflow_tracking_token": "a token",
        "mlflow_model_name": "m",
        "mlflow_model_alias": "staging",
        "gcp_project_id": "my-project",
        "gcs_bucket_name": "my-bucket",
        "gcs_model_path": "models/m/1",
        "local_model_path": Path("/bundle"),
        "housing_source_timeout_seconds": 3.0,
        "housing_model_poll_seconds": 0.5,
        "housing_release_poll_seconds": 2.0,
        "housing_api_keys": "0123456789abcdef0123,fedcba98765432100000",
        "housing_rate_limit": "100/minute",
        "housing_cors_origins": "https://app.acme.example",
        "forwarded_allow_ips": "10.0.0.1",
        "housing_prediction_log": False,
        "housing_prediction_log_seconds": 5.0,
        "wandb_api_key": "k" * 40,
        "wandb_project": "p",
        "wandb_entity": "e",
    }
    for name, value in values.items():
        monkeypatch.setenv(name.upper(), str(value))

    read = ServingSettings.load().model_dump()

    assert {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in read.items()
    } == values


def test_environment_wins_over_the_env_file_and_empty_counts_as_not_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text("PORT=9001\nMLFLOW_MODEL_NAME=from_file\nLOCAL_MODEL_PATH=\n")
    monkeypatch.setenv("PORT", "9002")
    # Set and removed again so that what load() adds to the environment is undone.
    for name in ("MLFLOW_MODEL_NAME", "LOCAL_MODEL_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    settings = ServingSettings.load()

    assert (settings.port, settings.mlflow_model_name, settings.local_model_path) == (9002, "from_file", None)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"HOUSING_DEPLOYMENT": "gcp"}, "GCS_BUCKET_NAME is not set: .*HOUSING_DEPLOYMENT=gcp needs it"),
        ({"GCS_MODEL_PATH": "models/m/1"}, "GCS_BUCKET_NAME is not set: .*GCS_MODEL_PATH needs it"),
        ({"GCS_BUCKET_NAME": "your-bucket"}, "GCS_BUCKET_NAME holds 'your-bucket': set a real name"),
        ({"GCS_MODEL_PATH": "gs://b/models"}, "GCS_MODEL_PATH holds 'gs://b/models': .*without gs://"),
        ({"HOUSING_DEPLOYMENT": "aws"}, "housing_deployment"),
        ({"PORT": "0"}, "port"),
        ({"HOUSING_MODEL_POLL_SECONDS": "0"}, "housing_model_poll_seconds"),
    ],
)
def test_unusable_values_name_the_variable(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError, match=message):
        ServingSettings.load()
