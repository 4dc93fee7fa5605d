"""What ends a canary's trial, and what does not; figures are worked out by hand."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from housing_assets.deployment.canary import CanaryRules, judge
from housing_assets.deployment.target import Counts, Histogram, Reading

RULES = CanaryRules()
LATENCY_BOUNDS = (0.002, 0.01, 0.1, 0.25, 1.0, np.inf)
PRICE_BOUNDS = (100_000.0, 200_000.0, 300_000.0, np.inf)
NOTHING = Reading(stable=Counts(0, 0, Histogram(np.array([1.0, np.inf]), np.zeros(2), 0.0)), canary=None)


def histogram(bounds: tuple[float, ...], counts: Mapping[float, float]) -> Histogram:
    values = np.array([counts.get(bound, 0.0) for bound in bounds])
    return Histogram(np.array(bounds), values, float(np.dot(values, np.minimum(bounds, 500_000.0))))


def counts(
    requests: float,
    errors: float = 0,
    latencies: Mapping[float, float] | None = None,
    prices: Mapping[float, float] | None = None,
) -> Counts:
    spread = {100_000.0: requests / 4, 200_000.0: requests / 2, 300_000.0: requests / 4}
    return Counts(
        requests,
        errors,
        histogram(LATENCY_BOUNDS, latencies or {0.002: requests}),
        histogram(PRICE_BOUNDS, prices or spread),
    )


def reading(canary: Counts, stable: Counts | None = None, **changes: object) -> Reading:
    return Reading(stable or counts(900), canary, **changes)  # type: ignore[arg-type]


def action(now: Reading, seconds: float = 10.0, start: Reading = NOTHING) -> str:
    return judge(start, now, seconds, RULES).action


def test_a_canary_that_does_as_well_is_promoted_when_the_window_has_passed() -> None:
    assert action(reading(counts(100)), seconds=9.9) == "watch"
    verdict = judge(NOTHING, reading(counts(100)), 10.0, RULES)
    assert (verdict.action, verdict.reason) == (
        "promote",
        "100 requests in 10 s, 0 failed; neither slow nor shifted",
    )


def test_a_quiet_canary_gets_more_time_and_is_then_promoted_or_not_as_the_rules_say() -> None:
    assert action(reading(counts(49)), seconds=10) == "watch"
    assert action(reading(counts(49)), seconds=20) == "promote"
    strict = CanaryRules(promote_when_quiet=False)
    verdict = judge(NOTHING, reading(counts(49)), 20, strict)
    assert (verdict.action, verdict.reason) == (
        "abort",
        "only 49 requests in 20 s, 0 failed, 50 were asked for",
    )


def test_failures_end_the_trial_at_once_and_a_single_one_does_not() -> None:
    assert action(reading(counts(3, errors=2)), seconds=1) == "watch"
    assert action(reading(counts(3, errors=3)), seconds=1) == "abort"
    assert action(reading(counts(100, errors=5))) == "promote"
    verdict = judge(NOTHING, reading(counts(100, errors=6)), 2, RULES)
    assert verdict.reason == "it failed 6 of 100 requests, more than 5.0%"


def test_slow_answers_end_the_trial_and_a_hiccup_does_not() -> None:
    assert action(reading(counts(100, latencies={0.002: 98, 0.25: 2}))) == "promote"
    verdict = judge(NOTHING, reading(counts(100, latencies={0.002: 90, 0.25: 10})), 2, RULES)
    assert verdict.action == "abort"
    assert verdict.reason.startswith("it is slow: 10 of 100 requests took more than 100 ms")


def test_what_is_slow_depends_on_how_slow_the_stable_version_is() -> None:
    slow_stable = counts(900, latencies={0.25: 900})
    assert action(reading(counts(100, latencies={0.25: 100}), stable=slow_stable)) == "promote"
    assert action(reading(counts(100, latencies={1.0: 100}), stable=slow_stable)) == "promote"
    assert action(reading(counts(100, latencies={np.inf: 100}), stable=slow_stable)) == "abort"


def test_shifted_prices_end_the_trial() -> None:
    # As many dollars per instance as the stable version's 200,000, and a half more.
    shifted = counts(100, prices={300_000.0: 100})
    verdict = judge(NOTHING, reading(shifted), 2, RULES)
    assert verdict.action == "abort"
    assert verdict.reason == (
        "its prices have shifted by +50%: $300,000 on average, of the same instances $200,000 by the stable "
        "version; 15% is allowed"
    )


def test_prices_that_differ_both_ways_end_the_trial_too() -> None:
    differing = replace(counts(100), price_difference=0.31 * 100 * 200_000)
    verdict = judge(NOTHING, reading(differing), 2, RULES)
    assert verdict.reason == (
        "its prices differ from the stable version's by 31% of their size on average, 30% is allowed"
    )
    assert action(reading(replace(counts(100), price_difference=0.29 * 100 * 200_000))) == "promote"


def test_a_shift_among_few_requests_is_chance() -> None:
    few = counts(5, prices={300_000.0: 5})
    assert action(reading(few), seconds=2) == "watch"


def test_only_what_happened_during_the_trial_counts() -> None:
    before = reading(counts(100, errors=50), stable=counts(900))
    now = reading(counts(200, errors=50, latencies={0.002: 200}), stable=counts(1800))
    assert action(now, start=before) == "promote"


def test_a_canary_that_a_process_cannot_load_is_gone_at_once() -> None:
    now = reading(counts(0), unloadable={"http://api-2:8080": 3})
    verdict = judge(NOTHING, now, 0.5, RULES)
    assert verdict.reason == "it cannot be loaded by 3 process(es) behind http://api-2:8080"


def test_a_trial_that_somebody_ended_is_over() -> None:
    assert judge(NOTHING, Reading(counts(900), None), 2, RULES).reason == "somebody ended the trial"


def test_prices_that_a_target_does_not_measure_are_not_judged() -> None:
    bare = Counts(100, 0, histogram(LATENCY_BOUNDS, {0.002: 100}))
    assert action(Reading(bare, bare)) == "promote"


def test_quantiles_are_those_of_prometheus() -> None:
    found = histogram(LATENCY_BOUNDS, {0.002: 50, 0.01: 40, 0.1: 10})
    assert found.quantile(0.5) == pytest.approx(0.002)
    assert found.quantile(0.9) == pytest.approx(0.01)
    assert found.quantile(0.95) == pytest.approx(0.055)
    assert histogram(LATENCY_BOUNDS, {np.inf: 9}).quantile(0.99) == 1.0
    assert np.isnan(histogram(LATENCY_BOUNDS, {}).quantile(0.99))
