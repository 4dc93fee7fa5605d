"""`housing release` as people use it: in a process of its own, on a real storage root and registry."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from housing_assets.mlflow_runs import mlflow_client
from housing_assets_tests.deployment.fleets import MODEL, add_version
from housing_assets_tests.serving.bundles import bundle_files
from housing_serving.bundle import sha256_hex

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three registered versions: 1 and 2 have won, 3 has lost; the bundle of 4 is damaged."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "mlflow").mkdir()
    client = mlflow_client(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")
    client.create_registered_model(MODEL)
    for version, decision in ((1, "promote"), (2, "promote"), (3, "keep"), (4, "promote")):
        files = bundle_files(kind="compiled", version=version)
        tags = {
            "registration_state": "complete",
            "promotion": decision,
            "promotion_reason": "mean error is 2.0 % worse than version 1",
            "bundle_sha256": sha256_hex(files["bundle.json"]),
        }
        client.create_model_version(MODEL, source=str(folder), tags=tags)
        add_version(folder / "storage", version, files)
    (folder / "storage" / "models" / MODEL / "4" / "model.onnx").write_bytes(b"damaged")
    return folder


def release(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `housing release`."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "housing"), "release", *arguments],
        env={**os.environ, "HOUSING_HOME": str(home), "HOUSING_API_URLS": NOBODY, "COLUMNS": "200"},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def alias(home: Path, name: str) -> str | None:
    client = mlflow_client(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    found = client.get_registered_model(MODEL).aliases.get(name)
    return None if found is None else str(found)


def test_a_release_from_beginning_to_end(home: Path) -> None:
    assert "nothing was released yet" in release(home, "history").stdout
    early = release(home, "rollback")
    assert (early.returncode, early.stderr.strip()) == (1, "error nothing was released yet")

    first = release(home, "promote", "1", "--reason", "to begin with")
    assert first.returncode == 0, first.stderr
    assert "version 1 is released" in first.stdout
    assert "registry: production is version 1" in first.stdout
    assert "version 1 serves already" in release(home, "promote", "1").stdout

    second = release(home, "promote", "2", "--reason", "it is better")
    assert second.returncode == 0, second.stderr
    assert (alias(home, "production"), alias(home, "previous")) == ("2", "1")

    back = release(home, "rollback", "--reason", "prices too high in Fresno")
    assert back.returncode == 0, back.stderr
    assert "version 1 is released again, version 2 is not any more" in back.stdout
    assert (alias(home, "production"), alias(home, "previous")) == ("1", None)

    again = release(home, "rollback")
    assert again.returncode == 1
    assert "version 1 is the first that was released: there is none to go back to" in again.stderr
    history = release(home, "history").stdout
    assert "prices too high in Fresno" in history
    assert history.index("rollback") < history.index("to begin with")


def test_a_version_that_lost_needs_force(home: Path) -> None:
    refused = release(home, "promote", "3")
    assert refused.returncode == 1
    assert "version 3 is not to be promoted: mean error is 2.0 % worse than version 1" in refused.stderr
    forced = release(home, "promote", "3", "--force", "--reason", "we know better")
    assert forced.returncode == 0, forced.stderr
    assert alias(home, "production") == "3"
    release(home, "rollback")


@pytest.mark.parametrize(
    ("version", "message"),
    [("4", "the bundle of version 4 cannot be used: "), ("99", "housing_price_model has no version 99")],
)
def test_what_cannot_serve_is_not_released(home: Path, version: str, message: str) -> None:
    before = release(home, "history").stdout
    refused = release(home, "promote", version)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert release(home, "history").stdout == before


def test_status_says_who_cannot_be_asked_and_fails(home: Path) -> None:
    status = release(home, "status")
    assert status.returncode == 1
    assert f"{NOBODY}/metrics cannot be read" in status.stdout


def test_a_damaged_record_is_a_clear_error(home: Path, tmp_path: Path) -> None:
    record = tmp_path / "storage" / "releases" / "housing-price-api.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    for command in ("status", "history", "rollback"):
        failed = release(tmp_path, command)
        assert failed.returncode == 1
        assert "states no stable_version" in failed.stderr
        assert "Traceback" not in failed.stderr


def test_every_command_explains_itself(home: Path) -> None:
    overview = release(home, "--help").stdout
    for command in ("status", "history", "promote", "rollback"):
        assert command in overview
        assert release(home, command, "--help").returncode == 0
