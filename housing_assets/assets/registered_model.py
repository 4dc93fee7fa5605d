"""`registered_model`: refit, scored once on `test_set`, exported as a bundle and registered in MLflow."""

from collections.abc import Callable
from functools import partial
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field
from sklearn.pipeline import Pipeline

from housing_assets.metadata import markdown_table
from housing_assets.ml import plots
from housing_assets.ml.behaviour import BehaviourRules, behaviour_table, examine
from housing_assets.ml.cleaning import content_hash
from housing_assets.ml.columns import columns_of
from housing_assets.ml.evaluation import (
    EvaluationSettings,
    Validation,
    cross_validate,
    evaluation_report,
)
from housing_assets.ml.export import PARITY_TOLERANCE, check_parity
from housing_assets.ml.intervals import RESIDUAL_FOLDS, conformal_interval
from housing_assets.ml.preprocessing import FeatureSettings
from housing_assets.ml.promotion import METRIC_CEILINGS, METRIC_FLOORS, Decision, PromotionRules
from housing_assets.ml.report import StepReport
from housing_assets.ml.sweep_results import BestParams
from housing_assets.ml.training import (
    Evaluation,
    evaluate,
    feature_importances,
    fit_model,
)
from housing_assets.model_card import ModelCard, git_commit
from housing_assets.registration import (
    REPORT_JSON,
    REPORT_MARKDOWN,
    Candidate,
    Registered,
    load_bundle,
    register,
)
from housing_assets.registry import RegistryResource, version_link
from housing_assets.resources import StorageResource
from housing_assets.snapshot_asset import blocking_check, snapshot_asset
from housing_assets.tracking import TrackingResource, finish_step
from housing_serving.bundle import Bundle
from housing_serving.features import RAW_FEATURES, TARGET, FloatArray

RULES = PromotionRules()
SETTINGS = EvaluationSettings()
BEHAVIOUR = BehaviourRules()


class PromotionConfig(dg.Config):
    """What a candidate must show before it may replace the version in production."""

    min_improvement: float = Field(
        default=RULES.min_improvement,
        ge=0,
        lt=1,
        description="Share by which the mean absolute error must be below production's.",
    )
    confidence: float = Field(
        default=RULES.confidence,
        gt=0.5,
        lt=1,
        description="One-sided confidence of every comparison with production.",
    )
    resamples: int = Field(
        default=RULES.resamples, ge=100, description="Bootstrap resamples of each comparison."
    )
    seed: int = Field(default=RULES.seed, ge=0, description="Seed of the resamples.")
    # Stricter than the floors of any stored model, never laxer: those fail the asset check.
    min_r2: float = Field(
        default=RULES.min_r2, ge=METRIC_FLOORS["r2"], le=1, description="Floor of R² on the test set."
    )
    max_mape: float = Field(
        default=RULES.max_mape,
        gt=0,
        le=METRIC_CEILINGS["mape"],
        description="Ceiling of the mean absolute percentage error on the test set.",
    )
    min_rows: int = Field(
        default=RULES.min_rows, ge=1, description="Test rows from which on a segment, or the set, is judged."
    )
    max_segment_regression: float = Field(
        default=RULES.max_segment_regression,
        ge=0,
        description="Share by which a segment's mean absolute error may be above production's.",
    )
    max_category_wmape: float = Field(
        default=RULES.max_category_wmape, gt=0, description="Ceiling of wMAPE in an ocean_proximity, percent."
    )
    max_decile_wmape: float = Field(
        default=RULES.max_decile_wmape, gt=0, description="Ceiling of wMAPE in a tenth by price, percent."
    )
    coverage_tolerance: float = Field(
        default=RULES.coverage_tolerance,
        ge=0,
        lt=1,
        description="How far the intervals' coverage may be below their level.",
    )
    max_row_ms: float = Field(
        default=RULES.max_row_ms, gt=0, description="Budget of one row's median latency, milliseconds."
    )
    max_thousand_rows_ms: float = Field(
        default=RULES.max_thousand_rows_ms,
        gt=0,
        description="Budget of the median latency of 1,000 rows, milliseconds.",
    )

    def rules(self) -> PromotionRules:
        """The rules with these values."""
        return PromotionRules(**dict(self))


