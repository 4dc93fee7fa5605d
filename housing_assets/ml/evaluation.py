"""The honest evaluation of one registered model, as one report.

Cross-validation comes before the test rows are looked at; everything about the test rows comes from the one
frame of their predictions, except for what is asked with changed rows. Nothing here chooses anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import pandas as pd
from sklearn.pipeline import Pipeline

from housing_assets.ml import plots
from housing_assets.ml.bootstrap import FIGURES, RESAMPLES, figure_intervals
from housing_assets.ml.cross_validation import (
    CURVE_FRACTIONS,
    SHUFFLED,
    SPATIAL,
    CrossValidation,
    learning_curve,
    protocol_table,
    shuffled_cross_validation,
    spatial_cross_validation,
)
from housing_assets.ml.explanation import mean_contributions
from housing_assets.ml.intervals import RESIDUAL_FOLDS
from housing_assets.ml.permutation import permutation_importances
from housing_assets.ml.preprocessing import FeatureSettings
from housing_assets.ml.published import (
    Comparison,
    compare_with_forest,
    fit_published_forest,
    published_figures,
)
from housing_assets.ml.report import StepReport
from housing_assets.ml.segments import calibration, segment_tables
from housing_assets.ml.selection import prepare_folds
from housing_assets.ml.splitters import BLOCK_DEGREES
from housing_assets.ml.training import Evaluation, feature_importances, predict


@dataclass(frozen=True)
class EvaluationSettings:
    """How much is evaluated.

    Attributes:
        shuffled_folds: folds of the shuffled cross-validation.
        spatial_folds: folds of the spatial one.
        block_degrees: side of a block of it, in degrees.
        resamples: bootstrap resamples of every interval.
        curve_fractions: shares of the training rows on the learning curve, below one.
        curve_folds: shuffled folds that the curve uses.
        permutation_repeats: how often each input is dealt out anew.
        permutation_rows: test rows that this is done with, at most.
        contribution_rows: test rows whose prices are explained, at most.
        features: which features there are.
        seed: of everything random.

    Raises:
        ValueError: the fractions do not ascend between zero and one.
    """

    shuffled_folds: int = RESIDUAL_FOLDS
    spatial_folds: int = 5
    block_degrees: float = BLOCK_DEGREES
    resamples: int = RESAMPLES
    curve_fractions: tuple[float, ...] = CURVE_FRACTIONS
    curve_folds: int = 1
    permutation_repeats: int = 3
    permutation_rows: int = 1_000
    contribution_rows: int = 200
    features: FeatureSettings = field(default_factory=FeatureSettings)
    seed: int = 42

    def __post_init__(self) -> None:
        """Refuse what would fail late."""
        steps = (0.0, *self.curve_fractions, 1.0)
        if any(lower >= upper for lower, upper in pairwise(steps)):
            raise ValueError(f"fractions must ascend between 0 and 1, not {list(self.curve_fractions)}")


@dataclass(frozen=True, eq=False)
class Validation:
    """A family and setting under both protocols of cross-validation."""

    family: str
    hyperparameters: Mapping[str, Any]
    shuffled: CrossValidation
    spatial: CrossValidation


def cross_validate(
    train: pd.DataFrame, family: str, hyperparameters: Mapping[str, Any], settings: EvaluationSettings
) -> Validation:
    """Score a setting on the training rows: in shuffled folds and in folds of whole blocks."""
    folds = prepare_folds(train, settings.shuffled_folds, settings.seed, features=settings.features)
    shuffled = shuffled_cross_validation(folds, family, hyperparameters, settings.seed, settings.resamples)
    spatial = spatial_cross_validation(
        train,
        family,
        hyperparameters,
        n_folds=settings.spatial_folds,
        degrees=settings.block_degrees,
        features=settings.features,
        seed=settings.seed,
        resamples=settings.resamples,
    )
    return Validation(family, hyperparameters, shuffled, spatial)


def evaluation_report(
    pipeline: Pipeline,
    train: pd.DataFrame,
    test: pd.DataFrame,
    evaluation: Evaluation,
    validation: Validation,
    settings: EvaluationSettings,
) -> StepReport:
    """All protocols with intervals, errors by segment, calibration, learning curve, inputs, comparison.

    Args:
        pipeline: Fitted on the training rows.
        train: Training rows with the target.
        test: Test rows with the target.
        evaluation: Of the pipeline on the test rows.
        validation: Of its family and setting on the training rows.
        settings: How much is evaluated.
    """
    predictions = evaluation.predictions
    comparison = compare_on_test(train, test, predictions, settings)
    tables = {
        "protocols": _protocols(validation, predictions, settings),
        "comparison": comparison.table,
        "published_figures": published_figures(),
        **{f"error_by_{name}": table for name, table in segment_tables(predictions).items()},
        "calibration": calibration(predictions),
        "learning_curve": _learning_curve(train, validation, settings),
        "permutation_importance": _inputs(pipeline, test, settings),
        "contributions": mean_contributions(pipeline, test, settings.contribution_rows, settings.seed),
    }
    own = feature_importances(pipeline)
    figures = {
        "protocols_plot": plots.protocols(tables["protocols"]),
        "calibration_plot": plots.calibration(tables["calibration"]),
        "learning_curve_plot": plots.learning_curve(tables["learning_curve"]),
        "permutation_importance_plot": plots.permutation_importances(tables["permutation_importance"], own),
        "contributions_plot": plots.contributions(tables["contributions"]),
    }
    return StepReport(metrics=_charted(validation, comparison), tables=tables, figures=figures)


def compare_on_test(
    train: pd.DataFrame, test: pd.DataFrame, predictions: pd.DataFrame, settings: EvaluationSettings
) -> Comparison:
    """Fit the published forest on the same training rows, and compare on the same test rows."""
    theirs = predict(fit_published_forest(train, settings.seed), test)
    actual, ours = (predictions[name].to_numpy() for name in ("actual", "predicted"))
    return compare_with_forest(actual, ours, theirs, resamples=settings.resamples, seed=settings.seed)


def _charted(validation: Validation, comparison: Comparison) -> dict[str, float]:
    """What is worth following from one version to the next."""
    protocols = {"shuffled_cv": validation.shuffled, "spatial_cv": validation.spatial}
    return {
        **{f"{prefix}_{name}": one.metrics[name] for prefix, one in protocols.items() for name in FIGURES},
        **{f"{name}_ratio_to_published_forest": ratio for name, ratio in comparison.ratios.items()},
    }


def _protocols(
    validation: Validation, predictions: pd.DataFrame, settings: EvaluationSettings
) -> pd.DataFrame:
    actual, predicted = (predictions[name].to_numpy() for name in ("actual", "predicted"))
    on_test = figure_intervals(actual, predicted, resamples=settings.resamples, seed=settings.seed)
    return protocol_table(
        {
            SHUFFLED: validation.shuffled.intervals,
            SPATIAL: validation.spatial.intervals,
            "test rows": on_test,
        }
    )


def _learning_curve(
    train: pd.DataFrame, validation: Validation, settings: EvaluationSettings
) -> pd.DataFrame:
    return learning_curve(
        train,
        validation.family,
        validation.hyperparameters,
        validation.shuffled,
        fractions=settings.curve_fractions,
        first_folds=settings.curve_folds,
        features=settings.features,
        seed=settings.seed,
    )


def _inputs(pipeline: Pipeline, test: pd.DataFrame, settings: EvaluationSettings) -> pd.DataFrame:
    return permutation_importances(
        partial(predict, pipeline),
        test,
        repeats=settings.permutation_repeats,
        max_rows=settings.permutation_rows,
        seed=settings.seed,
    )
