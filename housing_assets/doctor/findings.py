"""What a check has found."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

# warning: it works, but perhaps not as meant.
Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: What was looked at.
        status: Whether it is as it should be.
        text: What was found.
        mend: What to do about it; empty where all is well.
    """

    check: str
    status: Status
    text: str
    mend: str = ""


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", text)


def warning(check: str, text: str, mend: str) -> Finding:
    """It works, but perhaps not as meant."""
    return Finding(check, "warning", text, mend)


def error(check: str, text: str, mend: str) -> Finding:
    """It does not work."""
    return Finding(check, "error", text, mend)


def or_ok(check: str, findings: Iterable[Finding], text: str) -> Iterator[Finding]:
    """The findings or, where there are none, that all is well."""
    found = list(findings)
    yield from found or [ok(check, text)]


def told(check: str, message: str, otherwise: str) -> Finding:
    """A message like `what is wrong: what to do` as an error; `otherwise` where it says only the first."""
    text, _, mend = message.partition(": ")
    return error(check, text, mend or otherwise)


def refused_settings(check: str, refused: ValidationError) -> Iterator[Finding]:
    """What is wrong with the settings, one by one."""
    for problem in refused.errors():
        place = str(problem["loc"][0]).upper() if problem["loc"] else ""
        if place:
            yield error(check, f"{place} is not valid: {problem['msg']}", "correct it; see .env.example")
            continue
        for message in problem["msg"].removeprefix("Value error, ").split("; "):
            yield told(check, message, "see .env.example")
