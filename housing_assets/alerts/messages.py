"""What people read: notices about alerts as one message."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from housing_assets.alerts.book import Event, Notice
from housing_assets.monitoring.findings import Severity

SERVICE = "housing-price-api"
RUNBOOK = "docs/runbook.md"
# A message stays readable; `housing alerts` lists the rest.
MAX_LINES = 20
WORDS: dict[Event, str] = {"opened": "opened", "worse": "became worse", "closed": "closed"}


@dataclass(frozen=True)
class Message:
    """One message, the same on every channel.

    Attributes:
        title: one line.
        body: a paragraph for each notice.
        severity: the worst of what is not over; none if all of it is.
        key: the same for the same notices, by which a reader of mail can drop what came twice.
    """

    title: str
    body: str
    severity: Severity | None
    key: str


def message_of(notices: Sequence[Notice]) -> Message:
    """The message that carries these notices."""
    paragraphs = [_paragraph(notice) for notice in notices[:MAX_LINES]]
    if left := len(notices) - MAX_LINES:
        paragraphs += [f"... and {left} more: housing alerts"] if left > 0 else []
    severities = {notice.alert.severity for notice in notices if notice.event != "closed"}
    return Message(
        title=f"{SERVICE}: {_counts(notices)}",
        body="\n\n".join(paragraphs),
        severity="critical" if "critical" in severities else "warning" if severities else None,
        key=sha256("\n".join(notice.model_dump_json() for notice in notices).encode()).hexdigest(),
    )


def trial_message() -> Message:
    """What `housing alerts test` sends."""
    body = "Nothing is wrong: this shows that messages about alerts arrive here."
    return Message(title=f"{SERVICE}: test", body=body, severity=None, key=secrets.token_hex(32))


def _counts(notices: Sequence[Notice]) -> str:
    events = [notice.event for notice in notices]
    if len(events) == 1:
        return f"{notices[0].alert.cause} {WORDS[events[0]]}"
    return ", ".join(
        f"{events.count(event)} alerts {WORDS[event]}"
        if events.count(event) > 1
        else f"1 alert {WORDS[event]}"
        for event in WORDS
        if event in events
    )


def _paragraph(notice: Notice) -> str:
    alert = notice.alert
    if notice.event == "closed":
        return f"CLOSED {alert.cause}: last found on {alert.last_day}, first on {alert.first_day}."
    worse = " (was a warning)" if notice.event == "worse" else ""
    return (
        f"{alert.severity.upper()} {alert.cause}{worse}, {alert.last_day}: {alert.text} "
        f"Measured {alert.value:.4g}, limit {alert.threshold:.4g}.\n"
        f"What to do: {alert.action} See {RUNBOOK}#{alert.kind}."
    )
