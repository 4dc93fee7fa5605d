"""What a deployment target can do, and the values it deals in. One protocol, several targets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from housing_serving.features import FloatArray
from housing_serving.releases import Change


class DeploymentError(RuntimeError):
    """A deployment cannot go on; the message says why and what to do. What served before still serves."""


class DeploymentConflict(DeploymentError):
    """Another deployment was first; nothing of this one was applied."""


class TargetUnavailable(DeploymentError):
    """The target cannot be asked now."""


@dataclass(frozen=True)
class Histogram:
    """Counts between bounds.

    Attributes:
        bounds: Upper bounds, ascending, shape (n,), infinity last.
        counts: How many lie at or below each and above the one before, shape (n,).
        total: Sum of the values themselves.
    """

    bounds: FloatArray
    counts: FloatArray
    total: float

    @property
    def size(self) -> float:
        """How many values there are."""
        return float(self.counts.sum())

    @property
    def mean(self) -> float:
        """Their mean; NaN without any."""
        return self.total / self.size if self.size else float("nan")

    def quantile(self, share: float) -> float:
        """The value below which a share of them lies, linear within its bin; NaN without any.

        As Prometheus' `histogram_quantile`: what lies above the last finite bound counts as that bound.
        """
        if not self.size:
            return float("nan")
        reached = np.cumsum(self.counts)
        place = int(np.searchsorted(reached, share * self.size))
        if place >= len(self.bounds) - 1:
            return float(self.bounds[-2])
        lower = float(self.bounds[place - 1]) if place else 0.0
        before = float(reached[place - 1]) if place else 0.0
        within = (share * self.size - before) / float(self.counts[place])
        return lower + (float(self.bounds[place]) - lower) * within


@dataclass(frozen=True)
class Counts:
    """What one version answered within a time: the difference of two readings of its counters.

    Attributes:
        requests: Requests that it was to answer.
        errors: Those that it did not answer; on a fleet, another version answered them.
        latencies: Requests by latency: upper bounds in seconds, ascending, infinity last, and how many
            lay between the bound before and this one.
        prices: Instances that the canary was asked for, by the price this version predicts, in dollars, as
            `latencies`; None where the target's metrics have no prices.
        price_difference: Sum of the absolute differences between this version's prices and the stable
            version's, of the same instances; of the canary only.
    """

    requests: float
    errors: float
    latencies: Histogram
    prices: Histogram | None = None
    price_difference: float = 0.0


@dataclass(frozen=True)
class Reading:
    """What a target's metrics say at one moment, as totals that never fall while the target object lives.

    Attributes:
        stable: Of the version that answers most requests.
        canary: Of the canary version; None without one.
        unloadable: Processes that cannot load the canary, by what is wrong.
    """

    stable: Counts
    canary: Counts | None
    unloadable: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TargetStatus:
    """What a target is to serve, and what it serves.

    Attributes:
        stable: The version to serve; None before the first deployment.
        canary: The version that gets `canary_percent` of the requests.
        canary_percent: 0 to 100.
        previous: What rollback restores.
        canary_owner: Who watches the canary.
        serving: Processes (or shares of traffic in percent) by the version that they really serve.
        url: Where it answers; None when nobody knows.
        problems: What is wrong with it, for people.
    """

    stable: int | None
    canary: int | None = None
    canary_percent: float = 0.0
    previous: int | None = None
    canary_owner: str | None = None
    serving: Mapping[int, float] = field(default_factory=dict)
    url: str | None = None
    problems: tuple[str, ...] = ()


class DeploymentTarget(Protocol):
    """Where a model is served, and how its versions take each other's place.

    Every step that changes something takes what the caller believes about the target (`stable`, the version
    that serves now) and fails with `DeploymentConflict`, changing nothing, when that is no longer so.
    """

    name: str

    def status(self) -> TargetStatus:
        """What it is to serve, and what it serves."""

    def start_canary(
        self, version: int, percent: float, *, stable: int | None, owner: str, change: Change
    ) -> None:
        """Let a version answer some of the requests, once it has shown that it can.

        On a target without a stable version there is nothing to compare with: the version is only prepared.
        """

    def read(self) -> Reading:
        """What the metrics say now.

        Raises:
            TargetUnavailable: there are none to be had.
        """

    def promote(self, version: int, *, stable: int | None, owner: str | None, change: Change) -> None:
        """Let a version answer everything; the one before becomes `previous`.

        With a stable version and an owner, only the owner's own canary is promoted: somebody may have ended
        its trial meanwhile. Without an owner a version is promoted as it is, when none is being tried out.
        """

    def abort_canary(self, version: int, *, change: Change) -> None:
        """Take the canary's requests away; nothing happens when it is gone already."""

    def roll_back(self, *, stable: int, change: Change) -> int:
        """Let the version before, which is the change's, serve again; returns it.

        Raises:
            DeploymentError: there is none.
        """

    def history(self) -> tuple[Change, ...]:
        """What was changed, the latest last."""


def named(version: int | None) -> str:
    """A version as a sentence names it."""
    return "no version" if version is None else f"version {version}"


def trial_goes_on(version: int, owner: str | None) -> DeploymentConflict:
    """What to say to whoever comes while a version is being tried out."""
    return DeploymentConflict(
        f"version {version} is being tried out by {owner}: wait until that has ended, or end it with "
        "`housing release rollback`"
    )


def refuse_other_stable(found: int | None, expected: int | None) -> None:
    """Fail with `DeploymentConflict` when another version serves than the caller believes."""
    if found != expected:
        raise DeploymentConflict(f"{named(found)} serves by now, not {named(expected)}: another was first")
