"""Runs the `housing` command in a process of its own, as a person would, in a home of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from housing_assets.settings import Settings

REPOSITORY = Path(__file__).parent.parent
SMALL_BUDGET = Path(__file__).parent / "small_budget.yaml"
HOUSING_CSV = REPOSITORY.parent / "shared" / "data" / "housing.csv"
SNAPSHOT = "2026-11-22"
TIMEOUT_SECONDS = 580


def clean_environment(home: Path, **values: str) -> dict[str, str]:
    """The environment without any of the product's own names, except for the given ones."""
    names = {str(field.validation_alias) for field in Settings.model_fields.values()}
    # Some libraries report usage everywhere but in CI, so a test must not look like CI to them.
    hidden = names | {"DAGSTER_HOME", "CI", "ORT_DISABLE_TELEMETRY"}
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, "HOUSING_HOME": str(home), "COLUMNS": "200", **values}


def housing(
    *arguments: str, home: Path, under: Sequence[str] = (), **values: str
) -> "subprocess.CompletedProcess[str]":
    """Run `housing` with these arguments, possibly under a tracer, and return what it printed."""
    command = [*under, sys.executable, "-m", "housing_assets", *arguments]
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env=clean_environment(home, **values),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )


def train_small(home: Path, under: Sequence[str] = (), **values: str) -> None:
    """Train with the small budget, and insist on success."""
    done = housing(
        *("train", "--snapshot", SNAPSHOT, "--config", str(SMALL_BUDGET)), home=home, under=under, **values
    )
    assert done.returncode == 0, done.stdout + done.stderr
