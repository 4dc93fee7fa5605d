"""Performance: how right the served prices were where the truth became known, and how the service did.

A version is held against its own scores on its test set: a model that misses by 15 % from the start is no
news when it misses by 15 %.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from housing_assets.ml.metrics import METRICS, regression_metrics
from housing_assets.monitoring.findings import Finding
from housing_assets.monitoring.prediction_rows import PREDICTED
from housing_assets.monitoring.served import ServedDay
from housing_serving.bundle import BundleManifest
from housing_serving.features import CATEGORICAL_FEATURE, NUMERIC_FEATURES, TARGET

COVERAGE = "interval_coverage"
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class PerformanceRules:
    """When figures are bad enough to tell of; the first limits of each kind are the published ones.

    Attributes:
        min_within_10pct: percent of prices that miss by at most 10 %.
        max_mape: mean absolute percentage error.
        max_p99_latency_ms: of requests.
        min_price_std: dollars; below it the predictions have collapsed to one value.
        max_input_factor: a value above so many times training's maximum is beyond it.
        max_worsening: share by which an error may be above the version's own on its test set, where that is
            the laxer limit.
        max_segment_factor: how many times the limit of `mape`, or the `mape` of all rows where that is more,
            a single segment may reach.
        coverage_tolerance: how far the intervals' coverage may be below their level.
        max_beyond_share: share of rows beyond twice training's maximum.
        min_beyond_rows: and so many of them.
        min_labels: labelled prices from which on a score is judged.
        min_rows: rows, or requests, from which on a figure without labels is.
        confidence: one-sided, that a score is beyond its limit and not there by chance.
    """

    min_within_10pct: float = 65.0
    max_mape: float = 12.0
    max_p99_latency_ms: float = 200.0
    min_price_std: float = 10_000.0
    max_input_factor: float = 2.0
    max_worsening: float = 0.15
    max_segment_factor: float = 1.5
    coverage_tolerance: float = 0.05
    max_beyond_share: float = 0.001
    min_beyond_rows: int = 5
    min_labels: int = 100
    min_rows: int = 200
    confidence: float = 0.99


RULES = PerformanceRules()
RETRAIN = "Train on newer data; until that version serves, consider a rollback."


@dataclass(frozen=True)
class Performance:
    """How a day's predictions did.

    Attributes:
        scores: metric, then a row's value per version, and that version's own on its test set.
        segments: errors by version and `ocean_proximity`.
        inputs: spread of each numeric feature, and how much of it is beyond training's maximum.
        metrics: figures of all versions together, which chart over days.
        findings: what is bad enough to tell of.
    """

    scores: pd.DataFrame
    segments: pd.DataFrame
    inputs: pd.DataFrame
    metrics: dict[str, float]
    findings: list[Finding]


def measure(
    day: ServedDay,
    scored: pd.DataFrame,
    manifests: Mapping[str, BundleManifest],
    rules: PerformanceRules = RULES,
) -> Performance:
    """Score what is labelled, and look at everything that was served.

    Args:
        day: all served rows.
        scored: the labelled ones, as `matching.match` gives them.
        manifests: of the versions that answered; one that is not there is held against the rules alone.
        rules: the limits.
    """
    findings: dict[str, Finding] = {}
    score_tables, segment_tables = [], []
    # Of several versions with the same trouble, the one that answered most tells of it.
    by_version = scored.groupby("model_version", sort=True, observed=True)
    for version, rows in sorted(by_version, key=lambda group: len(group[1]), reverse=True):
        manifest = manifests.get(str(version))
        own = manifest.metrics if manifest else {}
        score_tables.append(_score_table(str(version), rows, own))
        segment_tables.append(_segment_table(str(version), rows))
        for finding in _score_findings(str(version), rows, own, rules):
            findings.setdefault(finding.cause, finding)
    inputs = _inputs(day, manifests, rules)
    for finding in (*_input_findings(inputs, rules), *_service_findings(day, rules)):
        findings.setdefault(finding.cause, finding)
    return Performance(
        scores=pd.concat(score_tables, ignore_index=True) if score_tables else pd.DataFrame(columns=SCORES),
        segments=pd.concat(segment_tables, ignore_index=True)
        if segment_tables
        else pd.DataFrame(columns=SEGMENTS),
        inputs=inputs,
        metrics={**_served_metrics(day), **_scores(scored)},
        findings=list(findings.values()),
    )


SCORES = ["version", "metric", "labels", "served", "test set"]
SEGMENTS = ["version", CATEGORICAL_FEATURE, "labels", "mae", "mape", "wmape", "within_10pct", COVERAGE]


def _scores(rows: pd.DataFrame) -> dict[str, float]:
    """The ten metrics and the coverage; without those that do not exist for so few rows."""
    if not len(rows):
        return {}
    found = {**regression_metrics(rows[TARGET], rows[PREDICTED]), COVERAGE: float(_covered(rows).mean())}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _covered(rows: pd.DataFrame) -> "pd.Series[bool]":
    return (rows[TARGET] >= rows["lower"]) & (rows[TARGET] <= rows["upper"])


def _score_table(version: str, rows: pd.DataFrame, own: Mapping[str, float]) -> pd.DataFrame:
    scores = _scores(rows)
    table = [(version, name, len(rows), scores.get(name), own.get(name)) for name in (*METRICS, COVERAGE)]
    return pd.DataFrame(table, columns=SCORES)


def _segment_table(version: str, rows: pd.DataFrame) -> pd.DataFrame:
    parts = []
    for name, part in rows.groupby(CATEGORICAL_FEATURE, sort=True, observed=True):
        scores = _scores(part)
        parts.append((version, name, len(part), *(scores.get(metric) for metric in SEGMENTS[3:])))
    return pd.DataFrame(parts, columns=SEGMENTS)


def _score_findings(
    version: str, rows: pd.DataFrame, own: Mapping[str, float], rules: PerformanceRules
) -> Iterator[Finding]:
    if len(rows) < rules.min_labels:
        return
    share = 100 * (rows[TARGET] - rows[PREDICTED]).abs() / rows[TARGET]
    told = f"of {len(rows):,} labelled prices of version {version}"
    limit = max(rules.max_mape, own.get("mape", 0.0) * (1 + rules.max_worsening))
    mape = float(share.mean())
    if _at_least(share, rules) > limit:
        text = f"The mean error {told} is {mape:.1f} %{_own(own, 'mape')}."
        yield Finding(
            cause="performance:mape",
            severity="critical",
            subject="mape",
            value=mape,
            threshold=limit,
            text=text,
            action=RETRAIN,
            retrain=True,
            from_labels=True,
        )
    floor = min(rules.min_within_10pct, own.get("within_10pct", 100.0) * (1 - rules.max_worsening))
    close = share <= 10
    if 100 * _at_most(close, rules) < floor:
        text = f"Only {100 * close.mean():.1f} % {told} miss by at most 10 %{_own(own, 'within_10pct')}."
        yield Finding(
            cause="performance:within_10_percent",
            severity="critical",
            subject="within_10pct",
            value=float(100 * close.mean()),
            threshold=floor,
            text=text,
            action=RETRAIN,
            retrain=True,
            from_labels=True,
        )
    yield from _coverage_finding(told, rows, rules)
    # Where all is wrong, a segment that is no worse is no news.
    yield from _segment_findings(version, rows, share, rules.max_segment_factor * max(limit, mape), rules)


def _coverage_finding(told: str, rows: pd.DataFrame, rules: PerformanceRules) -> Iterator[Finding]:
    covered, level = _covered(rows), float(rows["level"].mean())
    if _at_most(covered, rules) < level - rules.coverage_tolerance:
        yield Finding(
            cause="performance:interval_coverage",
            severity="warning",
            subject=COVERAGE,
            value=float(covered.mean()),
            threshold=level - rules.coverage_tolerance,
            text=f"The intervals cover {covered.mean():.1%} {told}; they are built for {level:.0%}.",
            action="Train on newer data: the intervals are as wide as the errors then were.",
            retrain=True,
            from_labels=True,
        )


def _segment_findings(
    version: str, rows: pd.DataFrame, share: "pd.Series[float]", limit: float, rules: PerformanceRules
) -> Iterator[Finding]:
    for name, part in share.groupby(rows[CATEGORICAL_FEATURE], sort=True, observed=True):
        if len(part) >= rules.min_labels and _at_least(part, rules) > limit:
            yield Finding(
                cause=f"performance:segment:{name}",
                severity="warning",
                subject=f"{CATEGORICAL_FEATURE}={name}",
                value=float(part.mean()),
                threshold=limit,
                text=f"The mean error of {len(part):,} labelled {name} prices of version {version} is "
                f"{part.mean():.1f} %.",
                action="Look at these rows first: if their prices have moved, train on newer data.",
                retrain=True,
                from_labels=True,
            )


def _own(own: Mapping[str, float], metric: str) -> str:
    return f"; on its test set it was {own[metric]:.1f} %" if metric in own else ""


def _at_least(values: "pd.Series[float]", rules: PerformanceRules) -> float:
    """Lower bound of a mean, by the central limit theorem."""
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    bound: float = values.mean() - stats.norm.ppf(rules.confidence) * error
    return bound


def _at_most(holds: "pd.Series[bool]", rules: PerformanceRules) -> float:
    """Upper bound of a share, by Wilson."""
    test = stats.binomtest(int(holds.sum()), len(holds), 0.5)
    bound: float = test.proportion_ci(2 * rules.confidence - 1, method="wilson").high
    return bound


INPUTS = ["feature", "mean", "p05", "p95", "maximum", "training maximum", "rows beyond", "share beyond"]


def _inputs(day: ServedDay, manifests: Mapping[str, BundleManifest], rules: PerformanceRules) -> pd.DataFrame:
    """Spread of each feature; `beyond` counts rows above so many times the answering version's maximum."""
    maxima = {
        version: {feature.name: feature.maximum for feature in manifest.features}
        for version, manifest in manifests.items()
    }
    table = []
    for name in NUMERIC_FEATURES if day.rows else ():
        values = day.numbers(name)
        known = values[~np.isnan(values)]
        if not len(known):
            continue
        largest = [limits[name] for limits in maxima.values()]
        beyond = 0
        # West of Greenwich, twice the maximum is no limit.
        for version, limits in maxima.items() if largest and min(largest) > 0 else ():
            answered = values if len(maxima) == 1 else day.numbers(name, day.answered_by(version))
            beyond += int((answered > rules.max_input_factor * limits[name]).sum())
        low, high = np.percentile(known, [5, 95])
        table.append(
            (
                *(name, float(known.mean()), float(low), float(high), float(known.max())),
                *(min(largest, default=None), beyond, beyond / len(values)),
            )
        )
    return pd.DataFrame(table, columns=INPUTS)


