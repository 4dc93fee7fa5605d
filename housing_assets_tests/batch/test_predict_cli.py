"""`housing predict` as people and scripts call it: files, pipes, exit codes, and nothing half-written."""

import io
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from housing_assets.cli import app
from housing_assets.settings import Settings
from housing_assets.storage import LocalStore
from housing_assets_tests.batch.tables import (
    GOOD,
    RICH,
    as_file,
    bundle_folder,
    csv_bytes,
    csv_row,
    random_frame,
    read,
)
from housing_assets_tests.command_line import REPOSITORY, clean_environment
from housing_assets_tests.serving.bundles import bundle_files
from housing_serving.default_model import serving_setting_names
from housing_serving.releases import RELEASE_RECORD, ReleaseRecord

BAD = csv_row(total_rooms="many")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: bytes
    stderr: str


def predict(home: Path, *arguments: str, given: bytes = b"", **values: str) -> Done:
    """Run `housing predict` without any of the product's own names in the environment but these."""
    names = {str(field.validation_alias) for field in Settings.model_fields.values()}
    environment: dict[str, str | None] = dict.fromkeys(names | serving_setting_names())
    ours = {**environment, "HOUSING_HOME": str(home), "COLUMNS": "200", **values}
    result = CliRunner().invoke(app, ["predict", *arguments], input=given, env=ours)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Done(result.exit_code, result.stdout_bytes, result.stderr)


