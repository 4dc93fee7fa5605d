"""Settings: defaults need no environment; gcp names each missing or placeholder value."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from housing_assets.settings import Deployment, Settings
from housing_serving.settings import ServingSettings

GCP = {
    "HOUSING_DEPLOYMENT": "gcp",
    "GCP_PROJECT_ID": "acme-ml",
    "GCS_BUCKET_NAME": "acme-housing",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)


def test_local_is_the_default_and_needs_nothing(tmp_path: Path) -> None:
    settings = Settings()
    assert settings.deployment is Deployment.LOCAL
    assert settings.storage_root == str(tmp_path / ".housing" / "storage")


def test_gcp_stores_under_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GCP.items():
        monkeypatch.setenv(name, value)
    assert Settings().storage_root == "gs://acme-housing"


@pytest.mark.parametrize("missing", ["GCP_PROJECT_ID", "GCS_BUCKET_NAME", "MLFLOW_TRACKING_URI"])
def test_gcp_names_the_missing_value(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name, value in GCP.items():
        if name != missing:
            monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=f"{missing} is not set: set it to"):
        Settings()


@pytest.mark.parametrize("value", ["your-key-here", "changeme", " ", "<key>"])
def test_a_placeholder_key_counts_as_missing(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", value)
    with pytest.raises(ValidationError, match="WANDB_API_KEY holds a blank or placeholder value"):
        Settings()


def test_the_example_file_lists_every_setting_and_sets_none() -> None:
    example = (Path(__file__).parent.parent / ".env.example").read_text()
    names = {str(field.validation_alias) for field in Settings.model_fields.values()}
    # The service's fields are named as their variables.
    for name in names | {name.upper() for name in ServingSettings.model_fields}:
        assert f"# {name}=" in example, name
    assert all(line.startswith("#") or not line.strip() for line in example.splitlines())