def _input_findings(inputs: pd.DataFrame, rules: PerformanceRules) -> Iterator[Finding]:
    beyond = inputs[
        (inputs["share beyond"] >= rules.max_beyond_share) & (inputs["rows beyond"] >= rules.min_beyond_rows)
    ]
    for _, row in beyond.iterrows():
        name = row["feature"]
        yield Finding(
            cause=f"performance:beyond_training:{name}",
            severity="warning",
            subject=name,
            value=float(row["share beyond"]),
            threshold=rules.max_beyond_share,
            text=f"{int(row['rows beyond']):,} rows have a {name} above {rules.max_input_factor:g} times "
            f"training's largest, {row['training maximum']:,.6g}.",
            action=f"Ask the callers in which unit they send {name}: the model has seen nothing like it.",
            retrain=False,
        )


def _service_findings(day: ServedDay, rules: PerformanceRules) -> Iterator[Finding]:
    for version, rows in day.rows_by_version().items():
        spread = float(day.numbers(PREDICTED, day.answered_by(version)).std())
        if rows >= rules.min_rows and spread < rules.min_price_std:
            yield Finding(
                cause="performance:price_spread",
                severity="critical",
                subject=PREDICTED,
                value=spread,
                threshold=rules.min_price_std,
                text=f"The {rows:,} prices of version {version} hardly differ: "
                f"their standard deviation is ${spread:,.0f}.",
                action="Look at the features that are served; if they are as ever, roll the version back.",
                retrain=False,
            )
    latencies = _latencies(day)
    if len(latencies) >= rules.min_rows and (p99 := float(np.percentile(latencies, 99))) > (
        limit := rules.max_p99_latency_ms
    ):
        yield Finding(
            cause="performance:p99_latency",
            severity="warning",
            subject="latency_ms",
            value=p99,
            threshold=limit,
            text=f"One of a hundred of {len(latencies):,} requests took longer than {p99:,.0f} ms.",
            action="Look at the service's load and processors; raise WEB_CONCURRENCY or add instances.",
            retrain=False,
        )


def _latencies(day: ServedDay) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """One latency per request, that of its first instance."""
    first = day.numbers("instance") == 0
    return day.numbers("latency_ms", first)


def _served_metrics(day: ServedDay) -> dict[str, float]:
    if not day.rows:
        return {"predictions": 0.0}
    prices, latencies = day.numbers(PREDICTED), _latencies(day)
    percentiles = np.percentile(latencies, PERCENTILES).tolist() if len(latencies) else []
    return {
        "predictions": float(day.rows),
        "price_mean": float(prices.mean()),
        "price_std": float(prices.std()),
        "price_median": float(np.median(prices)),
        **{f"latency_p{of}_ms": float(value) for of, value in zip(PERCENTILES, percentiles, strict=False)},
    }
