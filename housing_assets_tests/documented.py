"""What README and the documentation tell people to run: every fenced block, with its page and language."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
# Where the examples expect the service.
ADDRESS = "http://127.0.0.1:8080"
# A block with such a title needs what no test has (an account, a cluster); people see the title too.
NEEDS_ACCOUNT = re.compile(r'title="Needs (an?|several) [^"]+"')
_FENCED = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: path of its page, below the repository.
        language: of the block.
        text: what it holds.
        needs_account: whether its title says that it needs an account.
    """

    page: str
    language: str
    text: str
    needs_account: bool


def blocks(*languages: str) -> list[Block]:
    """Every block in one of these languages."""
    return [
        Block(str(page.relative_to(ROOT)), language, text, bool(NEEDS_ACCOUNT.search(options)))
        for page in PAGES
        for language, options, text in _FENCED.findall(page.read_text(encoding="utf-8"))
        if language in languages
    ]


def commands(text: str) -> Iterator[str]:
    """The commands of a shell block: words with one space in between, without comments.

    Raises:
        ValueError: a quotation does not end.
    """
    pending = ""
    for line in text.splitlines():
        pending += line.removesuffix("\\") + "\n"
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:
            continue
        if line.endswith("\\"):
            continue
        if words:
            yield " ".join(words)
        pending = ""
    if pending:
        raise ValueError(f"a quotation does not end: {pending}")
