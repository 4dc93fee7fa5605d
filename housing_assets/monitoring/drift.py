"""Drift: whether what was served looks like what the answering version was trained on.

A feature has drifted when its change is more than chance, corrected for the number of tests, and large: on a
day of 300,000 rows everything is significant, on a day of 30 anything looks large.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from housing_assets.monitoring.distances import (
    Distance,
    adjusted,
    category_distance,
    numeric_distance,
    rate_p_value,
)
from housing_assets.monitoring.findings import Finding, Severity
from housing_assets.monitoring.prediction_rows import PREDICTED, Mask
from housing_assets.monitoring.served import ServedDay
from housing_assets.monitoring.training_data import Reference
from housing_serving.features import CATEGORICAL_FEATURE, NULLABLE_FEATURE, NUMERIC_FEATURES


@dataclass(frozen=True)
class DriftRules:
    """When a change is one to tell of; shares are fractions.

    Attributes:
        min_rows: rows a version must have answered on a day to be judged.
        alpha: share of false alarms among those that the tests of a day would let through.
        warning_psi: population stability index of a change.
        critical_psi: of a change that a training should follow.
        warning_wasserstein: mean way that values moved, in standard deviations of training. PSI does not see
            how far away the values in an outer bin are.
        warning_missing: change of the share of nulls.
        critical_missing: of a change that is critical.
        warning_unseen: share of rows whose category was not in training.
        critical_unseen: of a share that is critical.
    """

    min_rows: int = 200
    alpha: float = 0.01
    warning_psi: float = 0.1
    critical_psi: float = 0.2
    warning_wasserstein: float = 0.5
    warning_missing: float = 0.05
    critical_missing: float = 0.15
    warning_unseen: float = 0.01
    critical_unseen: float = 0.05


RULES = DriftRules()


@dataclass(frozen=True)
class FeatureDrift:
    """One feature, or the predicted price, of the rows that one version answered.

    Attributes:
        version: the model version's number.
        name: the column.
        rows: rows that the version answered.
        distance: of the known values.
        missing: share of nulls, served.
        training_missing: share of nulls in training.
        unseen: share of rows whose category was not in training.
        p_value: adjusted, of the distance.
        missing_p_value: adjusted, of the change of the share of nulls.
        unseen_p_value: adjusted, of the unseen categories.
        finding: what there is to tell; None when nothing is.
    """

    version: str
    name: str
    rows: int
    distance: Distance
    missing: float
    training_missing: float
    unseen: float
    p_value: float
    missing_p_value: float
    unseen_p_value: float
    finding: Finding | None = None


@dataclass(frozen=True)
class Drift:
    """All versions of a day.

    Attributes:
        features: of every version with enough rows.
        too_few: rows by version that are too few to be judged.
    """

    features: tuple[FeatureDrift, ...]
    too_few: dict[str, int]

    @property
    def findings(self) -> list[Finding]:
        """One per feature, of the version in which it is worst; the worst first, the price last."""
        worst: dict[str, Finding] = {}
        for finding in sorted((one.finding for one in self.features if one.finding), key=_badness):
            worst[finding.cause] = finding
        ordered = sorted(worst.values(), key=_badness, reverse=True)
        # The prices follow the features: what moved them is the cause to look at.
        return sorted(ordered, key=lambda finding: finding.subject == PREDICTED)

    def table(self) -> pd.DataFrame:
        """One row per version and feature, for people."""
        return pd.DataFrame([_row(one) for one in self.features], columns=TABLE_COLUMNS)

    def metrics(self) -> dict[str, float]:
        """Figures that chart over days: the largest of all versions."""
        found: dict[str, float] = {"drifted_features": float(len(self.findings))}
        for one in self.features:
            values = {
                f"psi_{one.name}": one.distance.psi,
                f"wasserstein_{one.name}": one.distance.wasserstein,
                f"missing_{one.name}": one.missing if one.name == NULLABLE_FEATURE else None,
                f"unseen_{one.name}": one.unseen if one.name == CATEGORICAL_FEATURE else None,
            }
            for name, value in values.items():
                if value is not None:
                    found[name] = max(found.get(name, 0.0), value)
        found["max_psi"] = max((one.distance.psi for one in self.features), default=0.0)
        return found


TABLE_COLUMNS = [
    *("version", "feature", "verdict", "rows", "PSI", "KS", "Wasserstein", "Jensen-Shannon", "p (adjusted)"),
    *("nulls", "nulls in training", "unseen"),
]


def find_drift(day: ServedDay, references: Mapping[str, Reference], rules: DriftRules = RULES) -> Drift:
    """Compare what each version answered with what it was trained on.

    Args:
        day: the served rows.
        references: by version; versions without one are left out.
        rules: when a change is one to tell of.
    """
    rows = day.rows_by_version()
    judged = {
        name: reference for name, reference in references.items() if rows.get(name, 0) >= rules.min_rows
    }
    few = {name: count for name, count in rows.items() if count < rules.min_rows}
    features = [
        feature
        for version, reference in judged.items()
        for feature in _version_drift(day, version, rows[version], reference, rules)
    ]
    return Drift(tuple(features), few)


@dataclass(frozen=True)
class _Tested:
    """A feature before the correction for many tests; a test that makes no sense for it has p = None."""

    name: str
    distance: Distance
    missing: float
    training_missing: float
    unseen: float
    p_values: tuple[float, float | None, float | None]


def _version_drift(
    day: ServedDay, version: str, rows: int, reference: Reference, rules: DriftRules
) -> Iterator[FeatureDrift]:
    answered = day.answered_by(version)
    tested = [_tested_numbers(day, name, answered, reference) for name in (*NUMERIC_FEATURES, PREDICTED)]
    tested.insert(len(NUMERIC_FEATURES), _tested_categories(day, answered, reference))
    done = [p_value for one in tested for p_value in one.p_values if p_value is not None]
    corrected = iter(adjusted(np.array(done)).tolist())
    for one in tested:
        p_values = [1.0 if p_value is None else next(corrected) for p_value in one.p_values]
        drift = FeatureDrift(
            version=version,
            name=one.name,
            rows=rows,
            distance=one.distance,
            missing=one.missing,
            training_missing=one.training_missing,
            unseen=one.unseen,
            p_value=p_values[0],
            missing_p_value=p_values[1],
            unseen_p_value=p_values[2],
        )
        yield replace(drift, finding=_finding(drift, rules))


def _tested_numbers(day: ServedDay, name: str, answered: Mask | None, reference: Reference) -> _Tested:
    served, training = day.numbers(name, answered), reference.rows[name].to_numpy(dtype=np.float64)
    nulls, nulls_before = np.isnan(served), np.isnan(training)
    missing_p = None
    if name == NULLABLE_FEATURE:
        missing_p = rate_p_value((int(nulls_before.sum()), len(training)), (int(nulls.sum()), len(served)))
    known = served[~nulls] if nulls.any() else served
    # Nothing but nulls: their share says it all.
    distance = numeric_distance(training[~nulls_before], known) if len(known) else NOTHING_KNOWN
    return _Tested(
        name,
        distance,
        float(nulls.mean()),
        float(nulls_before.mean()),
        0.0,
        (distance.p_value, missing_p, None),
    )


NOTHING_KNOWN = Distance(0.0, 0.0, None, None, 1.0, False)


def _tested_categories(day: ServedDay, answered: Mask | None, reference: Reference) -> _Tested:
    served = day.categories(answered)
    counts = reference.rows[CATEGORICAL_FEATURE].value_counts()
    training = {str(name): int(count) for name, count in counts.items()}
    distance = category_distance(training, served)
    rows = sum(served.values())
    unseen = sum(count for name, count in served.items() if name not in training)
    unseen_p = rate_p_value((0, len(reference.rows)), (unseen, rows)) if unseen else None
    return _Tested(CATEGORICAL_FEATURE, distance, 0.0, 0.0, unseen / rows, (distance.p_value, None, unseen_p))


@dataclass(frozen=True)
class _Reason:
    """Why a feature has drifted: a measure beyond its limit."""

    value: float
    warning: float
    critical: float | None
    what: str
    action: str
    retrain: bool

    @property
    def severity(self) -> Severity:
        return "critical" if self.critical is not None and self.value >= self.critical else "warning"

    @property
    def threshold(self) -> float:
        return self.critical if self.severity == "critical" and self.critical is not None else self.warning


def _finding(drift: FeatureDrift, rules: DriftRules) -> Finding | None:
    reasons = [reason for reason in _reasons(drift, rules) if reason.value >= reason.warning]
    if not reasons:
        return None
    worst = max(reasons, key=lambda reason: (reason.severity == "critical", reason.value / reason.warning))
    what = " and ".join(reason.what for reason in reasons)
    retrain = any(reason.retrain and reason.severity == "critical" for reason in reasons)
    return Finding(
        cause=f"drift:{drift.name}",
        severity=worst.severity,
        subject=drift.name,
        value=worst.value,
        threshold=worst.threshold,
        text=f"{drift.name} of {drift.rows:,} rows that version {drift.version} answered: {what}.",
        action=worst.action,
        retrain=retrain and drift.name != PREDICTED and not drift.distance.constant,
    )


def _reasons(drift: FeatureDrift, rules: DriftRules) -> Iterator[_Reason]:
    """What is more than chance; whether it is large, the caller sees."""
    distance = drift.distance
    if drift.p_value < rules.alpha:
        action = (
            "Find the feature that moved the prices; if none did, compare the versions that answered."
            if drift.name == PREDICTED
            else f"Find the callers that send another {drift.name}; if the world changed, train anew."
        )
        what = f"its distribution moved away from training's (PSI {distance.psi:.2f})"
        if distance.constant:
            what = f"it has one and the same value in every row (PSI {distance.psi:.2f})"
            action = f"Mend what fills {drift.name} at the callers' side: it is constant."
        yield _Reason(distance.psi, rules.warning_psi, rules.critical_psi, what, action, True)
        if distance.wasserstein is not None and distance.psi < rules.warning_psi:
            what = f"some values lie far out ({distance.wasserstein:.1f} standard deviations on the average)"
            yield _Reason(distance.wasserstein, rules.warning_wasserstein, None, what, action, False)
    if drift.missing_p_value < rules.alpha:
        yield _Reason(
            abs(drift.missing - drift.training_missing),
            rules.warning_missing,
            rules.critical_missing,
            f"{drift.missing:.1%} are null, {drift.training_missing:.1%} in training",
            f"Mend what fills {drift.name} at the callers' side: the imputer stands in for it.",
            False,
        )
    if drift.unseen_p_value < rules.alpha:
        yield _Reason(
            drift.unseen,
            rules.warning_unseen,
            rules.critical_unseen,
            f"{drift.unseen:.1%} are of a category that was not in training",
            f"Train on data that have every {drift.name} which is asked for.",
            True,
        )


def _badness(finding: Finding) -> tuple[bool, float]:
    return finding.severity == "critical", finding.value / finding.threshold


def _row(one: FeatureDrift) -> tuple[object, ...]:
    distance, finding = one.distance, one.finding
    return (
        *(one.version, one.name, finding.severity if finding else "no drift", one.rows),
        *(distance.psi, distance.ks, distance.wasserstein, distance.jensen_shannon, one.p_value),
        *(one.missing, one.training_missing, one.unseen),
    )
