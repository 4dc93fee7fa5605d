"""Whether a canary does well: errors, latency and prices next to the stable version, over the same time."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from housing_assets.deployment.target import Counts, Histogram, Reading

# Chance of calling a canary slow that is not, per look.
SIGNIFICANCE = 0.001


@dataclass(frozen=True)
class CanaryRules:
    """What a canary must show, as named values.

    Attributes:
        percent: Share of the requests it answers.
        window_seconds: How long it is watched at least.
        min_requests: How many requests it must have answered by then.
        max_windows: After so many windows without enough requests, `promote_when_quiet` decides.
        promote_when_quiet: Whether a canary that few have asked, and that did nothing wrong, is promoted.
        max_error_rate: Share of its requests it may fail.
        max_slow_ratio: What counts as slow: so many times the stable version's 99th percentile.
        min_slow_seconds: Nothing faster than this counts as slow.
        max_price_shift: How far its mean price may lie from the stable version's, of the same instances.
        max_price_difference: How far its prices may lie from those on average, either way.
    """

    percent: float = 10.0
    window_seconds: float = 10.0
    min_requests: int = 50
    max_windows: int = 2
    promote_when_quiet: bool = True
    max_error_rate: float = 0.05
    max_slow_ratio: float = 2.0
    min_slow_seconds: float = 0.1
    max_price_shift: float = 0.15
    max_price_difference: float = 0.3


@dataclass(frozen=True)
class Verdict:
    """What is to happen to a canary, and why."""

    action: Literal["watch", "promote", "abort"]
    reason: str


def judge(start: Reading, now: Reading, seconds: float, rules: CanaryRules) -> Verdict:
    """Judge a canary by what happened between two readings, `seconds` apart.

    Whatever is wrong ends the trial at once; that nothing is wrong takes the whole window to show.
    """
    if now.canary is None:
        return Verdict("abort", "somebody ended the trial")
    stable = since(start.stable, now.stable)
    canary = now.canary if start.canary is None else since(start.canary, now.canary)
    problem = (
        unloadable(now)
        or failing(canary, rules)
        or slow(stable, canary, rules)
        or shifted(stable, canary, rules)
    )
    return Verdict("abort", problem) if problem else patience(canary, seconds, rules)


def patience(canary: Counts, seconds: float, rules: CanaryRules) -> Verdict:
    """Whether a canary with which nothing is wrong has been watched long enough."""
    answered = f"{canary.requests:,.0f} requests in {seconds:.0f} s, {canary.errors:,.0f} failed"
    enough = canary.requests >= rules.min_requests
    if seconds < rules.window_seconds:
        return Verdict("watch", answered)
    if enough:
        return Verdict("promote", f"{answered}; neither slow nor shifted")
    if seconds < rules.window_seconds * rules.max_windows:
        return Verdict("watch", f"{answered}; waiting for {rules.min_requests:,}")
    action: Literal["promote", "abort"] = "promote" if rules.promote_when_quiet else "abort"
    return Verdict(action, f"only {answered}, {rules.min_requests:,} were asked for")


def unloadable(now: Reading) -> str | None:
    """What there is to say when processes cannot load the version."""
    where = ", ".join(f"{count} process(es) behind {url}" for url, count in now.unloadable.items())
    return f"it cannot be loaded by {where}" if where else None


def since(before: Counts, now: Counts) -> Counts:
    """What was counted between two readings."""
    prices = now.prices
    if prices is not None and before.prices is not None:
        prices = _histogram_since(before.prices, prices)
    return Counts(
        now.requests - before.requests,
        now.errors - before.errors,
        _histogram_since(before.latencies, now.latencies),
        prices,
        now.price_difference - before.price_difference,
    )


def failing(canary: Counts, rules: CanaryRules) -> str | None:
    """What there is to say when too many of its requests failed."""
    # Of few requests, one that fails is no rate yet.
    if canary.errors <= rules.max_error_rate * max(canary.requests, rules.min_requests):
        return None
    return (
        f"it failed {canary.errors:,.0f} of {canary.requests:,.0f} requests, "
        f"more than {rules.max_error_rate:.1%}"
    )


def slow(stable: Counts, canary: Counts, rules: CanaryRules) -> str | None:
    """What there is to say when clearly more than 1 % of its requests are slow.

    A 99th percentile of a few hundred requests is decided by the slowest two or three, so the number of slow
    ones is put to a binomial test instead.
    """
    reference = stable.latencies.quantile(0.99)
    limit = rules.min_slow_seconds
    if np.isfinite(reference):
        limit = max(limit, rules.max_slow_ratio * reference)
    latencies = canary.latencies
    # The bin that holds the limit is left out: what lies in it may be faster.
    lower = np.concatenate([[0.0], latencies.bounds[:-1]])
    too_slow = float(latencies.counts[lower >= limit].sum())
    if stats.binom.sf(too_slow - 1, round(latencies.size), 0.01) >= SIGNIFICANCE:
        return None
    return (
        f"it is slow: {too_slow:,.0f} of {latencies.size:,.0f} requests took more than "
        f"{limit * 1000:,.0f} ms (99th percentile {latencies.quantile(0.99) * 1000:,.0f} ms, stable version "
        f"{reference * 1000:,.0f} ms)"
    )


def shifted(stable: Counts, canary: Counts, rules: CanaryRules) -> str | None:
    """What there is to say when it prices the same instances otherwise than the stable version."""
    if stable.prices is None or canary.prices is None or canary.requests < rules.min_requests:
        return None
    if not canary.prices.size:
        return None
    expected, found = stable.prices.mean, canary.prices.mean
    shift = found / expected - 1
    if abs(shift) > rules.max_price_shift:
        return (
            f"its prices have shifted by {shift:+.0%}: ${found:,.0f} on average, of the same instances "
            f"${expected:,.0f} by the stable version; {rules.max_price_shift:.0%} is allowed"
        )
    difference = canary.price_difference / canary.prices.total
    if difference > rules.max_price_difference:
        return (
            f"its prices differ from the stable version's by {difference:.0%} of their size on average, "
            f"{rules.max_price_difference:.0%} is allowed"
        )
    return None


def _histogram_since(before: Histogram, now: Histogram) -> Histogram:
    if not before.size:
        return now
    return replace(now, counts=now.counts - before.counts, total=now.total - before.total)
