"""Reference of settings: names, types and defaults from the models, sentences from `.env.example`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs_build.markdown import code, table
from housing_assets.settings import Settings
from housing_serving.environment import FOLDER_VARIABLE
from housing_serving.settings import ServingSettings
from housing_serving.webapp.settings import WebappSettings

EXAMPLE = Path(__file__).parents[1] / ".env.example"
VARIABLE = re.compile(r"^# ?([A-Z][A-Z0-9_]+)=(.*)$")
# Read by others than the models.
ELSEWHERE = {
    "STORAGE_EMULATOR_HOST": "Google's client library",
    "MLFLOW_TRACKING_AUTH": "MLflow's client library",
    FOLDER_VARIABLE: "all of them, before anything else",
}
SIGNS = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}
INTRODUCTION = """# Settings

Every value is read from the environment, and from a file `.env` in the folder where a command runs; what the
environment holds wins. A value that is missing, malformed or a placeholder ends the start with a message that
names it and says what to set. `.env.example` lists them all, to be copied.
"""


@dataclass
class Group:
    """Settings that stand together in `.env.example`, and what is said of them."""

    text: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def settings_page() -> str:
    """The page.

    Raises:
        ValueError: `.env.example` and the models do not hold the same names.
    """
    readers = {
        "pipeline": {str(one.validation_alias): one for one in Settings.model_fields.values()},
        "service": {name.upper(): one for name, one in ServingSettings.model_fields.items()},
        "web app": {name.upper(): one for name, one in WebappSettings.model_fields.items()},
    }
    groups = list(groups_of(EXAMPLE.read_text(encoding="utf-8")))
    listed = {name for group in groups for name in group.names}
    if different := listed ^ set(ELSEWHERE).union(*readers.values()):
        raise ValueError(f".env.example and the settings differ in {', '.join(sorted(different))}")
    # The tables of this page are one table to the eye: their columns stand below each other.
    parts = [INTRODUCTION, '<div class="aligned" markdown>']
    for group in groups:
        rows = [
            row(name, {who: fields[name] for who, fields in readers.items() if name in fields})
            for name in group.names
        ]
        parts += [" ".join(group.text), table(["name", "value", "default", "read by"], rows)]
    return "\n\n".join([*parts, "</div>"])


def groups_of(example: str) -> Iterator[Group]:
    """The groups of `.env.example`, without the introduction of the file."""
    group = Group()
    for line in example.split("\n\n", maxsplit=1)[1].splitlines():
        variable = VARIABLE.match(line)
        if variable:
            group.names.append(variable[1])
            continue
        if group.names and line.startswith("# "):
            yield group
            group = Group()
        group.text += [line.removeprefix("# ").strip()] if line.strip() else []
    yield group


def row(name: str, readers: Mapping[str, FieldInfo]) -> list[str]:
    """Name, type with bounds, default and readers of one setting."""
    if not readers:
        return [code(name), "text", "", ELSEWHERE[name]]
    first = next(iter(readers.values()))
    return [code(name), kind(first), default(first), ", ".join(readers)]


def kind(one: FieldInfo) -> str:
    """What a value may be, in words."""
    options = [option for option in get_args(one.annotation) if option is not type(None)] or [one.annotation]
    first = options[0]
    if isinstance(first, type) and issubclass(first, Enum):
        return " or ".join(code(member.value) for member in first)
    if isinstance(first, str):
        return " or ".join(code(option) for option in options)
    names = {bool: "`true` or `false`", int: "whole number", float: "number", SecretStr: "secret text"}
    bounds = [
        f"{sign} {getattr(limit, name)}"
        for limit in one.metadata
        for name, sign in SIGNS.items()
        if hasattr(limit, name)
    ]
    return ", ".join([names.get(first, "path" if first is Path else "text"), *bounds])


def default(one: FieldInfo) -> str:
    """The default as it would stand in `.env`."""
    value = one.default
    if value is PydanticUndefined or value is None:
        return ""
    if isinstance(value, Enum):
        value = value.value
    return code(str(value).lower() if isinstance(value, bool) else value)