class EvaluationConfig(dg.Config):
    """How much is evaluated; it changes what is told of a model, not the model."""

    spatial_folds: int = Field(
        default=SETTINGS.spatial_folds, ge=2, description="Folds of the cross-validation by whole blocks."
    )
    block_degrees: float = Field(
        default=SETTINGS.block_degrees, gt=0, description="Side of a block of it, in degrees."
    )
    resamples: int = Field(
        default=SETTINGS.resamples, ge=100, description="Bootstrap resamples of every interval."
    )
    curve_fractions: list[float] = Field(
        default=list(SETTINGS.curve_fractions),
        description="Shares of the training rows on the learning curve, ascending and below 1; 1 is added.",
    )
    curve_folds: int = Field(
        default=SETTINGS.curve_folds, ge=1, description="Shuffled folds that the learning curve uses."
    )
    permutation_repeats: int = Field(
        default=SETTINGS.permutation_repeats, ge=1, description="How often each input is shuffled."
    )
    permutation_rows: int = Field(
        default=SETTINGS.permutation_rows, ge=1, description="Test rows that this is done with, at most."
    )
    contribution_rows: int = Field(
        default=SETTINGS.contribution_rows, ge=1, description="Test rows whose prices are explained, at most."
    )

    def settings(self, shuffled_folds: int, seed: int, features: FeatureSettings) -> EvaluationSettings:
        """The settings with these values."""
        values = {**dict(self), "curve_fractions": tuple(self.curve_fractions)}
        return EvaluationSettings(shuffled_folds=shuffled_folds, seed=seed, features=features, **values)


class RegistrationConfig(dg.Config):
    """Settings of the final fit."""

    interval_level: float = Field(
        default=0.9, gt=0, lt=1, description="Share of prices the interval is built to cover."
    )
    n_folds: int = Field(
        default=RESIDUAL_FOLDS,
        ge=2,
        description="Shuffled folds: their scores are reported, their residuals give the interval.",
    )
    random_state: int = Field(default=42, ge=0, description="Seed of the model and of its evaluation.")
    evaluation: EvaluationConfig = Field(
        default_factory=EvaluationConfig, description="How much is evaluated."
    )
    promotion: PromotionConfig = Field(
        default_factory=PromotionConfig, description="What decides on the promotion of the candidate."
    )


@snapshot_asset(group="training", heavy=True, kinds={"scikitlearn", "mlflow", "onnx"}, stored_at=None)
def registered_model(
    context: dg.AssetExecutionContext,
    config: RegistrationConfig,
    train_set: pd.DataFrame,
    test_set: pd.DataFrame,
    preprocessing_pipeline: Pipeline,
    sweep_result: dict[str, Any],
    tracking: TrackingResource,
    registry: RegistryResource,
    storage: StorageResource,
) -> dg.MaterializeResult[None]:
    """A model version: fitted on the training rows, scored once on the test rows, ready to serve.

    One materialization is one immutable version in MLflow and one bundle under
    `models/<name>/<version>/`; `staging` points to the newest. Whether it may replace the version in
    production is decided before the materialization is reported, and told by it: see `promotion_report`.
    """
    with tracking.step(context, job_type="model_registration", artifact_type="model") as step:
        best = BestParams.model_validate(sweep_result)
        encoder = preprocessing_pipeline.named_steps["encoder"]
        settings = config.evaluation.settings(config.n_folds, config.random_state, encoder.settings)
        validation = cross_validate(train_set, best.model_type, best.hyperparameters, settings)
        candidate = fit_candidate(
            context, config, best, validation, train_set, test_set, preprocessing_pipeline
        )
        step.log(registration_report(candidate))
        step.log(
            evaluation_report(
                candidate.pipeline, train_set, test_set, candidate.evaluation, validation, settings
            )
        )
        # Without the promotion report, which the asset's page shows whole.
        reported = step.metadata
        registered = register(
            candidate,
            step.mlflow_run_id,
            registry.registry(),
            storage.store(),
            is_active(context),
            config.promotion.rules(),
        )
        step.log(promotion_report(registered.decision))
    finish_step(context.run.run_id, "registered_model", registered.bundle)
    links = version_link(registry.registry(), registered.version)
    return model_result(candidate, registered, {**links, **reported})


