"""Delivering what the outboxes hold: each channel for itself, nothing lost, nothing twice.

A delivery is claimed in the alert book before it begins, so that of two processes one makes it. Whoever dies
between a delivery and the note that it was made has it made once more: that is better than not at all.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime, timedelta

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from housing_assets.alerts.book import AlertBook, AlertBookConflict, AlertBookStore, Notice, Outbox
from housing_assets.alerts.channels import Channel, DeliveryFailed, deliver
from housing_assets.alerts.messages import message_of

logger = logging.getLogger("housing_assets.alerts")

# Longer than any delivery takes, so that nobody begins it again meanwhile; then ever longer.
FIRST_RETRY = timedelta(minutes=2)
LONGEST_RETRY = timedelta(hours=1)


@dataclass(frozen=True)
class Outcome:
    """What came of one delivery.

    Attributes:
        channel: its name.
        notices: what it carried.
        problem: why it failed, if it did.
    """

    channel: str
    notices: tuple[Notice, ...]
    problem: str | None


def deliver_outboxes(books: AlertBookStore, channels: Mapping[str, Channel], now: datetime) -> list[Outcome]:
    """Deliver what is due, on all channels at the same time.

    Raises:
        AlertBookConflict: somebody else delivers at the same time.
    """
    stored = books.read()
    due = [box for box in stored.book.outboxes if box.channel in channels and _is_due(box, now)]
    if not due:
        return []
    books.write(stored.book.with_outboxes(*(_claimed(box, now) for box in due)), stored)
    with ThreadPoolExecutor(len(due)) as pool:
        begun = [pool.submit(_deliver, channels[box.channel], box) for box in due]
        outcomes = []
        # One after the other as they end: a channel that hangs must not cost the others their note.
        for delivery in as_completed(begun):
            outcomes.append(delivery.result())
            _settle(books, outcomes[-1])
    return sorted(outcomes, key=lambda outcome: outcome.channel)


def _is_due(box: Outbox, now: datetime) -> bool:
    return bool(box.notices) and (box.not_before is None or box.not_before <= now)


def _claimed(box: Outbox, now: datetime) -> Outbox:
    wait = min(FIRST_RETRY * 2 ** min(box.attempts, 10), LONGEST_RETRY)
    return box.model_copy(update={"attempts": box.attempts + 1, "not_before": now + wait})


def _deliver(channel: Channel, box: Outbox) -> Outcome:
    try:
        deliver(channel, message_of(box.notices))
    except DeliveryFailed as error:
        return Outcome(box.channel, box.notices, str(error))
    except Exception as error:
        # A defect of one channel must not cost the others the note of what they delivered.
        logger.exception("the alert channel %s failed in a way that nobody expected", box.channel)
        return Outcome(box.channel, box.notices, f"{type(error).__name__}: {error}")
    return Outcome(box.channel, box.notices, None)


@retry(
    retry=retry_if_exception_type(AlertBookConflict),
    stop=stop_after_attempt(5),
    wait=wait_random(0.05, 0.5),
    reraise=True,
)
def _settle(books: AlertBookStore, outcome: Outcome) -> None:
    """Note what came of a delivery; what is to be told since then stays."""
    books.change(lambda book: _settled(book, outcome))


def _settled(book: AlertBook, outcome: Outcome) -> AlertBook:
    box = book.outbox(outcome.channel)
    if outcome.problem is not None:
        return book.with_outboxes(box.model_copy(update={"problem": outcome.problem}))
    left = tuple(notice for notice in box.notices if notice not in outcome.notices)
    return book.with_outboxes(Outbox(channel=box.channel, notices=left))
