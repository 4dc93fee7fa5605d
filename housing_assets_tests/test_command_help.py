"""Help of every command: complete, with examples that can be typed as they stand; and completion."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from housing_assets.cli import app
from housing_assets.completion import complete_snapshot, complete_version
from housing_assets.partitions import SNAPSHOTS, latest_snapshot
from housing_assets_tests.command_line import REPOSITORY, clean_environment
from housing_assets_tests.serving.bundles import bundle_files, write_files

ROOT: Any = typer.main.get_command(app)


def walked(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group, by the words that reach it."""
    yield path, command
    for name, one in getattr(command, "commands", {}).items():
        yield from walked(one, (*path, name))


COMMANDS = dict(walked(ROOT))


def examples(command: Any) -> list[list[str]]:
    """The `housing` command lines of an epilog, as words."""
    lines = [line.split("`")[1] for line in command.epilog.splitlines() if line.startswith("- `")]
    parts = [part for line in lines for part in line.replace(">", "|").split("|") if "housing" in part]
    words = [shlex.split(part) for part in parts]
    return [one[one.index("housing") + 1 :] for one in words]


def test_there_are_the_commands_that_the_documentation_names() -> None:
    assert {" ".join(path) for path in COMMANDS} >= {
        *("", "demo", "train", "predict", "serve", "up", "down", "status", "exporter", "doctor"),
        *("release status", "release history", "release promote", "release rollback"),
        *("alerts", "alerts history", "alerts test"),
    }


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_explains_the_command_every_option_and_the_exit_codes(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    command = COMMANDS[path]
    shown = " ".join(result.output.replace("│", " ").split())
    assert command.help and len(command.help) > 20
    for option in command.params:
        assert option.help, option.name
        assert (
            option.opts[0] if option.param_type_name == "option" else option.metavar or option.name
        ) in shown
    assert "Exit codes 0: " in shown
    assert "1: " in shown and "2: wrong options or settings" in shown
    assert examples(command)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_examples_can_be_typed_as_they_stand(path: tuple[str, ...]) -> None:
    for words in examples(COMMANDS[path]):
        command, rest = ROOT, list(words)
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest.pop(0)]
        # Fails where an option does not exist, or a value is none.
        if rest[:1] != ["COMMAND"]:
            command.make_context("housing", rest, resilient_parsing=False)


def test_a_command_that_does_not_exist_is_wrong_use() -> None:
    assert CliRunner().invoke(app, ["nonsense"]).exit_code == 2
    assert CliRunner().invoke(app, ["train", "--nonsense"]).exit_code == 2


def test_the_version_is_the_distributions() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"housing {metadata.version('housing-assets')}\n")


def test_snapshots_that_are_offered_exist() -> None:
    offered = complete_snapshot("")
    assert offered[0] == latest_snapshot()
    assert all(SNAPSHOTS.has_partition_key(key) for key in offered)
    year = str(date.fromisoformat(offered[0]).year)
    assert complete_snapshot(f"{year}-") == [key for key in offered if key.startswith(year)]
    assert complete_snapshot("1999") == []


def test_versions_that_are_offered_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOUSING_DEPLOYMENT", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("HOUSING_HOME", str(tmp_path))
    assert complete_version("") == []
    for version in (9, 10, 11):
        folder = tmp_path / "storage" / "models" / "housing_price_model" / str(version)
        write_files(folder, bundle_files(version=version))
    assert complete_version("") == ["11", "10", "9"]
    assert complete_version("1") == ["11", "10"]
    # A bucket would keep the shell waiting, and settings that are wrong have none to offer.
    monkeypatch.setenv("HOUSING_DEPLOYMENT", "gcp")
    assert complete_version("") == []


def test_the_shell_is_offered_commands_and_values(tmp_path: Path) -> None:
    def offered(words: str, place: int) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "housing_assets"],
            cwd=REPOSITORY,
            env=clean_environment(
                tmp_path, _HOUSING_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(place)
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split()

    assert offered("housing re", 1) == ["release"]
    assert offered("housing train --snapshot ", 3)[0] == latest_snapshot()
