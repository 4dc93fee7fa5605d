"""Small pieces of Markdown."""

import re
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; whatever would end a cell is escaped."""
    lines = [list(header), ["---"] * len(header), *([cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def cell(text: str) -> str:
    """A text in one cell of a table: its paragraphs become lines."""
    return re.sub(r"\n\s*\n", "<br>", text.strip()).replace("\n", " ").replace("|", "\\|")


def code(text: object) -> str:
    """A value as code; nothing for nothing."""
    return "" if text is None or text == "" else f"`{text}`"


def prose(docstring: str | None) -> str:
    """A docstring as Markdown: the sections for programmers (`Attributes:`, `Raises:`) are left out."""
    return re.split(r"\n\s*(?:Args|Attributes|Raises|Returns):\n", docstring or "")[0].strip()
