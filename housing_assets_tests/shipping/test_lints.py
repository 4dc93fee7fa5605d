"""The linters of what is shipped pass, and each of them finds a defect that is planted for it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from housing_assets_tests.shipping.make import REPOSITORY, make

LINTED = ("Makefile", "Dockerfile", "compose.yaml", "deploy/compose", ".ci", ".github")
WORKFLOW = ".github/workflows/pull-request.yml"
CHECKOUT = "@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What is linted, in a repository of its own."""
    for name in LINTED:
        path = REPOSITORY / name
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, tmp_path / name)
        else:
            shutil.copy(path, tmp_path / name)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


def test_all_lints_pass() -> None:
    linted = make("lint-shipping")
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize(
    ("target", "file", "old", "new", "said"),
    [
        ("lint-image", "Dockerfile", "WORKDIR /src", "RUN cd /src", "DL3003"),
        ("lint-compose", "compose.yaml", "read_only: true", "read_onyl: true", "read_onyl"),
        ("lint-scripts", "deploy/compose/make-secrets", "folder=$1", "rm -r $1", "SC2086"),
        ("lint-workflows", WORKFLOW, "timeout-minutes: 30", "timeout-minuets: 30", "timeout-minuets"),
        ("lint-workflows", WORKFLOW, "${{ matrix.python }}", "${{ matrix.pyhton }}", "pyhton"),
        ("lint-workflows", WORKFLOW, CHECKOUT, "@v5", "unpinned-uses"),
        ("lint-workflows", WORKFLOW, "permissions: {}", "permissions: write-all", "excessive-permissions"),
        (
            "lint-workflows",
            ".github/workflows/release.yml",
            "run: make check-release",
            "run: echo ${{ github.ref_name }}",
            "template-injection",
        ),
        ("lint-workflows", ".github/dependabot.yml", "interval: weekly", "interval: sometimes", "sometimes"),
    ],
)
def test_a_planted_defect_is_found(copy: Path, target: str, file: str, old: str, new: str, said: str) -> None:
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    linted = make(target, cwd=copy)
    assert linted.returncode != 0
    assert said in linted.stdout + linted.stderr


@pytest.mark.parametrize(
    ("file", "secret"),
    [
        ("settings.py", "-----BEGIN RSA PRIVATE" + " KEY-----"),
        ("housing_assets_tests/keys.py", "AKIA" + "QWERTYUIOPASDFGH"),
    ],
)
def test_a_secret_is_found(tmp_path: Path, file: str, secret: str) -> None:
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / "housing_assets_tests").mkdir()
    (tmp_path / "housing_assets_tests" / "test_nothing.py").write_text("NOTHING = 'nothing'\n")
    (tmp_path / file).write_text("KEY = 'none'\n")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    clean = make("scan-secrets", cwd=tmp_path)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    (tmp_path / file).write_text(f"KEY = '{secret}'\n")
    found = make("scan-secrets", cwd=tmp_path)
    assert found.returncode != 0
    assert file in found.stdout
