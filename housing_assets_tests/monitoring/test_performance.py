"""Performance: the ten metrics against the version's own, and alarms that say what is wrong."""

import numpy as np
import pandas as pd
import pytest

from housing_assets.ml.metrics import METRICS, regression_metrics
from housing_assets.monitoring.findings import Finding
from housing_assets.monitoring.performance import RULES, Performance, measure
from housing_assets_tests.monitoring.days import answered, bundle, resampled, served
from housing_serving.bundle import BundleManifest
from housing_serving.features import TARGET

ROWS = 1_000
# What the version scored on its test set: one that misses by some 10 %.
OWN = {"mape": 8.0, "within_10pct": 70.0, "mae": 20_000.0, "interval_coverage": 0.9}


def manifest(version: int = 3, **own: float) -> BundleManifest:
    found = bundle(version).manifest
    ranges = tuple(
        feature.model_copy(update={"maximum": {"population": 3_000.0}.get(feature.name, feature.maximum)})
        for feature in found.features
    )
    return found.model_copy(update={"metrics": OWN | own, "features": ranges})


def rows_of(features: pd.DataFrame | None = None) -> pd.DataFrame:
    usual = resampled(ROWS, seed=1) if features is None else features
    # As many as the maximum above allows.
    return answered(usual.assign(population=usual["population"].clip(upper=3_000.0)))


def labelled(rows: pd.DataFrame, spread: float, seed: int = 2) -> pd.DataFrame:
    """Prices that miss by so many percent on the average, and intervals that hold nine tenths of them."""
    scale = spread / 100 * (np.pi / 2) ** 0.5
    misses = np.random.default_rng(seed).normal(0, scale, len(rows)).clip(-0.9, 0.9)
    price = rows["predicted_price"]
    known = rows.assign(**{TARGET: price * (1 + misses)})
    return known.assign(lower=price * (1 - 1.645 * scale), upper=price * (1 + 1.645 * scale))


def measured(rows: pd.DataFrame, scored: pd.DataFrame, **own: float) -> Performance:
    return measure(served([rows]), scored, {"3": manifest(**own)})


def causes(findings: list[Finding]) -> list[str]:
    return [finding.cause for finding in findings]


def test_a_version_that_does_as_on_its_test_set_raises_no_alarm() -> None:
    rows = rows_of()
    scored = labelled(rows, spread=6.0)
    found = measured(rows, scored)
    assert found.findings == []
    exact = regression_metrics(scored[TARGET], scored["predicted_price"])
    assert {name: found.metrics[name] for name in METRICS} == exact
    assert found.metrics["interval_coverage"] == pytest.approx(0.9, abs=0.03)
    table = found.scores.set_index("metric")
    assert (table.loc["mape", "served"], table.loc["mape", "test set"]) == (exact["mape"], 8.0)


def test_segments_add_up_to_the_whole() -> None:
    rows = rows_of()
    scored = labelled(rows, spread=6.0)
    segments = measured(rows, scored).segments
    assert segments["labels"].sum() == ROWS
    inland = scored[scored["ocean_proximity"] == "INLAND"]
    [served_inland] = segments[segments["ocean_proximity"] == "INLAND"].to_dict("records")
    exact = regression_metrics(inland[TARGET], inland["predicted_price"])
    assert served_inland["mape"] == pytest.approx(exact["mape"])


def test_prices_that_are_no_longer_right_raise_an_alarm_and_ask_for_a_training() -> None:
    rows = rows_of()
    found = measured(rows, labelled(rows, spread=25.0))
    # Not once more for each region, none of which is worse than the others.
    assert causes(found.findings) == ["performance:mape", "performance:within_10_percent"]
    error, close = found.findings
    assert error.severity == "critical"
    assert error.retrain
    assert error.threshold == RULES.max_mape
    assert error.value > RULES.max_mape
    assert close.threshold == pytest.approx(70.0 * 0.85)
    assert "on its test set it was 8.0 %" in error.text


def test_a_version_that_was_never_better_is_held_against_itself() -> None:
    rows = rows_of()
    scored = labelled(rows, spread=19.0)
    assert measured(rows, scored, mape=19.0, within_10pct=32.0).findings == []
    assert "performance:mape" in causes(measured(rows, scored).findings)


def test_a_few_labels_decide_nothing() -> None:
    rows = rows_of()
    found = measured(rows, labelled(rows, spread=40.0)[: RULES.min_labels - 1])
    assert found.findings == []
    assert found.metrics["mape"] > 20


def test_intervals_that_hold_too_little_raise_an_alarm() -> None:
    rows = rows_of()
    scored = labelled(rows, spread=6.0)
    narrow = scored.assign(lower=scored["predicted_price"] * 0.97, upper=scored["predicted_price"] * 1.03)
    [finding] = measured(rows, narrow).findings
    assert (finding.cause, finding.severity) == ("performance:interval_coverage", "warning")
    assert finding.threshold == pytest.approx(0.9 - RULES.coverage_tolerance)


def test_a_segment_that_went_wrong_is_named() -> None:
    rows = rows_of()
    scored = labelled(rows, spread=4.0)
    inland = scored["ocean_proximity"] == "INLAND"
    wrong = scored.assign(**{TARGET: scored[TARGET].mask(inland, scored["predicted_price"] * 1.4)})
    assert "performance:segment:INLAND" in causes(measured(rows, wrong).findings)


def test_predictions_that_collapse_to_one_value_raise_an_alarm_without_labels() -> None:
    rows = rows_of().assign(predicted_price=150_000.0, lower=1e5, upper=2e5)
    found = measured(rows, rows[:0].assign(**{TARGET: 0.0}))
    [finding] = found.findings
    assert (finding.cause, finding.value, finding.threshold) == ("performance:price_spread", 0.0, 10_000.0)
    assert not finding.retrain


def test_inputs_beyond_twice_the_training_maximum_raise_an_alarm() -> None:
    rows = rows_of()
    far = rows.assign(population=rows["population"].mask(rows.index < 6, 6_001.0))
    at_the_limit = rows.assign(population=rows["population"].mask(rows.index < 6, 6_000.0))
    none = rows[:0].assign(**{TARGET: 0.0})
    [finding] = measured(far, none).findings
    assert (finding.cause, finding.value) == ("performance:beyond_training:population", 6 / ROWS)
    assert "6 rows have a population above 2 times training's largest, 3,000" in finding.text
    assert measured(at_the_limit, none).findings == []


def test_slow_requests_raise_an_alarm() -> None:
    rows = answered(resampled(4_000, seed=1).assign(population=900.0))
    slow = rows.assign(
        latency_ms=rows["latency_ms"].mask(rows["request_id"].isin([f"request-{n}" for n in range(9)]), 900.0)
    )
    none = rows[:0].assign(**{TARGET: 0.0})
    [finding] = measured(slow, none).findings
    assert (finding.cause, finding.value, finding.threshold) == ("performance:p99_latency", 900.0, 200.0)
    assert measured(rows, none).metrics["latency_p99_ms"] == 4.0


def test_a_version_without_a_bundle_is_held_against_the_published_limits() -> None:
    rows = rows_of()
    found = measure(served([rows]), labelled(rows, spread=25.0), {})
    assert causes(found.findings)[:2] == ["performance:mape", "performance:within_10_percent"]


def test_a_day_without_predictions_has_nothing_to_tell() -> None:
    rows = rows_of()
    found = measure(served([]), rows[:0].assign(**{TARGET: 0.0}), {})
    assert (found.findings, found.metrics) == ([], {"predictions": 0.0})
