"""One look: what the newest reports say goes into the alert book, and what is to be told is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from housing_assets.alerts.book import Alert, AlertBookStore
from housing_assets.alerts.channels import Channel
from housing_assets.alerts.delivery import Outcome, deliver_outboxes
from housing_assets.alerts.rules import AlertRules, apply_reports
from housing_assets.recent_reports import recent_reports
from housing_assets.storage import ObjectStore

RULES = AlertRules()


@dataclass(frozen=True)
class Look:
    """What came of a look.

    Attributes:
        opened: alerts that are open now.
        delivered: deliveries that were tried.
        problems: reports that cannot be read.
    """

    opened: tuple[Alert, ...]
    delivered: tuple[Outcome, ...]
    problems: tuple[str, ...]


def watch(
    store: ObjectStore, channels: Mapping[str, Channel], now: datetime, rules: AlertRules = RULES
) -> Look:
    """Open, close and deliver; however often, everything happens once.

    Raises:
        AlertBookConflict: somebody else does the same at the same time.
        AlertBookUnreadable: the alert book is damaged.
        housing_assets.storage.StorageError: the storage root cannot be used.
    """
    recent = recent_reports(store, now.date(), rules.reports)
    books = AlertBookStore(store)
    stored = books.change(lambda book: apply_reports(book, recent, list(channels), rules, now))
    delivered = deliver_outboxes(books, channels, now)
    problems = [problem for found in recent for problem in found.problems]
    return Look(stored.book.opened, tuple(delivered), tuple(problems))
