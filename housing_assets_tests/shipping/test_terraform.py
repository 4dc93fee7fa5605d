"""The infrastructure's description: well-formed, of things that exist, and with what the workflows read.

Terraform itself validates only with its providers' programs, which it downloads; so what they would say about
arguments is left to `terraform validate` on a machine that has them.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml

from housing_assets.settings import Settings
from housing_assets_tests.shipping.make import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "terraform"
PROVIDERS = ("google_", "random_")
REFERENCE = re.compile(r"(?<![\w.\"/-])((?:data\.)?(?:google|random)_\w+|var|local)\.(\w+)")


def parsed() -> dict[str, list[Any]]:
    """All files as one, by kind of block."""
    merged: dict[str, list[Any]] = {}
    for path in sorted(FOLDER.glob("*.tf")):
        with path.open() as file:
            for kind, blocks in hcl2.load(file).items():
                merged.setdefault(kind, []).extend(blocks if isinstance(blocks, list) else [])
    return merged


def unquoted(name: str) -> str:
    return name.strip('"')


def names(blocks: list[Any]) -> Iterator[str]:
    for block in blocks:
        yield from (unquoted(name) for name in block if not name.startswith("__"))


def declared() -> set[tuple[str, str]]:
    """Everything that can be referred to, as kind and name."""
    found = parsed()
    things = {("var", name) for name in names(found["variable"])}
    things |= {("local", name) for name in names(found["locals"])}
    for kind, prefix in (("resource", ""), ("data", "data.")):
        for block in found[kind]:
            for family, members in block.items():
                if not family.startswith("__"):
                    things |= {(prefix + unquoted(family), name) for name in names([members])}
    return things


def referred(text: str) -> set[tuple[str, str]]:
    """What a file's expressions refer to."""
    code = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    return {(kind, name) for kind, name in REFERENCE.findall(code)}


def test_every_reference_is_declared_and_every_variable_used() -> None:
    things = declared()
    used = set().union(*(referred(path.read_text()) for path in FOLDER.glob("*.tf")))
    assert used - things == set()
    assert {thing for thing in things - used if thing[0] in ("var", "local")} == set()


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("value = google_storage_bucket.absent.name", ("google_storage_bucket", "absent")),
        ('value = "gs://${var.absent}"', ("var", "absent")),
        ("for_each = local.absent", ("local", "absent")),
    ],
)
def test_a_reference_to_nothing_would_be_found(text: str, missing: tuple[str, str]) -> None:
    assert referred(text) - declared() == {missing}


def test_it_is_formatted_as_terraform_formats(tmp_path: Path) -> None:
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not installed: its own package source is none of Debian's or Python's")
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "CHECKPOINT_DISABLE": "1"}
    done = subprocess.run(
        [terraform, "fmt", "-check", "-diff", str(FOLDER)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_outputs_are_the_variables_of_the_workflows() -> None:
    read = set()
    for path in (REPOSITORY / ".github" / "workflows").glob("*.yml"):
        read |= set(re.findall(r"vars\.(\w+)", path.read_text()))
    # Who calls the service is for people to say.
    assert set(names(parsed()["output"])) == read - {"CLOUD_RUN_INVOKERS"}


def test_services_get_variables_that_the_settings_know() -> None:
    text = (FOLDER / "services.tf").read_text()
    given = set(re.findall(r"^\s+([A-Z][A-Z0-9_]+)\s+= ", text, flags=re.MULTILINE))
    given |= set(re.findall(r'name = "([A-Z0-9_]+)"', text))
    known = {str(field.validation_alias) for field in Settings.model_fields.values()}
    of_mlflow = {name for name in given if name.startswith("MLFLOW_")}
    assert given - known - of_mlflow - {"DAGSTER_POSTGRES_URL"} == set()


def test_nobody_is_let_in_who_is_not_named() -> None:
    text = "\n".join(path.read_text() for path in FOLDER.glob("*.tf"))
    assert "allUsers" not in text
    assert "allAuthenticatedUsers" not in text
    assert not re.search(r'"roles/(owner|editor|viewer|storage\.admin|iam\.serviceAccountAdmin)"', text)
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "release.yml").read_text())
    assert workflow["jobs"]["production"]["environment"]["name"] == "production"
    assert "/attribute.environment/${var.repository}/production" in text
