"""Runs make targets with the interpreter of the tests in place of a virtual environment of their own."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

REPOSITORY = Path(__file__).parents[2]


def make(
    *targets: str, cwd: Path = REPOSITORY, variables: Mapping[str, str] = MappingProxyType({})
) -> "subprocess.CompletedProcess[str]":
    """Run make there, with these variables beside a plain PATH."""
    installed = Path(sys.prefix) / ".installed"
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(cwd), **variables}
    return subprocess.run(
        # As old as can be: never made anew, whatever is newer.
        ["make", "--no-print-directory", f"--old-file={installed}", f"VENV={sys.prefix}", *targets],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
