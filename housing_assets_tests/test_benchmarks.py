"""The benchmarks run, and their table has every row."""

import os
import subprocess
import sys

import pytest

from benchmarks.measuring import Figure, spread
from housing_assets_tests.command_line import REPOSITORY

ROWS = [
    ("bedrooms: one forest of 100", "seconds"),
    ("", "RMSE, bedrooms"),
    ("bedrooms: boosting, per household", "seconds"),
    ("", "RMSE, bedrooms"),
    ("predict 1 row: the bundle", "milliseconds"),
    ("predict 100 rows: the bundle", "milliseconds"),
    ("forest sweep of 4 trials, stopping early", "seconds"),
    ("", "best wmape, %"),
]


def benchmarks(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.fixture(scope="module")
def quick() -> "subprocess.CompletedProcess[str]":
    return benchmarks("--quick")


def test_the_table_has_every_row_with_three_numbers(quick: "subprocess.CompletedProcess[str]") -> None:
    assert quick.returncode == 0, quick.stderr
    lines = [line[1:-1].split("│") for line in quick.stdout.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert [(what, figure) for what, figure, *_ in cells] == ROWS
    for _, _, ours, peer, ratio, _ in cells:
        assert min(float(number.replace(",", "")) for number in (ours, peer, ratio)) > 0


def test_progress_tells_every_measurement(quick: "subprocess.CompletedProcess[str]") -> None:
    titles = [line.split(":")[0].strip() for line in quick.stderr.splitlines() if line.startswith("  ")]
    assert titles == ["imputation"] * 3 + ["prediction"] * 2 + ["search"]


def test_help_says_what_is_measured_and_how_long_it_takes() -> None:
    shown = benchmarks("--help")
    assert shown.returncode == 0
    assert "--quick" in shown.stdout
    assert "a few minutes" in shown.stdout


def test_a_ratio_is_taken_within_each_repeat() -> None:
    figure = Figure("sweep", "seconds", "plain", ours=[1.0, 2.0, 4.0], theirs=[3.0, 4.0, 4.0])
    assert figure.ratios == [3.0, 2.0, 1.0]
    assert spread(figure.ratios) == "2.00 (1.00 to 3.00)"
    assert spread([1234.5]) == "1,234"
    assert spread([0.16789]) == "0.168"
