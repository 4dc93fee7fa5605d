"""Reference of the command line, from the commands themselves."""

import re

import typer

from housing_assets.cli import app

INTRODUCTION = """# Command line

`housing` is installed into `.venv/bin` by `make setup`. Each command explains itself with `--help`.
"""


def command_page() -> str:
    """The page."""
    command = typer.main.get_command(app)
    from typer.cli import get_docs_for_click  # noqa: PLC0415  (adds a command of its own when imported)

    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="housing")
    # The page has a title of its own, and the list of commands cuts their sentences short.
    text = re.sub(r"^# `housing`\n", "", text)
    return INTRODUCTION + re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+", "", text)
