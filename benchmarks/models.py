"""The fitted models that are measured, as pipelines and as bundles."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from sklearn.pipeline import Pipeline

from housing_assets.ml.export import bundle_files
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.preprocessing import fit_preprocessing
from housing_assets.ml.training import Interval, fit_model

# What the published service answers with.
PUBLISHED_FOREST = {
    "n_estimators": 128,
    "max_depth": 23,
    "min_samples_split": 9,
    "min_samples_leaf": 9,
    "max_features": "log2",
}


def fitted(rows: pd.DataFrame, family: str, hyperparameters: Mapping[str, Any]) -> Pipeline:
    """A model of a family on this project's features."""
    preprocessing = fit_preprocessing(BedroomImputer().fit(rows), rows)
    return fit_model(preprocessing, rows, family, hyperparameters)


def exported(
    pipeline: Pipeline, rows: pd.DataFrame, version: int = 1, data_hash: str = "benchmark"
) -> dict[str, bytes]:
    """The bundle of a pipeline that was fitted on these rows, content by file name."""
    return bundle_files(
        pipeline,
        rows,
        model_name="benchmark",
        model_version=version,
        algorithm="RandomForest",
        snapshot="benchmark",
        data_hash=data_hash,
        git_commit="unknown",
        created_at=datetime.now(UTC),
        metrics={},
        interval=Interval(0.9, -1.0, 1.0),
    )