def fit_candidate(
    context: dg.AssetExecutionContext,
    config: RegistrationConfig,
    best: BestParams,
    validation: Validation,
    train: pd.DataFrame,
    test: pd.DataFrame,
    preprocessing: Pipeline,
) -> Candidate:
    """Fit on the training rows, build the interval from their folds, and score the test rows once."""
    seed = config.random_state
    pipeline = fit_model(preprocessing, train, best.model_type, best.hyperparameters, seed)
    shuffled = validation.shuffled
    interval = conformal_interval(
        shuffled.residuals,
        shuffled.matrix,
        config.interval_level,
        highest=float(train[TARGET].max()),
        seed=seed,
    )
    evaluation = evaluate(pipeline, test, interval)
    card = ModelCard(
        best=best,
        test_metrics=evaluation.metrics,
        spatial_metrics=validation.spatial.metrics,
        coverage=evaluation.coverage,
        interval_level=config.interval_level,
        features=tuple(preprocessing.named_steps["encoder"].get_feature_names_out()),
        snapshot=context.partition_key,
        train_hash=content_hash(train),
        test_hash=content_hash(test),
        commit=git_commit(),
        dagster_run_id=context.run.run_id,
    )
    return Candidate(pipeline, train, test, interval, evaluation, card)


def model_result(
    candidate: Candidate, registered: Registered, reported: dict[str, Any]
) -> dg.MaterializeResult[None]:
    """The version, what was reported of it, where it is, and whether it may serve."""
    bundle = registered.bundle
    return dg.MaterializeResult(
        metadata={
            "model_version": dg.MetadataValue.int(registered.version),
            "algorithm": candidate.card.best.model_type,
            "description": dg.MetadataValue.md(candidate.card.description(bundle.uri)),
            **reported,
            "dagster/uri": bundle.uri,
            "parity_max_difference": registered.parity,
            **promotion_metadata(registered),
        },
        data_version=dg.DataVersion(bundle.sha256),
    )


def registration_report(candidate: Candidate) -> StepReport:
    """Parameters, test metrics and plots of one candidate."""
    card, evaluation = candidate.card, candidate.evaluation
    importances = feature_importances(candidate.pipeline)
    return StepReport(
        params={
            "model_type": card.best.model_type,
            "n_features": len(card.features),
            "sweep_id": card.best.sweep_id,
            **card.best.hyperparameters,
        },
        metrics={**evaluation.metrics, "interval_coverage": evaluation.coverage},
        tables={"importances": importances},
        figures=evaluation_plots(evaluation, importances),
        texts={"model_card.md": card.description("(not yet stored)")},
    )


def promotion_report(decision: Decision) -> StepReport:
    """The decision for both trackers: as values to search for, a table, and the report itself."""
    return StepReport(
        params=dict(decision.tags()),
        tables={"promotion_checks": decision.table()},
        texts={REPORT_JSON: decision.to_json(), REPORT_MARKDOWN: decision.to_markdown()},
    )


def promotion_metadata(registered: Registered) -> dict[str, Any]:
    """The decision as metadata: `promotion` is what a deployment goes by."""
    decision = registered.decision
    return {
        **decision.tags(),
        "promotion_report": dg.MetadataValue.md(decision.to_markdown()),
        "promotion_report_uri": registered.report_uri,
    }


def evaluation_plots(evaluation: Evaluation, importances: pd.DataFrame) -> dict[str, bytes]:
    """Importances, residuals on the map, and predictions against published values."""
    return {
        "feature_importance": plots.feature_importances(importances),
        "residual_map": plots.residual_map(evaluation.predictions),
        "predicted_vs_actual": plots.predicted_vs_actual(evaluation.predictions),
    }


