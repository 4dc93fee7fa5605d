"""`preprocessing_pipeline`: the fitted feature pipeline with the imputer inside."""

from dataclasses import asdict

import dagster as dg
import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.pipeline import Pipeline

from housing_assets.ml import plots
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.preprocessing import (
    SCAN_KS,
    FeatureSettings,
    best_k,
    fit_preprocessing,
    scan_clusters,
)
from housing_assets.ml.report import StepReport
from housing_assets.resources import FeatureResource
from housing_assets.snapshot_asset import blocking_check, snapshot_asset
from housing_assets.tracking import TrackingResource


class PreprocessingConfig(dg.Config):
    """Settings of the K scan; which features there are is told by the resource `features`."""

    scan_largest_k: int = Field(
        default=SCAN_KS[-1], ge=2, le=200, description="The K scan looks at the published numbers up to this."
    )
    random_state: int = Field(default=42, description="Seed of the clustering.")


@snapshot_asset(
    group="preprocessing",
    heavy=True,
    kinds={"scikitlearn"},
    stored_at="artifacts/{snapshot}/preprocessing_pipeline.skops",
)
def preprocessing_pipeline(
    context: dg.AssetExecutionContext,
    config: PreprocessingConfig,
    train_set: pd.DataFrame,
    imputer: BedroomImputer,
    features: FeatureResource,
    tracking: TrackingResource,
) -> dg.MaterializeResult[Pipeline]:
    """The fitted path from a row with features to the model's input matrix, imputer included.

    One materialization is one object: a row goes in as a block group, and comes out as the model's inputs.
    The service runs the same arithmetic on the same parameters, so it cannot skew.
    """
    with tracking.step(context, job_type="preprocessing_pipeline", artifact_type="pipeline") as step:
        ks = [k for k in SCAN_KS if k <= config.scan_largest_k]
        scan = scan_clusters(imputer.transform(train_set), ks, seed=config.random_state)
        settings = features.settings(n_clusters=best_k(scan))
        pipeline = fit_preprocessing(imputer, train_set, settings, config.random_state)
        step.log(preprocessing_report(pipeline, scan, settings))
    return dg.MaterializeResult(value=pipeline, metadata=step.metadata)


def preprocessing_report(pipeline: Pipeline, scan: pd.DataFrame, settings: FeatureSettings) -> StepReport:
    """The matrix's columns, and the K scan beside the K that is used."""
    names = list(pipeline.named_steps["encoder"].get_feature_names_out())
    best = scan.loc[scan["silhouette"].idxmax()]
    return StepReport(
        params={**asdict(settings), "features": ", ".join(names)},
        metrics={
            "n_features": len(names),
            "best_silhouette": float(best["silhouette"]),
            "best_silhouette_k": float(best["k"]),
            "best_price_error_k": float(best_k(scan)),
        },
        tables={"cluster_metrics": scan, "features": pd.DataFrame({"feature": names})},
        figures={"cluster_scan": plots.cluster_scan(scan, settings.n_clusters)},
    )


@blocking_check(
    preprocessing_pipeline,
    "The model's input matrix of the training rows is finite.",
    additional_ins={"train_set": dg.AssetIn("train_set")},
)
def feature_matrix_is_finite(
    preprocessing_pipeline: Pipeline, train_set: pd.DataFrame
) -> dg.AssetCheckResult:
    """No null and no infinity reaches a model."""
    matrix = preprocessing_pipeline.transform(train_set)
    bad = train_set.loc[~np.isfinite(matrix).all(axis=1), "block_group_id"].tolist()
    return dg.AssetCheckResult(
        passed=not bad,
        description=f"{matrix.shape[0]} rows, {matrix.shape[1]} features, {len(bad)} rows not finite"
        + (f": {', '.join(bad[:10])}" if bad else ""),
        metadata={"rows": matrix.shape[0], "features": matrix.shape[1], "bad_rows": len(bad)},
    )
