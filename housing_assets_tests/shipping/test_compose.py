"""compose.yaml as Compose itself understands it, and the secrets it reads."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from housing_assets.settings import Settings
from housing_assets_tests.shipping.make import REPOSITORY, make
from housing_serving.settings import ServingSettings

OWN = {"mlflow", "code", "webserver", "daemon", "exporter", "api-1", "api-2", "webapp"}
GCS = ("--env-file", str(REPOSITORY / "deploy" / "compose" / "gcs.env"), "--profile", "gcs")


def config(*arguments: str) -> dict[str, Any]:
    """The project as Compose resolves it."""
    tool = str(Path(sys.executable).parent / "docker-compose")
    command = [tool, "--project-directory", str(REPOSITORY), *arguments, "config", "--format", "json"]
    environment = {"PATH": os.defpath, "HOME": "/nonexistent"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def services() -> Mapping[str, dict[str, Any]]:
    return dict(config(*GCS)["services"])


def test_every_service_is_confined(services: Mapping[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
        assert list(service["networks"]) == ["housing"], name
        assert {port["host_ip"] for port in service.get("ports", ())} <= {"127.0.0.1"}, name


def test_every_service_starts_after_healthy_ones(services: Mapping[str, dict[str, Any]]) -> None:
    # Those without a check of their own have their image's.
    checked = {"api-1", "api-2", "webapp", "webserver"} | {
        name for name, service in services.items() if "healthcheck" in service
    }
    assert checked == set(services)
    for name, service in services.items():
        for other, waiting in service.get("depends_on", {}).items():
            assert waiting["condition"] == "service_healthy", (name, other)
    assert {name for name, service in services.items() if not service.get("depends_on")} == {
        "postgres",
        "gcs",
    }


def test_foreign_images_are_pinned_by_digest(services: Mapping[str, dict[str, Any]]) -> None:
    foreign = {name: service["image"] for name, service in services.items() if "build" not in service}
    assert OWN | set(foreign) == set(services)
    assert all("@sha256:" in image for image in foreign.values())


def test_the_emulator_is_off_until_asked_for() -> None:
    found = config()["services"]
    assert "gcs" not in found
    assert found["code"]["environment"]["STORAGE_EMULATOR_HOST"] is None


@pytest.mark.parametrize("arguments", [(), GCS], ids=["volume", "gcs"])
@pytest.mark.parametrize("name", sorted(OWN - {"webapp"}))
def test_own_services_understand_their_variables(
    arguments: tuple[str, ...], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    kind = ServingSettings if name.startswith("api") else Settings
    known = {str(field.validation_alias or key).upper() for key, field in kind.model_fields.items()}
    for variable in known:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in config(*arguments)["services"][name]["environment"].items():
        if value is not None:
            monkeypatch.setenv(variable, value)
    assert (kind.load().port, str(tmp_path)) == (kind().port, str(Path.cwd()))


def test_secrets_are_made_once_and_fit_together(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert make("secrets", variables={"SECRETS": str(folder)}).returncode == 0
    made = {path.name: path.read_text() for path in folder.iterdir()}
    used = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["secrets"]
    assert set(made) == set(used)
    assert len(made["postgres_password"]) == 48
    assert made["postgres_password"] != made["grafana_password"]
    password = made["postgres_password"]
    assert made["DAGSTER_POSTGRES_URL"] == f"postgresql://housing:{password}@postgres:5432/dagster"
    assert made["MLFLOW_BACKEND_STORE_URI"] == f"postgresql://housing:{password}@postgres:5432/mlflow"
    assert folder.stat().st_mode & 0o077 == 0
    make("secrets", variables={"SECRETS": str(folder)})
    assert {path.name: path.read_text() for path in folder.iterdir()} == made
