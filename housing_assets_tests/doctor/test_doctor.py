"""`housing doctor` finds each mistake that is planted, and names its mend."""

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from housing_assets.cli import app
from housing_assets.doctor import machine
from housing_assets.instance import prepare_instance
from housing_assets.settings import Settings
from housing_assets.storage import LocalStore
from housing_assets.supervision import MARK, mark
from housing_assets_tests.conftest import GcsServer, free_port
from housing_assets_tests.serving.bundles import bundle_files
from housing_serving.default_model import serving_setting_names
from housing_serving.releases import RELEASE_RECORD, ReleaseRecord

PORTS = ("PORT", "DAGSTER_PORT", "MLFLOW_PORT", "WEBAPP_PORT", "HOUSING_EXPORTER_PORT")
CHECKED = {
    *("python", "packages", "names", "settings", "home", "disk", "ports", "processes", "storage", "source"),
    *("mlflow", "wandb", "model", "release", "dagster", "alerts"),
}


class SetUp:
    """A set-up without mistakes, in which mistakes are planted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.monkeypatch = monkeypatch
        self.store = LocalStore(self.home / "storage")
        for version in (1, 2):
            for name, content in bundle_files(version=version).items():
                self.store.write(f"models/housing_price_model/{version}/{name}", content)
        self.release(ReleaseRecord(stable_version=2, previous_versions=(1,)))
        self.set(HOUSING_HOME=str(self.home), **{name: str(free_port()) for name in PORTS})

        # The machine's own disk is not what is tested.
        monkeypatch.setattr(machine, "FEW_FREE_BYTES", 0)
        monkeypatch.setattr(machine, "LEAST_FREE_BYTES", 0)

    def set(self, **values: str) -> None:
        for name, value in values.items():
            self.monkeypatch.setenv(name, value)

    def release(self, record: ReleaseRecord) -> None:
        self.store.write(RELEASE_RECORD, record.to_json())

    def as_gcp(self, **values: str) -> None:
        """On a bucket, of which nobody needs to wait long for an answer."""
        self.set(
            HOUSING_DEPLOYMENT="gcp",
            GCP_PROJECT_ID="acme-ml",
            GCS_BUCKET_NAME="acme-housing",
            MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}",
            HOUSING_SOURCE_TIMEOUT_SECONDS="2",
            **values,
        )


@pytest.fixture
def set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetUp:
    names = {str(field.validation_alias) for field in Settings.model_fields.values()}
    for name in names | serving_setting_names() | {"DAGSTER_HOME", "STORAGE_EMULATOR_HOST"}:
        monkeypatch.delenv(name, raising=False)
    # What `.env` sets ends with the test.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(tmp_path)
    return SetUp(tmp_path, monkeypatch)


def examined() -> tuple[int, list[dict[str, str]]]:
    """The exit code, and what was found."""
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.output)


def problems(found: list[dict[str, str]]) -> list[dict[str, str]]:
    return [one for one in found if one["status"] != "ok"]


def insist_on(check: str, text: str, mend: str, code: int = 1) -> None:
    """A mistake is found, and its mend is named."""
    exit_code, found = examined()
    matching = [
        one
        for one in problems(found)
        if one["check"] == check and re.search(text, one["text"]) and re.search(mend, one["mend"])
    ]
    assert len(matching) == 1, problems(found)
    assert exit_code == code


def test_a_good_set_up_has_no_problem(set_up: SetUp) -> None:
    code, found = examined()
    assert problems(found) == []
    assert code == 0
    assert {one["check"] for one in found} == CHECKED


def test_an_empty_home_needs_a_training_and_is_no_mistake(set_up: SetUp) -> None:
    set_up.set(HOUSING_HOME=str(set_up.folder / "nothing"))
    insist_on("model", "no model version in", "housing train makes the first version", code=0)
    assert not (set_up.folder / "nothing").exists()


def test_people_read_what_to_do(set_up: SetUp) -> None:
    set_up.set(WANDB_API_KEY="short")
    result = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "→ copy it from https://wandb.ai/authorize, or remove it" in result.output
    assert "1 to mend, 0 to look at" in result.output


@pytest.mark.parametrize(
    ("values", "text", "mend"),
    [
        ({"HOUSING_DEPLOYMENT": "gcp"}, "GCP_PROJECT_ID is not set", "set it to the project that owns"),
        (
            {"GCS_BUCKET_NAME": "your-bucket"},
            "GCS_BUCKET_NAME holds a blank or placeholder",
            "set a real one",
        ),
        ({"PORT": "eighty"}, "PORT is not valid: Input should be a valid integer", "correct it"),
        ({"HOUSING_API_KEYS": "short"}, "HOUSING_API_KEYS is not valid", "correct it"),
        ({"HOUSING_ALERT_EMAIL_TO": "a@acme.org"}, "SMTP_HOST is not set", "set it to the mail server"),
    ],
)
def test_wrong_settings(set_up: SetUp, values: dict[str, str], text: str, mend: str) -> None:
    set_up.set(**values)
    code, found = examined()
    matching = [one for one in problems(found) if re.search(text, one["text"]) and mend in one["mend"]]
    assert matching and all(one["check"] == "settings" for one in problems(found))
    assert code == 1


def test_a_setting_that_is_misspelt_in_the_env_file(set_up: SetUp) -> None:
    (set_up.folder / ".env").write_text("MLFLOW_TRACKING_URL=http://127.0.0.1:5000\n")
    insist_on(
        "names", "MLFLOW_TRACKING_URL is set, and is no setting", "rename it, if MLFLOW_TRACKING_URI", 0
    )


def test_a_package_of_a_version_that_does_not_fit(set_up: SetUp) -> None:
    wrong = set_up.folder / "site" / "wandb-0.31.0.dist-info"
    wrong.mkdir(parents=True)
    (wrong / "METADATA").write_text("Metadata-Version: 2.1\nName: wandb\nVersion: 0.31.0\n")
    set_up.monkeypatch.setattr(sys, "path", [str(wrong.parent), *sys.path])
    insist_on("packages", r"wandb is 0\.31\.0, which does not fit <0\.30,>=0\.29", "pip install 'wandb<0.30")


def test_a_home_that_cannot_be_written(set_up: SetUp) -> None:
    (set_up.folder / "file").write_text("")
    set_up.set(HOUSING_HOME=str(set_up.folder / "file"))
    insist_on("home", "cannot be written: Not a directory", "set HOUSING_HOME to a folder")


def test_a_disk_that_is_nearly_full(set_up: SetUp) -> None:
    set_up.monkeypatch.setattr(machine, "LEAST_FREE_BYTES", 10**18)
    insist_on("disk", "GB are free at", "set HOUSING_HOME to a larger disk")


def test_a_port_that_is_taken(set_up: SetUp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        # A port that answers nothing is asked no longer than this.
        set_up.monkeypatch.setattr(machine, "ANSWER_SECONDS", 0.2)
        port = other.getsockname()[1]
        set_up.set(DAGSTER_PORT=str(port))
        insist_on("ports", rf"port {port} \(DAGSTER_PORT\) is in use", "set DAGSTER_PORT to a free one")


def test_two_services_on_one_port(set_up: SetUp) -> None:
    set_up.set(MLFLOW_PORT=os.environ["PORT"])
    insist_on("ports", r"PORT and MLFLOW_PORT are both \d+", "set MLFLOW_PORT to another port")


def test_a_storage_server_that_is_down(set_up: SetUp) -> None:
    set_up.as_gcp(STORAGE_EMULATOR_HOST=f"http://127.0.0.1:{free_port()}")
    insist_on("storage", "gave no answer in time", "STORAGE_EMULATOR_HOST, which names another server")


def test_a_bucket_that_does_not_exist(set_up: SetUp, gcs_server: GcsServer) -> None:
    set_up.as_gcp(STORAGE_EMULATOR_HOST=gcs_server.endpoint)
    insist_on("storage", "bucket acme-housing does not exist", "create it or set GCS_BUCKET_NAME")


def test_a_tracking_server_that_does_not_answer(set_up: SetUp) -> None:
    set_up.set(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    insist_on("mlflow", "does not answer", "or set MLFLOW_TRACKING_URI to one that runs")


@pytest.fixture
def mlflow_database(set_up: SetUp) -> Iterator[sqlite3.Connection]:
    path = set_up.home / "mlflow" / "mlflow.db"
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.commit()
        yield database
    database.close()


@pytest.mark.parametrize(
    ("schema", "text", "mend"),
    [
        # Of MLflow 0.9.
        ("451aebb31d03", "has the schema 451aebb31d03 of an older MLflow", "mlflow db upgrade sqlite:///"),
        ("fffffffffffff", "which the installed MLflow does not know", "install the MLflow that wrote it"),
    ],
)
def test_a_tracking_database_of_another_mlflow(
    mlflow_database: sqlite3.Connection, schema: str, text: str, mend: str
) -> None:
    mlflow_database.execute("INSERT INTO alembic_version VALUES (?)", (schema,))
    mlflow_database.commit()
    insist_on("mlflow", text, mend)


def test_a_tracking_database_that_is_none(set_up: SetUp) -> None:
    path = set_up.home / "mlflow" / "mlflow.db"
    path.parent.mkdir()
    path.write_bytes(b"something else" * 100)
    insist_on("mlflow", "is no MLflow database", "move it away")


def test_a_key_of_weights_and_biases_that_can_be_none(set_up: SetUp) -> None:
    set_up.set(WANDB_API_KEY="0123456789abcdef")
    insist_on("wandb", "WANDB_API_KEY is no key: 16 characters", "copy it from")


def test_a_release_of_a_version_that_is_gone(set_up: SetUp) -> None:
    set_up.release(ReleaseRecord(stable_version=9))
    insist_on("model", r"9/bundle\.json does not exist", "housing release rollback")


def test_a_released_bundle_that_was_damaged(set_up: SetUp) -> None:
    model = set_up.home / "storage" / "models" / "housing_price_model" / "2" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    insist_on("model", "has sha256", "housing release rollback")


def test_a_rollback_that_has_nowhere_to_go(set_up: SetUp) -> None:
    set_up.store.delete("models/housing_price_model/1/model.onnx")
    insist_on("release", "the previous version 1 is unusable", "restore it from a copy")


def test_a_release_record_that_is_none(set_up: SetUp) -> None:
    set_up.store.write(RELEASE_RECORD, b"{}")
    insist_on("release", "states no stable_version", "housing release promote VERSION")


def test_a_pinned_bundle_that_is_not_there(set_up: SetUp) -> None:
    set_up.set(LOCAL_MODEL_PATH=str(set_up.folder / "elsewhere"))
    insist_on("model", r"elsewhere/bundle\.json does not exist", "housing train")


def test_an_instance_of_dagster_that_cannot_be_loaded(set_up: SetUp) -> None:
    home = prepare_instance(Settings.load())
    assert problems(examined()[1]) == []
    history = home / "history"
    history.mkdir(exist_ok=True)
    for path in (*history.glob("*.db"), history / "runs.db"):
        path.write_bytes(b"something else" * 1_000)
    insist_on("dagster", "cannot be loaded", "move .* away")


def test_processes_of_an_earlier_start(set_up: SetUp) -> None:
    marked = {**os.environ, MARK: mark(Settings.load())}
    with subprocess.Popen([sys.executable, "-c", "input()"], env=marked, stdin=subprocess.PIPE) as left:
        try:
            insist_on("processes", rf"are left: {left.pid}$", "housing down")
        finally:
            left.kill()


def test_a_mail_server_that_cannot_be_reached(set_up: SetUp) -> None:
    set_up.set(
        SMTP_HOST="127.0.0.1",
        SMTP_PORT=str(free_port()),
        HOUSING_ALERT_EMAIL_TO="team@acme.org",
        HOUSING_ALERT_WEBHOOK_URL=f"http://127.0.0.1:{free_port()}/hook",
    )
    insist_on("alerts", r"\(SMTP_HOST\) cannot be reached", "it and SMTP_PORT, then try it: housing alerts")
    insist_on("alerts", r"\(HOUSING_ALERT_WEBHOOK_URL\) cannot be reached", "housing alerts test")


@pytest.mark.parametrize("location", ["absent.csv", "absent/{snapshot}.csv"])
def test_a_source_that_is_not_there(set_up: SetUp, location: str) -> None:
    set_up.set(HOUSING_SOURCE_URI=str(set_up.folder / location))
    insist_on("source", "absent.* does not exist", "set HOUSING_SOURCE_URI to where the rows are")
