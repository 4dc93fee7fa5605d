"""`performance_report`: how right one day's prices were, as far as is known, and how the service did."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pandas as pd

from housing_assets.daily_asset import (
    ThresholdsConfig,
    daily_asset,
    findings_metadata,
    for_each_day,
    link,
    report_links,
    thresholds,
)
from housing_assets.metadata import report_metadata
from housing_assets.ml import plots
from housing_assets.ml.report import StepReport
from housing_assets.monitoring.findings import Report
from housing_assets.monitoring.labels import REJECTED_COLUMNS, UNKNOWN, read_labels, rejected, stacked
from housing_assets.monitoring.matching import Matched, known_ids, match
from housing_assets.monitoring.page import page
from housing_assets.monitoring.performance import RULES, Performance, PerformanceRules, measure
from housing_assets.monitoring.served import ServedDay
from housing_assets.monitoring_objects import (
    PredictionLogMissing,
    days_after,
    label_files,
    manifest_of,
    rejected_name,
    served_day,
    write_rejected_labels,
    write_report,
)
from housing_assets.registry import RegistryResource
from housing_assets.resources import StorageResource
from housing_assets.storage import ObjectMissing, ObjectStore
from housing_serving.bundle import BundleManifest

# Labels are filed under the day of the prediction or, where its sender does not know it, a later one.
LABEL_WINDOW_DAYS = 30


# After the drift of the day: what moved explains what went wrong.
@daily_asset(kinds={"html", "json"}, deps=["prediction_log", "drift_report"])
def performance_report(
    context: dg.AssetExecutionContext,
    config: ThresholdsConfig,
    storage: StorageResource,
    registry: RegistryResource,
) -> None:
    """Scores of one day's predictions where labels have come in, against the version's own test scores.

    One label is the true price of one prediction, or of one block group.
    Made again, it takes in what came since. Labels that cannot be used are listed with the reason.
    """
    store, rules = storage.store(), thresholds(config, RULES)
    for_each_day(context, lambda day: report_performance(store, registry.model_name, day, rules))


def report_performance(
    store: ObjectStore, model_name: str, day: date, rules: PerformanceRules
) -> dict[str, Any]:
    """Score a day, store the report, and return what the asset's page shows."""
    with served_day(store, day) as served:
        versions = list(served.rows_by_version())
        known = labels_of(store, day, served)
        performance = measure(served, known.matched.scored, manifests(store, model_name, versions), rules)
    report = Report(
        day=day,
        kind="performance",
        model_versions=versions,
        rows=served.rows,
        labels=len(known.matched.scored),
        findings=performance.findings,
        created_at=datetime.now(UTC),
    )
    step = performance_step(performance, known)
    write_rejected_labels(store, day, known.rejected)
    write_report(store, report, page(f"Performance on {day}", facts(report, known), report, step))
    rejected_at = {"rejected": link(store.uri(rejected_name("labels", day)))}
    return {
        **report_links(store, "performance", day),
        **(rejected_at if len(known.rejected) else {}),
        "dagster/row_count": served.rows,
        "model_versions": ", ".join(versions) or "none",
        **findings_metadata(report),
        **report_metadata(step),
    }


@dataclass(frozen=True)
class DayLabels:
    """The labels of a day.

    Attributes:
        matched: those of its predictions.
        rejected: those that cannot be used: filed under this day, or about it.
        other_days: labels filed under this day that are about an earlier one, by that day.
    """

    matched: Matched
    rejected: pd.DataFrame
    other_days: dict[date, int]


def labels_of(store: ObjectStore, day: date, served: ServedDay) -> DayLabels:
    """Read what is filed under a day and the days after it, and find what is about this day."""
    labels = read_labels(label_files(store, days_after(day, LABEL_WINDOW_DAYS)))
    matched = match(served, labels.rows)
    prefix = f"monitoring/labels/{day}/"
    unmatched = matched.unmatched[matched.unmatched["file"].astype(str).str.startswith(prefix)]
    broken = labels.rejected[labels.rejected["file"].astype(str).str.startswith(prefix)]
    other_days: dict[date, int] = {}
    for earlier, known in _earlier(store, day, unmatched):
        other_days[earlier] = int(known.sum())
        unmatched = unmatched[~known]
    listed = stacked([broken, matched.rejected, rejected(unmatched, UNKNOWN)], REJECTED_COLUMNS)
    return DayLabels(matched, listed, other_days)


def _earlier(store: ObjectStore, day: date, labels: pd.DataFrame) -> Iterator[tuple[date, "pd.Series[bool]"]]:
    """The days before whose predictions some labels are about, and which labels; until all are found."""
    left = labels
    for number in range(1, LABEL_WINDOW_DAYS + 1):
        if not len(left):
            return
        earlier = day - timedelta(days=number)
        try:
            with served_day(store, earlier) as served:
                known = known_ids(served, left)
        except PredictionLogMissing:
            continue
        if known.any():
            yield earlier, known
            left = left[~known]


def manifests(store: ObjectStore, model_name: str, versions: list[str]) -> dict[str, BundleManifest]:
    """The manifests of the versions that answered; one that is gone was told of by `drift_report`."""
    found: dict[str, BundleManifest] = {}
    for version in versions:
        try:
            found[version] = manifest_of(store, model_name, version)
        except ObjectMissing:
            continue
    return found


def facts(report: Report, known: DayLabels) -> str:
    """A sentence on what was looked at."""
    versions = ", ".join(f"version {number}" for number in report.model_versions) or "no version"
    text = f"{report.rows:,} predictions of {versions}; {len(known.matched.scored):,} are labelled by now."
    if known.other_days:
        days = ", ".join(f"{earlier} ({count:,})" for earlier, count in sorted(known.other_days.items()))
        text += f" Labels filed under this day are about others; materialize performance_report of: {days}."
    return text


def performance_step(performance: Performance, known: DayLabels) -> StepReport:
    """Metrics that chart over days, tables, and a figure of the errors by region."""
    segments, scores = performance.segments, performance.scores
    figures = {}
    if len(segments):
        version = segments.groupby("version")["labels"].sum().idxmax()
        own = scores[(scores["version"] == version) & (scores["metric"] == "mape")]["test set"].iloc[0]
        title = f"Version {version}: error by region"
        known_own = None if pd.isna(own) else float(own)
        figures["error_by_segment"] = plots.error_by_segment(
            title, segments[segments["version"] == version], known_own
        )
    reasons = known.rejected["reason"].value_counts().rename_axis("reason").reset_index(name="labels")
    other = pd.DataFrame(sorted(known.other_days.items()), columns=["day", "labels"])
    return StepReport(
        metrics={
            **performance.metrics,
            "labelled": float(len(known.matched.scored)),
            "labels_used": float(known.matched.used),
            "label_duplicates": float(known.matched.duplicates),
            "labels_rejected": float(len(known.rejected)),
        },
        tables={
            "scores": scores,
            "segments": segments,
            "inputs": performance.inputs,
            "rejected_labels": reasons,
            "rejected_label_rows": known.rejected,
            "labels_of_other_days": other,
        },
        figures=figures,
    )