def process(home: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """The same as a process of its own, whose input is still open, and which Ctrl-C reaches."""
    # What runs in the background, as continuous integration may, ignores it, and its children with it.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "housing_assets", "predict", *arguments],
            cwd=REPOSITORY,
            env=clean_environment(home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    finally:
        signal.signal(signal.SIGINT, inherited)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A storage root with versions 1 and 2, of which 1 is released."""
    store = LocalStore(tmp_path / "home" / "storage")
    for version in (1, 2):
        for name, content in bundle_files(version=version).items():
            store.write(f"models/housing_price_model/{version}/{name}", content)
    store.write(RELEASE_RECORD, ReleaseRecord(stable_version=1).to_json())
    return tmp_path / "home"


def versions_of(done: Done) -> set[str]:
    assert done.returncode == 0, done.stderr
    return set(read(done.stdout, "csv")["model_version"])


def test_the_model_is_the_one_that_serves_unless_another_is_named(home: Path, tmp_path: Path) -> None:
    rows = csv_bytes(GOOD)
    assert versions_of(predict(home, given=rows)) == {"1"}
    assert versions_of(predict(home, "--version", "2", given=rows)) == {"2"}
    folder = bundle_folder(tmp_path / "elsewhere", version=5)
    assert versions_of(predict(home, "--bundle", str(folder), given=rows)) == {"5"}
    assert versions_of(predict(home, given=rows, LOCAL_MODEL_PATH=str(folder))) == {"5"}
    LocalStore(home / "storage").delete(RELEASE_RECORD)
    assert versions_of(predict(home, given=rows)) == {"2"}


def test_bad_rows_are_told_counted_and_kept(home: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "rows.csv", tmp_path / "priced.parquet"
    source.write_bytes(csv_bytes(GOOD, BAD, GOOD))
    done = predict(home, str(source), "--output", str(target))
    assert done.returncode == 3
    assert done.stdout == b""
    told = done.stderr
    assert "row 2 total_rooms 'many' is no number" in told
    assert "2 of 3 rows priced by version 1" in told
    result = pd.read_parquet(target)
    assert result["predicted_price"].fillna(0).tolist() == [RICH, 0, RICH]
    assert result["error"].tolist() == ["", "total_rooms 'many' is no number", ""]


@pytest.mark.parametrize("to_file", [True, False])
def test_strict_writes_everything_or_nothing(home: Path, tmp_path: Path, to_file: bool) -> None:
    target = tmp_path / "out.csv"
    target.write_text("from before")
    arguments = ["--strict", *(["--output", str(target)] if to_file else [])]
    done = predict(home, *arguments, given=csv_bytes(GOOD, BAD))
    assert (done.returncode, done.stdout) == (1, b"")
    assert "1 of 2 rows cannot be priced: nothing was written (--strict)" in done.stderr
    assert "row 2 total_rooms" in done.stderr
    assert target.read_text() == "from before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out.csv"]
    done = predict(home, *arguments, given=csv_bytes(GOOD))
    assert done.returncode == 0
    written = target.read_bytes() if to_file else done.stdout
    assert read(written, "csv")["predicted_price"].tolist() == [RICH]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_pipe_carries_every_format(home: Path, kind: str) -> None:
    frame = random_frame(50)
    done = predict(home, "--format", kind, "--output-format", "jsonl", given=as_file(frame, kind))
    assert done.returncode == 0, done.stderr
    assert read(done.stdout, "jsonl")["longitude"].tolist() == frame["longitude"].tolist()
    done = predict(home, "--format", kind, given=as_file(frame, kind))
    assert len(read(done.stdout, kind)) == 50


def test_many_rows_come_in_many_pieces(home: Path, tmp_path: Path) -> None:
    frame = random_frame(30_000)
    source = tmp_path / "rows.csv"
    frame.to_csv(source, index=False)
    done = predict(home, str(source), "--output", str(source))
    assert done.returncode == 0, done.stderr
    result = read(source.read_bytes(), "csv")
    assert result["name"].tolist() == frame["name"].tolist()
    assert np.isfinite(result["predicted_price"]).all()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["absent.csv"], 1, "absent.csv cannot be read: No such file or directory"),
        (["rows.xlsx"], 2, "its format is not known by its name"),
        (["--format", "xml"], 2, "--format xml: choose one of csv, parquet, jsonl"),
        (["--version", "1", "--bundle", "x"], 2, "name two models"),
        (["--version", "9"], 1, "no model: "),
        (["--bundle", "nowhere"], 1, "nowhere/bundle.json does not exist"),
        (["--output", "no/such/folder/out.csv"], 1, "cannot be written: No such file or directory"),
        (["--nonsense"], 2, "No such option"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_exit_code(
    home: Path, arguments: list[str], code: int, told: str
) -> None:
    done = predict(home, *arguments, given=csv_bytes(GOOD))
    assert done.returncode == code
    assert told in " ".join(done.stderr.split())
    assert done.stdout == b""


def test_wrong_settings_exit_2_and_say_what_to_set(home: Path) -> None:
    done = predict(home, given=csv_bytes(GOOD), HOUSING_DEPLOYMENT="gcp")
    assert done.returncode == 2
    assert "GCS_BUCKET_NAME is not set" in done.stderr


def test_without_a_model_it_says_how_to_get_one(tmp_path: Path) -> None:
    done = predict(tmp_path / "empty", given=csv_bytes(GOOD))
    assert done.returncode == 1
    assert "housing train makes one" in done.stderr


def test_a_reader_that_has_seen_enough_ends_it(home: Path) -> None:
    running = process(home)
    assert running.stdin is not None and running.stdout is not None and running.stderr is not None
    running.stdout.close()
    running.stdin.write(csv_bytes(*[GOOD] * 1_000))
    running.stdin.close()
    assert running.wait(timeout=120) == 1
    assert b"Traceback" not in running.stderr.read()
    running.stderr.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_is_stopped_leaves_the_output_as_it_was(
    home: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    target = tmp_path / "out" / "priced.csv"
    target.parent.mkdir()
    target.write_text("from before")
    with process(home, "--output", str(target)) as running:
        assert running.stdin is not None
        # Rows, and the input stays open.
        running.stdin.write(csv_bytes(*[GOOD] * 10))
        running.stdin.flush()
        deadline = time.monotonic() + 120
        while len(list(target.parent.iterdir())) == 1 and time.monotonic() < deadline:
            assert running.poll() is None
            time.sleep(0.02)
        running.send_signal(number)
        assert running.wait(timeout=120) == code
    assert [path.name for path in target.parent.iterdir()] == ["priced.csv"]
    assert target.read_text() == "from before"


def test_the_input_may_have_a_byte_order_mark_and_windows_line_ends(home: Path) -> None:
    rows = b"\xef\xbb\xbf" + csv_bytes(GOOD, GOOD).replace(b"\n", b"\r\n")
    done = predict(home, given=rows)
    assert read(io.BytesIO(done.stdout).read(), "csv")["predicted_price"].tolist() == [RICH, RICH]
