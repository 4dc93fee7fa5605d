"""Repeated measurements of two sides, as figures with a median, a spread and a ratio."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Result = TypeVar("Result")
# Told about every finished measurement.
Progress = Callable[[str], None]


class MeasurementRefused(Exception):
    """What was to be measured does not do its work, so its figures would be worth nothing."""


@dataclass(frozen=True)
class Figure:
    """One row of the table: a figure of ours next to the same figure of a peer.

    Attributes:
        subject: what was measured.
        name: which figure, with its unit.
        peer: whom it is compared with.
        ours: our value in every repeat.
        theirs: the peer's value in every repeat, in the same order.
        more_is_better: a throughput rather than a cost.
        goal: the ratio to reach, if there is one.
    """

    subject: str
    name: str
    peer: str
    ours: Sequence[float]
    theirs: Sequence[float]
    more_is_better: bool = False
    goal: str = ""

    @property
    def ratios(self) -> list[float]:
        """The better by the worse where ours is better, repeat by repeat: above one, ours wins."""
        costs = [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]
        return [1 / cost for cost in costs] if self.more_is_better else costs


@dataclass(frozen=True)
class Reading:
    """A figure without a peer: its value in every repeat, and what it shall be."""

    name: str
    values: Sequence[float]
    goal: str = ""


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Wall-clock seconds of a piece of work, and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def spread(values: Sequence[float]) -> str:
    """Median, and smallest to largest of several values."""
    if len(values) == 1:
        return readable(values[0])
    return f"{readable(median(values))} ({readable(min(values))} to {readable(max(values))})"


def readable(value: float) -> str:
    """A value with as many decimals as its size deserves."""
    decimals = 0 if value >= 1_000 else 1 if value >= 100 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f}"


def figures(
    subject: str,
    peer: str,
    ours: Sequence[Mapping[str, float]],
    theirs: Sequence[Mapping[str, float]],
) -> list[Figure]:
    """A figure per name, from one mapping of names to values per repeat and side."""
    return [
        Figure(subject, name, peer, [one[name] for one in ours], [one[name] for one in theirs])
        for name in ours[0]
    ]
