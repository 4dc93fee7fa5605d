"""The locks of the images: hashed, without hosts, and of the versions that the tests ran with."""

import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from housing_assets_tests.shipping.make import REPOSITORY

IMAGES = {"assets": ("pipeline", "postgres", "k8s", "scale"), "serving": ("serving",), "webapp": ("webapp",)}
LOCKS = sorted((REPOSITORY / "deploy" / "requirements").glob("*.lock"))
PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)(.*(?:\n +--hash=sha256:[0-9a-f]{64}.*)*)", re.MULTILINE)


def locked(lock: Path) -> dict[str, set[str]]:
    """Versions by name; several where they differ between Pythons."""
    found = defaultdict(set)
    for name, version, _ in PINNED.findall(lock.read_text()):
        found[name].add(version)
    return dict(found)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_has_hashes_and_no_host(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    pins = PINNED.findall(text)
    assert len(pins) == len(re.findall(r"==", re.sub(r";.*", "", text)))
    assert all("--hash=sha256:" in rest for _, _, rest in pins)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_an_image_has_what_was_tested(lock: Path) -> None:
    tested = locked(REPOSITORY / "requirements.lock")
    other = {
        name: versions for name, versions in locked(lock).items() if not versions <= tested.get(name, set())
    }
    assert other == {}, "make image-locks derives the images' locks from requirements.lock"


@pytest.mark.parametrize(("image", "extras"), IMAGES.items(), ids=str)
def test_an_image_has_what_its_extras_ask_for(image: str, extras: tuple[str, ...]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted, queue = list(project["dependencies"]), list(extras)
    while queue:
        for line in project["optional-dependencies"][queue.pop()]:
            requirement = Requirement(line)
            own = requirement.name == "housing-assets"
            queue.extend(requirement.extras if own else ())
            wanted.extend(() if own else (line,))
    found = locked(REPOSITORY / "deploy" / "requirements" / f"{image}.lock")
    for requirement in map(Requirement, wanted):
        versions = found.get(requirement.name, set())
        assert any(requirement.specifier.contains(version) for version in versions), requirement
