"""Service settings: the environment's names, defaults, and errors that say what to set."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from housing_serving.settings import ServingSettings


def test_defaults_are_a_local_service_on_loopback() -> None:
    settings = ServingSettings.load()

    assert (settings.host, settings.port, settings.housing_deployment) == ("127.0.0.1", 8080, "local")
    assert (settings.housing_home, settings.mlflow_model_name) == (Path(".housing"), "housing_price_model")
    assert (settings.local_model_path, settings.gcs_model_path, settings.gcs_bucket_name) == (None,) * 3
    assert settings.housing_model_poll_seconds == 5.0


def test_every_value_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HOST": "0.0.0.0",
        "PORT": "9000",
        "HOUSING_HOME": "/data",
        "HOUSING_DEPLOYMENT": "gcp",
        "GCP_PROJECT_ID": "my-project",
        "GCS_BUCKET_NAME": "my-bucket",
        "LOCAL_MODEL_PATH": "/bundle",
        "GCS_MODEL_PATH": "models/m/1",
        "MLFLOW_MODEL_NAME": "m",
        "HOUSING_MODEL_POLL_SECONDS": "0.5",
    }.items():
        monkeypatch.setenv(name, value)

    assert ServingSettings.load().model_dump() == {
        "host": "0.0.0.0",
        "port": 9000,
        "housing_home": Path("/data"),
        "housing_deployment": "gcp",
        "gcp_project_id": "my-project",
        "gcs_bucket_name": "my-bucket",
        "local_model_path": Path("/bundle"),
        "gcs_model_path": "models/m/1",
        "mlflow_model_name": "m",
        "housing_model_poll_seconds": 0.5,
    }


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
