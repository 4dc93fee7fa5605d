"""The alert book: which alerts are open, which were, and which channel is still to be told what.

One small JSON object in the storage root, so that it survives daemons and machines.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from housing_assets.monitoring.findings import Finding, Kind, Severity
from housing_assets.recent_reports import Evidence
from housing_assets.storage import ObjectConflict, ObjectMissing, ObjectStore

ALERT_BOOK = "monitoring/alerts.json"
# As many alerts that are over as the book remembers: it stays small.
MAX_CLOSED = 200

Event = Literal["opened", "worse", "closed"]


class AlertBookUnreadable(Exception):
    """The alert book is none; the message says what is wrong with it and what to do."""


class AlertBookConflict(Exception):
    """Somebody else changed the alert book at the same time; the change of theirs stands."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Alert(_Part):
    """One cause, from the day it was found to the day it was gone.

    Attributes:
        cause: what it is about; at most one open alert has it.
        kind: whose reports found it.
        severity: the worst it has been.
        subject: the feature, metric or segment.
        value: what was measured last.
        threshold: the limit, in the same unit.
        text: one sentence for people.
        action: what to do.
        from_labels: whether it takes labels to find it.
        first_day: the day of the report that opened it.
        last_day: the newest day it was found on.
        opened_at: when it was opened.
        closed_at: when it was closed; none while it is open.
    """

    cause: str
    kind: Kind
    severity: Severity
    subject: str
    value: float
    threshold: float
    text: str
    action: str
    from_labels: bool = False
    first_day: date
    last_day: date
    opened_at: AwareDatetime
    closed_at: AwareDatetime | None = None

    @property
    def evidence(self) -> Evidence:
        """Which reports can say that it is gone."""
        return "labels" if self.from_labels else self.kind

    @classmethod
    def open(cls, kind: Kind, day: date, finding: Finding, now: datetime) -> Self:
        """The alert of a finding that has none."""
        return cls(kind=kind, first_day=day, last_day=day, opened_at=now, **_facts(finding))

    def seen(self, day: date, finding: Finding) -> Self:
        """The same alert, found again; it never becomes less severe while it is open."""
        facts = _facts(finding)
        if self.severity == "critical":
            facts["severity"] = "critical"
        return self.model_copy(update={**facts, "last_day": max(self.last_day, day)})


def _facts(finding: Finding) -> dict[str, object]:
    return finding.model_dump(exclude={"retrain"})


class Notice(_Part):
    """What a channel is to be told about one alert, as it was then."""

    event: Event
    alert: Alert


class Outbox(_Part):
    """What one channel is still to be told.

    Attributes:
        channel: its name.
        notices: the oldest first; one message carries all of them.
        attempts: deliveries of the oldest notice that were begun.
        not_before: when the next delivery may begin.
        problem: why the last one failed.
    """

    channel: str
    notices: tuple[Notice, ...] = ()
    attempts: int = 0
    not_before: AwareDatetime | None = None
    problem: str | None = None


class AlertBook(_Part):
    """All alerts and outboxes."""

    # In the order in which they were opened.
    opened: tuple[Alert, ...] = ()
    # In the order in which they were closed.
    closed: tuple[Alert, ...] = ()
    outboxes: tuple[Outbox, ...] = ()

    def to_json(self) -> bytes:
        """The bytes of the object: indented, for people who look at it."""
        return self.model_dump_json(indent=2).encode() + b"\n"

    def outbox(self, channel: str) -> Outbox:
        """The channel's outbox; an empty one if it has none."""
        return next((box for box in self.outboxes if box.channel == channel), Outbox(channel=channel))

    def with_outboxes(self, *changed: Outbox) -> Self:
        """The same book with these outboxes for their channels; empty ones are left out."""
        names = {box.channel for box in changed}
        kept = [box for box in self.outboxes if box.channel not in names]
        boxes = tuple(box for box in (*kept, *changed) if box.notices)
        return self.model_copy(update={"outboxes": boxes})


@dataclass(frozen=True)
class StoredBook:
    """A book as it lies in the storage root; an empty one without a generation before the first alert."""

    book: AlertBook
    generation: int | None


class AlertBookStore:
    """The alert book of one storage root."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read(self) -> StoredBook:
        """The book and the generation it has.

        Raises:
            AlertBookUnreadable: what lies there is no alert book.
        """
        uri = self._store.uri(ALERT_BOOK)
        try:
            # In this order: a book that changes in between has a newer generation than the one kept.
            generation = self._store.info(ALERT_BOOK).generation
            data = self._store.read(ALERT_BOOK)
        except ObjectMissing:
            return StoredBook(AlertBook(), None)
        try:
            return StoredBook(AlertBook.model_validate_json(data), generation)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(map(str, problem["loc"])) or "book"
            raise AlertBookUnreadable(
                f"{uri} is no alert book ({field}: {problem['msg']}): restore it, or delete it, then "
                "what is still wrong is opened anew"
            ) from error

    def write(self, book: AlertBook, over: StoredBook) -> StoredBook:
        """Put a book in the place of the one that was read; nothing is written when they are equal.

        Raises:
            AlertBookConflict: another writer was first; the book is theirs.
        """
        if book == over.book:
            return over
        absent = over.generation is None
        try:
            stored = self._store.write(
                ALERT_BOOK, book.to_json(), if_absent=absent, if_generation=over.generation
            )
        except ObjectConflict as error:
            raise AlertBookConflict(
                f"{self._store.uri(ALERT_BOOK)} was changed by somebody else at the same time; the next look "
                "starts from there"
            ) from error
        return StoredBook(book, stored.generation)

    def change(self, change: Callable[[AlertBook], AlertBook]) -> StoredBook:
        """Read, change and write."""
        stored = self.read()
        return self.write(change(stored.book), stored)
