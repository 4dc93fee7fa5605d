"""`preprocessing_pipeline`: the fitted feature pipeline with the imputer inside."""

import dagster as dg
import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.pipeline import Pipeline

from housing_assets.ml import plots
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.preprocessing import (
    DEFAULT_CLUSTERS,
    DEFAULT_GAMMA,
    fit_preprocessing,
    scan_clusters,
)
from housing_assets.ml.report import StepReport
from housing_assets.snapshot_asset import blocking_check, snapshot_asset
from housing_assets.tracking import TrackingResource


class PreprocessingConfig(dg.Config):
    """Settings of the fitted features."""

    n_clusters: int = Field(
        default=DEFAULT_CLUSTERS, ge=2, le=50, description="Number of geographic centres (K)."
    )
    gamma: float = Field(
        default=DEFAULT_GAMMA,
        gt=0,
        description="Width of the similarity to a centre: exp(-gamma * squared distance in degrees).",
    )
    scan_largest_k: int = Field(
        default=20, ge=3, le=50, description="The K scan reports inertia and silhouette from 2 up to this K."
    )
    random_state: int = Field(default=42, description="Seed of the clustering.")


@snapshot_asset(
    group="preprocessing",
    kinds={"scikitlearn"},
    stored_at="artifacts/{snapshot}/preprocessing_pipeline.skops",
)
def preprocessing_pipeline(
    context: dg.AssetExecutionContext,
    config: PreprocessingConfig,
    train_set: pd.DataFrame,
    imputer: BedroomImputer,
    tracking: TrackingResource,
) -> dg.MaterializeResult[Pipeline]:
    """The fitted path from a row with features to the model's input matrix, imputer included.

    The service runs the same arithmetic on the same parameters, so it cannot skew.
    """
    with tracking.step(context, job_type="preprocessing_pipeline", artifact_type="pipeline") as step:
        pipeline = fit_preprocessing(imputer, train_set, config.n_clusters, config.gamma, config.random_state)
        scan = scan_clusters(train_set, ks=range(2, config.scan_largest_k + 1), seed=config.random_state)
        step.log(preprocessing_report(pipeline, scan, config))
    return dg.MaterializeResult(value=pipeline, metadata=step.metadata)


def preprocessing_report(pipeline: Pipeline, scan: pd.DataFrame, config: PreprocessingConfig) -> StepReport:
    """The matrix's columns, and the K scan beside the K that is used."""
    names = list(pipeline.named_steps["encoder"].get_feature_names_out())
    best = scan.loc[scan["silhouette"].idxmax()]
    return StepReport(
        params={"n_clusters": config.n_clusters, "gamma": config.gamma, "features": ", ".join(names)},
        metrics={
            "n_features": len(names),
            "best_silhouette": float(best["silhouette"]),
            "best_silhouette_k": float(best["k"]),
        },
        tables={"cluster_metrics": scan, "features": pd.DataFrame({"feature": names})},
        figures={"cluster_scan": plots.cluster_scan(scan, config.n_clusters)},
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