@blocking_check(registered_model, "The test metrics clear the floors of any model worth serving.")
def metrics_clear_the_floor(
    context: dg.AssetCheckExecutionContext, registry: RegistryResource
) -> dg.AssetCheckResult:
    """R² and MAPE of the version registered for this snapshot, against named floors."""
    version = registry.registry().newest_of_snapshot(context.partition_key)
    scores = {name: float(version.tags[name]) for name in (*METRIC_FLOORS, *METRIC_CEILINGS)}
    problems = [
        f"{n} {scores[n]:.4f} below {floor}" for n, floor in METRIC_FLOORS.items() if scores[n] < floor
    ]
    problems += [f"{n} {scores[n]:.4f} above {top}" for n, top in METRIC_CEILINGS.items() if scores[n] > top]
    return dg.AssetCheckResult(
        passed=not problems,
        description=f"version {version.version}: {'; '.join(problems) or 'all floors cleared'}",
        metadata={**scores, "model_version": int(version.version)},
    )


@blocking_check(
    registered_model,
    "The stored bundle prices every training row as the logged pipeline does.",
    additional_ins={"train_set": dg.AssetIn("train_set")},
)
def bundle_matches_the_pipeline(
    context: dg.AssetCheckExecutionContext,
    train_set: pd.DataFrame,
    registry: RegistryResource,
    storage: StorageResource,
) -> dg.AssetCheckResult:
    """Read the bundle back from storage and the pipeline from MLflow, and compare to the cent."""
    models = registry.registry()
    version = int(models.newest_of_snapshot(context.partition_key).version)
    bundle = load_bundle(storage.store(), models.name, version)
    parity = check_parity(bundle, models.load_model(version), train_set[list(RAW_FEATURES)])
    return dg.AssetCheckResult(
        passed=parity.max_abs_difference <= PARITY_TOLERANCE,
        description=(
            f"version {version}: largest difference ${parity.max_abs_difference:.6f} "
            f"over {parity.rows:,} rows"
        ),
        metadata={"max_abs_difference": parity.max_abs_difference, "rows": parity.rows},
    )


@blocking_check(
    registered_model,
    "The stored bundle prices rows as any sensible model does.",
    additional_ins={"train_set": dg.AssetIn("train_set")},
)
def model_behaves_sensibly(
    context: dg.AssetCheckExecutionContext,
    train_set: pd.DataFrame,
    registry: RegistryResource,
    storage: StorageResource,
) -> dg.AssetCheckResult:
    """Invariance, direction, range and robustness of what the service would answer.

    A defect (an answer that depends on its company, an impossible price, more income that is cheaper on
    average) blocks the deployment: no score makes up for it. A tendency beyond its limit is a warning: it
    tells what to expect of the model, and the promotion gate has weighed it against what serves now. Training
    rows are asked, since no published price is needed and the test rows are for scores alone.
    """
    models = registry.registry()
    version = int(models.newest_of_snapshot(context.partition_key).version)
    return behaviour_result(load_bundle(storage.store(), models.name, version), train_set)


def behaviour_result(bundle: Bundle, rows: pd.DataFrame) -> dg.AssetCheckResult:
    """Every property of what a bundle answers, and whether what it lacks is a defect or a tendency."""
    found = examine(partial(price_with, bundle), rows, BEHAVIOUR)
    failed = [one for one in found if not one.passed]
    defect = any(one.defect for one in failed)
    version = bundle.manifest.model_version
    return dg.AssetCheckResult(
        passed=not failed,
        # Only an error stops what is downstream.
        severity=dg.AssetCheckSeverity.ERROR if defect else dg.AssetCheckSeverity.WARN,
        description=f"version {version}: {'; '.join(one.detail for one in failed) or 'as expected'}",
        metadata={"behaviour": markdown_table(behaviour_table(found)), "model_version": version},
    )


def price_with(bundle: Bundle, frame: pd.DataFrame) -> FloatArray:
    """What a bundle answers; columns it does not know are handed to it as well."""
    unknown = {name: frame[name].to_numpy() for name in frame.columns if name not in RAW_FEATURES}
    return bundle.predict({**columns_of(frame), **unknown}).price


def is_active(context: dg.AssetExecutionContext) -> Callable[[str], bool]:
    """Whether a Dagster run id belongs to a run that has not ended."""

    def active(run_id: str) -> bool:
        run = context.instance.get_run_by_id(run_id)
        return run is not None and not run.is_finished

    return active
