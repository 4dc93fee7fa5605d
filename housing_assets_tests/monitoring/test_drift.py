"""Drift: each injected change is found and laid at the right feature; days like training raise no alarm."""

import re

import numpy as np
import pandas as pd
import pytest

from housing_assets.monitoring.drift import RULES, Drift, find_drift
from housing_assets_tests.monitoring.days import Change, answered, reference, resampled, served
from housing_serving.features import NUMERIC_FEATURES

ROWS = 2_000
QUIET_DAYS = 60


def drift_of(features: pd.DataFrame) -> Drift:
    return find_drift(served([answered(features)]), {"3": reference()})


def with_nulls(share: float) -> Change:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        chosen = np.random.default_rng(5).random(len(rows)) < share
        return rows.assign(total_bedrooms=rows["total_bedrooms"].mask(chosen))

    return change


def few_far_out(rows: pd.DataFrame) -> pd.DataFrame:
    """One caller in twelve counts people twenty times: the last bin holds most of them, but far out."""
    more = (rows["population"] * 20).clip(upper=1e6)
    return rows.assign(population=rows["population"].mask(rows.index % 12 == 0, more))


INJECTED: dict[str, tuple[Change, str, str]] = {
    "incomes x 1.5": (
        lambda rows: rows.assign(median_income=rows["median_income"] * 1.5),
        "median_income",
        "PSI",
    ),
    "every income + 20": (
        lambda rows: rows.assign(median_income=rows["median_income"] + 20),
        "median_income",
        "PSI",
    ),
    "everything inland": (lambda rows: rows.assign(ocean_proximity="INLAND"), "ocean_proximity", "PSI"),
    "30 % nulls": (with_nulls(0.3), "total_bedrooms", r"\d\d\.\d% are null, 1\.\d% in training"),
    "a constant feature": (
        lambda rows: rows.assign(housing_median_age=29.0),
        "housing_median_age",
        "one and the same value in every row",
    ),
    "a tail far out": (few_far_out, "population", "some values lie far out"),
}


@pytest.mark.parametrize("name", INJECTED)
def test_an_injected_change_is_found_and_laid_at_its_feature(name: str) -> None:
    change, feature, text = INJECTED[name]
    findings = drift_of(change(resampled(ROWS, seed=1))).findings
    causes = [finding.cause for finding in findings if finding.subject != "predicted_price"]
    assert causes == [f"drift:{feature}"]
    assert findings[0].subject == feature
    assert re.search(text, findings[0].text)
    assert findings[0].value >= findings[0].threshold


def test_a_region_that_training_had_not_is_found() -> None:
    known = reference()
    without = known.rows[known.rows["ocean_proximity"] != "ISLAND"].reset_index(drop=True)
    features = resampled(ROWS, seed=2)
    islands = features.assign(
        ocean_proximity=features["ocean_proximity"].mask(features.index % 20 == 0, "ISLAND")
    )
    drift = find_drift(served([answered(islands)]), {"3": type(known)(known.manifest, without)})
    [finding] = drift.findings
    assert (finding.cause, finding.severity, finding.retrain) == ("drift:ocean_proximity", "critical", True)
    assert finding.value == pytest.approx(0.05)
    assert "5.0% are of a category that was not in training" in finding.text


def test_what_a_training_would_not_mend_asks_for_none() -> None:
    nulls = drift_of(with_nulls(0.3)(resampled(ROWS, seed=3))).findings
    constant = drift_of(resampled(ROWS, seed=3).assign(housing_median_age=29.0)).findings
    richer = drift_of(resampled(ROWS, seed=3).assign(median_income=12.0)).findings
    moved = drift_of(INJECTED["incomes x 1.5"][0](resampled(ROWS, seed=3))).findings
    assert not any(finding.retrain for finding in (*nulls, *constant, *richer))
    assert [finding.retrain for finding in moved] == [True] + [False] * (len(moved) - 1)


def test_sixty_days_like_training_raise_at_most_two_alarms() -> None:
    sizes = np.random.default_rng(0).integers(RULES.min_rows, 3_000, QUIET_DAYS)
    found = [
        finding.text
        for seed, rows in enumerate(sizes.tolist())
        for finding in drift_of(resampled(rows, seed)).findings
    ]
    assert len(found) <= 2, found


def test_a_small_change_of_very_many_rows_is_significant_and_no_alarm() -> None:
    features = resampled(300_000, seed=4)
    drift = drift_of(features.assign(median_income=features["median_income"] * 1.02))
    [income] = [one for one in drift.features if one.name == "median_income"]
    assert income.p_value < RULES.alpha
    assert drift.findings == []


def test_too_few_rows_are_not_judged_and_said_to_be() -> None:
    features = resampled(RULES.min_rows - 1, seed=5).assign(median_income=14.0)
    drift = drift_of(features)
    assert (drift.features, drift.findings, drift.too_few) == ((), [], {"3": RULES.min_rows - 1})


def test_each_version_is_held_against_its_own_training_data() -> None:
    # Version 4 was trained on twice the incomes, and is asked for them.
    known = reference(4)
    richer = type(known)(known.manifest, known.rows.assign(median_income=known.rows["median_income"] * 2))
    usual = answered(resampled(ROWS, seed=6))
    asked = resampled(ROWS, seed=7)
    double = answered(asked.assign(median_income=asked["median_income"] * 2), version=4, request="other")
    day = served([usual, double])
    both = find_drift(day, {"3": reference(3), "4": richer})
    assert [one.version for one in both.features if one.name == "median_income"] == ["3", "4"]
    assert [finding.subject for finding in both.findings if finding.subject in NUMERIC_FEATURES] == []
    mixed_up = find_drift(day, {"3": richer, "4": reference(3)})
    [finding] = [one for one in mixed_up.findings if one.subject == "median_income"]
    assert finding.severity == "critical"


def test_the_table_and_the_metrics_tell_the_same() -> None:
    drift = drift_of(INJECTED["every income + 20"][0](resampled(ROWS, seed=8)))
    table = drift.table().set_index("feature")
    assert len(table) == len(NUMERIC_FEATURES) + 2
    assert table.loc["median_income", "verdict"] == "critical"
    assert table.loc["latitude", "verdict"] == "no drift"
    metrics = drift.metrics()
    assert metrics["psi_median_income"] == table.loc["median_income", "PSI"] == metrics["max_psi"]
    assert metrics["drifted_features"] == (table["verdict"] != "no drift").sum()
