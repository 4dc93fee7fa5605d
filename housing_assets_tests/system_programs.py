"""Programs of the operating system that some tests need."""

import os
import shutil

import pytest


def require(program: str, package: str | None = None) -> str:
    """The program's path; without it the test is skipped, or fails where `CI` promises that it is there.

    `package` is Debian's name for what has the program, where it is another.
    """
    path = shutil.which(program)
    if path is None:
        message = f"{program} is not installed: install it (Debian: apt-get install {package or program})"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
