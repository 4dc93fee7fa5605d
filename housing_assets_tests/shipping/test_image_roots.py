"""Each target of the Dockerfile, built and started in a clean root by its own instructions.

Takes minutes and the rights of root, so HOUSING_IMAGE_ROOTS names the folder to do it in, or nothing is done.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import requests
import yaml

from housing_assets.deployment.smoke import EXAMPLE
from housing_assets_tests.conftest import free_port
from housing_assets_tests.serving.bundles import bundle_files
from housing_assets_tests.shipping.recipes import REPOSITORY, Container, Recipes, running
from housing_assets_tests.system_programs import require

FOLDER = os.environ.get("HOUSING_IMAGE_ROOTS")
pytestmark = [
    pytest.mark.skipif(FOLDER is None, reason="HOUSING_IMAGE_ROOTS names no folder to build roots in"),
    pytest.mark.timeout(3600),
]
USER = 10001
MOST_SERVING_MEGABYTES = 350.0
HEALTHY_SECONDS = 600.0
STOPPED_SECONDS = 10.0


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Recipes:
    require("debootstrap")
    folder = Path(FOLDER or tmp_path_factory.mktemp("roots"))
    folder.mkdir(parents=True, exist_ok=True)
    # The base is kept from one run to the next; the rest is made anew.
    for made in folder.iterdir():
        if not made.name.startswith("base-"):
            shutil.rmtree(made)
    return Recipes(folder)


def services() -> Mapping[str, dict]:
    return yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]


def service_of(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The command and health check that compose.yaml gives a service, beside those of its image."""
    service = services()[name]
    return tuple(service.get("command", ())), tuple(service.get("healthcheck", {}).get("test", ())[1:])


def check(container: Container, health: tuple[str, ...]) -> None:
    """What holds for every container: healthy, without rights, nothing written where nothing is mounted."""
    container.wait_until_healthy(health, HEALTHY_SECONDS)
    assert {process.uids().real for process in (container.process, *container.process.children(True))} == {
        USER
    }
    refused = container.execute(["touch", "/opt/venv/written"])
    assert "Read-only file system" in refused.stderr
    assert container.execute(["sh", "-c", "command -v gcc cc pip"]).stdout == ""


def test_serving_answers_with_its_model_and_is_small(recipes: Recipes, tmp_path: Path) -> None:
    stage = recipes.build("serving")
    assert stage.megabytes <= MOST_SERVING_MEGABYTES
    bundle = tmp_path / "data" / "storage" / "models" / "housing_price_model" / "1"
    bundle.mkdir(parents=True)
    for name, data in bundle_files(version=1).items():
        (bundle / name).write_bytes(data)
    port = str(free_port())
    with running(stage, tmp_path / "data", {"PORT": port}) as container:
        check(container, stage.health)
        url = f"http://127.0.0.1:{port}"
        answer = requests.post(f"{url}/api/v1/predict", json={"instances": [EXAMPLE]}, timeout=30)
        assert (answer.status_code, answer.json()["model_version"]) == (200, "1")
        assert container.stop() < STOPPED_SECONDS
    assert list((tmp_path / "data" / "storage" / "monitoring").rglob("*.parquet"))


def test_webapp_answers(recipes: Recipes, tmp_path: Path) -> None:
    stage = recipes.build("webapp")
    with running(stage, tmp_path / "data", {"WEBAPP_PORT": str(free_port())}) as container:
        check(container, stage.health)
        assert container.stop() < STOPPED_SECONDS


@pytest.mark.parametrize("name", ["webserver", "code", "mlflow", "exporter"])
def test_parts_of_the_asset_graph_answer(recipes: Recipes, tmp_path: Path, name: str) -> None:
    stage = recipes.build("assets")
    command, health = service_of(name)
    port = str(free_port())
    variables = {"PORT": port, "HOUSING_EXPORTER_PORT": "9109"}
    with running(stage, tmp_path / "data", variables, command) as container:
        check(container, health or stage.health)
        grace = services()[name].get("stop_grace_period")
        assert container.stop() < (float(grace.removesuffix("s")) if grace else STOPPED_SECONDS)


def test_daemon_sends_heartbeats(recipes: Recipes, tmp_path: Path) -> None:
    stage = recipes.build("assets")
    port = str(free_port())
    code, daemon = service_of("code"), service_of("daemon")
    with running(stage, tmp_path / "data", {"PORT": port}, code[0]) as graph:
        graph.wait_until_healthy(code[1], HEALTHY_SECONDS)
        variables = {"HOUSING_CODE_SERVER": f"127.0.0.1:{port}"}
        with running(stage, tmp_path / "data", variables, daemon[0]) as container:
            check(container, daemon[1])
            assert container.stop() < STOPPED_SECONDS


def test_the_graph_trains_in_its_image(recipes: Recipes, tmp_path: Path) -> None:
    stage = recipes.build("assets")
    budget = tmp_path / "data" / "budget.yaml"
    budget.parent.mkdir()
    budget.write_bytes((REPOSITORY / "housing_assets_tests" / "small_budget.yaml").read_bytes())
    command = ("housing", "train", "--snapshot", "2026-11-22", "--config", "/data/budget.yaml")
    with running(stage, tmp_path / "data", {}, command) as container:
        container.outer.wait(timeout=1800)
        assert container.outer.returncode == 0, container.log.read_text()[-4000:]
    assert list((tmp_path / "data" / "storage" / "models").rglob("bundle.json"))
