"""Which services a deployment runs and how supervisord is told; starting them is tested in `stack`."""

from pathlib import Path

import pytest

from housing_assets.services import services
from housing_assets.settings import Settings
from housing_assets.supervision import Service, literal, log_file, supervisor_config


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of the product's settings, and no `.env`."""
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    monkeypatch.chdir(tmp_path)


def settings_of(home: Path, **values: str) -> Settings:
    return Settings.model_validate({"HOUSING_HOME": str(home), **values})


def command_of(settings: Settings, name: str) -> tuple[str, ...]:
    [command] = [service.command for service in services(settings) if service.name == name]
    return command


def test_without_a_tracking_server_one_is_started_first(tmp_path: Path) -> None:
    names = [service.name for service in services(settings_of(tmp_path))]
    assert names == ["mlflow", "dagster-webserver", "dagster-daemon", "api", "webapp"]


def test_a_tracking_server_elsewhere_is_used_and_none_is_started(tmp_path: Path) -> None:
    elsewhere = settings_of(tmp_path, MLFLOW_TRACKING_URI="https://mlflow.example.org")
    names = [service.name for service in services(elsewhere)]
    assert names == ["dagster-webserver", "dagster-daemon", "api", "webapp"]


def test_without_its_extra_the_web_app_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("housing_assets.services.find_spec", lambda _: None)
    assert "webapp" not in [service.name for service in services(settings_of(tmp_path))]


def test_artifacts_go_to_the_folder_of_the_storage_root(tmp_path: Path) -> None:
    command = command_of(settings_of(tmp_path / "my home"), "mlflow")
    assert f"{tmp_path.resolve().as_uri()}/my%20home/storage/mlflow" in command


def test_artifacts_go_to_the_bucket_of_the_storage_root(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        HOUSING_DEPLOYMENT="gcp",
        GCP_PROJECT_ID="project",
        GCS_BUCKET_NAME="houses",
        MLFLOW_TRACKING_URI="http://127.0.0.1:5000",
    )
    command = command_of(settings, "mlflow")
    assert command[command.index("--default-artifact-root") + 1] == "gs://houses/mlflow"
    assert command[command.index("--artifacts-destination") + 1] == "gs://houses/mlflow"


def test_a_path_with_spaces_and_percent_signs_reaches_supervisord_unharmed(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "50% of it")
    config = supervisor_config(settings, [Service("api", ("/my tools/python", "-m", "x"))], tmp_path)
    program = config["program:api"]
    assert program["command"] == "'/my tools/python' -m x"
    assert literal("50%") == "50%%"
    assert program["stdout_logfile"] == str(log_file(settings, "api")).replace("%", "%%%%")
