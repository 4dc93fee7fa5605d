"""Python, the installed packages, and names in the environment that are almost settings."""

import difflib
import os
import platform
from collections.abc import Iterator
from importlib import metadata

from dotenv import dotenv_values
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from housing_assets.doctor.findings import Finding, error, or_ok, warning
from housing_assets.settings import Settings

DISTRIBUTION = "housing-assets"
# What this command needs itself, and what it starts.
EXTRA = "pipeline"
INSTALL = "make setup installs what fits"
ALMOST = 0.85
OTHER_NAMES = frozenset({"STORAGE_EMULATOR_HOST", "DAGSTER_HOME", "GOOGLE_APPLICATION_CREDENTIALS"})


def check_python() -> Iterator[Finding]:
    """Whether this Python is one that the packages are made for."""
    running = platform.python_version()
    wanted = str(metadata.metadata(DISTRIBUTION)["Requires-Python"])
    wrong = []
    if running not in SpecifierSet(wanted, prereleases=True):
        wrong.append(
            error(
                "python", f"Python is {running}, which is not {wanted}", "make setup with PYTHON set to one"
            )
        )
    yield from or_ok("python", wrong, running)


def check_packages() -> Iterator[Finding]:
    """Whether everything that is required is installed, in a version that fits."""
    required = {str(wanted): wanted for wanted in _required(EXTRA)}.values()
    wrong = [finding for wanted in required for finding in _wrong_package(wanted)]
    yield from or_ok("packages", wrong, "complete, and of versions that fit")


def _required(extra: str) -> Iterator[Requirement]:
    """What the distribution needs with an extra, which may be made of others."""
    for text in metadata.requires(DISTRIBUTION) or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        if wanted.name == DISTRIBUTION:
            for other in sorted(wanted.extras):
                yield from _required(other)
        else:
            yield wanted


def _wrong_package(wanted: Requirement) -> Iterator[Finding]:
    try:
        found = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        yield error("packages", f"{wanted.name} is not installed", f"pip install '{wanted}', or {INSTALL}")
        return
    if not wanted.specifier.contains(found, prereleases=True):
        yield error(
            "packages",
            f"{wanted.name} is {found}, which does not fit {wanted.specifier}",
            f"pip install '{wanted}', or {INSTALL}",
        )


def check_names(serving_names: frozenset[str]) -> Iterator[Finding]:
    """Names that nothing reads, and that differ little from one that is read."""
    known = {str(field.validation_alias) for field in Settings.model_fields.values()}
    known |= serving_names | OTHER_NAMES
    set_here = sorted({*os.environ, *dotenv_values(".env")} - known)
    almost = []
    for name in set_here:
        meant = difflib.get_close_matches(name, known, n=1, cutoff=ALMOST)
        if meant and name.upper() == name:
            almost.append(
                warning("names", f"{name} is set, and is no setting", f"rename it, if {meant[0]} is meant")
            )
    yield from or_ok("names", almost, "none is almost a setting")
