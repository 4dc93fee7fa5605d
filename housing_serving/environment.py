"""What the environment holds, completed from files: secrets that a platform mounts, and `.env`."""

import os
import re
from pathlib import Path

from dotenv import load_dotenv

FOLDER_VARIABLE = "HOUSING_SECRETS_DIR"
DEFAULT_FOLDER = "/run/secrets"
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")


def load_environment() -> None:
    """Set the variables that are not set yet: from files named as they are, then from `.env`.

    Secrets belong into files: what a container's environment holds, everybody sees who may inspect it.
    Libraries that read their own names find them as well.

    Raises:
        PermissionError: a secret cannot be read; the message says which one and what to do.
    """
    folder = Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if path.is_file() and _VARIABLE.fullmatch(path.name) and path.name not in os.environ:
            os.environ[path.name] = _content(path)
    load_dotenv(".env", override=False)


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except PermissionError as error:
        raise PermissionError(
            f"the secret {path} cannot be read: let the user with id {os.geteuid()} read it"
        ) from error
