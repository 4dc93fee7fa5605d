"""Secrets from files, as containers get them."""

import os
from pathlib import Path

import pytest

from housing_assets.settings import Settings
from housing_serving.environment import load_environment

KEY = "0123456789abcdef-key"


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOUSING_SECRETS_DIR", str(tmp_path))
    for name in ("HOUSING_API_KEYS", "MLFLOW_BACKEND_STORE_URI"):
        # Once set, it is put back after the test.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path


def test_a_file_sets_the_variable_it_is_named_as(secrets: Path) -> None:
    (secrets / "MLFLOW_BACKEND_STORE_URI").write_text("postgresql://u:p@db/mlflow\n")
    (secrets / "postgres_password").write_text("no variable")
    (secrets / "KUBERNETES").mkdir()
    settings = Settings.load()
    assert settings.mlflow_backend_store_uri is not None
    assert settings.mlflow_backend_store_uri.get_secret_value() == "postgresql://u:p@db/mlflow"
    assert "postgres_password" not in os.environ


def test_what_is_set_wins_over_a_file_and_a_file_over_dotenv(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets / "HOUSING_API_KEYS").write_text(KEY)
    (secrets / ".env").write_text("HOUSING_API_KEYS=from-dotenv-0123456789\n")
    load_environment()
    assert os.environ["HOUSING_API_KEYS"] == KEY
    monkeypatch.setenv("HOUSING_API_KEYS", "from-the-environment")
    load_environment()
    assert os.environ["HOUSING_API_KEYS"] == "from-the-environment"


def test_without_a_folder_there_are_no_secrets(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSING_SECRETS_DIR", str(secrets / "absent"))
    load_environment()
    assert "HOUSING_API_KEYS" not in os.environ
