"""What a model costs to make, and how sure its prices are: each step of the asset graph by itself."""

from dataclasses import dataclass

import pandas as pd
from sklearn.pipeline import Pipeline

from benchmarks.measuring import Progress, Reading, timed
from benchmarks.models import SERVED
from benchmarks.rows import raw_table
from housing_assets.ml.cleaning import add_row_features, process
from housing_assets.ml.cross_validation import shuffled_cross_validation
from housing_assets.ml.imputation import BedroomImputer, compare_strategies
from housing_assets.ml.intervals import RESIDUAL_FOLDS, Interval, conformal_interval
from housing_assets.ml.preprocessing import fit_preprocessing, scan_clusters
from housing_assets.ml.selection import prepare_folds
from housing_assets.ml.split import split
from housing_assets.ml.training import evaluate, fit_model
from housing_serving.features import CATEGORICAL_FEATURE, TARGET

LEVEL = 0.9


@dataclass(frozen=True)
class ModelScale:
    """How much is measured.

    Attributes:
        rows: of the table, spread evenly since they are sorted by place; None: all.
        group_rows: test rows that a group must have for its coverage to tell something.
    """

    rows: int | None
    group_rows: int


FULL = ModelScale(None, 400)
QUICK = ModelScale(2_000, 40)


def measure(source: str, scale: ModelScale, progress: Progress) -> list[Reading]:
    """Seconds of the steps of training, and the quality of the intervals on the test rows.

    Args:
        source: Location of the table.
        scale: How much of it.
        progress: Told what is done.
    """
    raw = raw_table(source, scale.rows)
    train, test = split(add_row_features(process(raw).frame))
    imputer_seconds, _ = timed(lambda: compare_strategies(train))
    progress(f"comparison of imputation strategies: {imputer_seconds:.1f} s")
    imputer = BedroomImputer().fit(train)
    scan_seconds, _ = timed(lambda: scan_clusters(imputer.transform(train)))
    progress(f"scan of the number of clusters: {scan_seconds:.1f} s")
    fit_seconds, (pipeline, interval) = timed(lambda: _fit(train, imputer))
    progress(f"features, final fit and intervals: {fit_seconds:.1f} s")
    return [
        Reading("comparison of imputation strategies, s", [imputer_seconds], "at most 15"),
        Reading("scan of the number of clusters, s", [scan_seconds], "at most 15"),
        Reading("features, final fit and intervals, s", [fit_seconds], "at most 90"),
        *_certainty(evaluate(pipeline, test, interval).predictions, scale.group_rows),
    ]


def _fit(train: pd.DataFrame, imputer: BedroomImputer) -> tuple[Pipeline, Interval]:
    family, hyperparameters = SERVED
    pipeline = fit_model(fit_preprocessing(imputer, train), train, family, hyperparameters)
    validation = shuffled_cross_validation(prepare_folds(train, RESIDUAL_FOLDS), family, hyperparameters)
    highest = float(train[TARGET].max())
    return pipeline, conformal_interval(validation.residuals, validation.matrix, LEVEL, highest=highest)


def _certainty(rows: pd.DataFrame, group_rows: int) -> list[Reading]:
    groups = rows.groupby(CATEGORICAL_FEATURE)["covered"].agg(["size", "mean"])
    large = groups[groups["size"] >= group_rows]["mean"]
    coverage, width = float(rows["covered"].mean()), float((rows["upper"] - rows["lower"]).mean())
    return [
        Reading(f"test prices inside their {LEVEL:.0%} interval, %", [100 * coverage], "89 to 91"),
        Reading("mean width of the intervals, $", [width], "at most 92,000"),
        Reading(f"least covered: {large.idxmin()}, %", [100 * float(large.min())], "at least 87"),
    ]
