"""What every test of the service starts from: no settings from outside, and a small bundle."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from housing_assets_tests.serving.bundles import bundle_files, write_files
from housing_assets_tests.serving.registry_server import RegistryServer
from housing_serving.app import create_app
from housing_serving.settings import ServingSettings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working directory without `.env` and no variable that the service reads."""
    monkeypatch.chdir(tmp_path)
    for name in ServingSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def bundle_folder(tmp_path: Path) -> Path:
    """A valid bundle, version 3, with a compiled imputer and explanations."""
    return write_files(tmp_path / "bundle", bundle_files(kind="compiled", version=3, explained=True))


@pytest.fixture
def client(bundle_folder: Path) -> Iterator[TestClient]:
    """The service with that bundle loaded."""
    with TestClient(create_app(ServingSettings(local_model_path=bundle_folder))) as started:
        yield started


@pytest.fixture
def client_without_model(tmp_path: Path) -> Iterator[TestClient]:
    """The service on an empty storage root."""
    settings = ServingSettings(housing_home=tmp_path / "home", housing_model_poll_seconds=60)
    with TestClient(create_app(settings)) as started:
        yield started


@pytest.fixture(scope="session")
def registry_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A real MLflow tracking server; whoever stops it starts it again."""
    server = RegistryServer(tmp_path_factory.mktemp("registry"))
    server.start()
    try:
        yield server
    finally:
        server.stop()
