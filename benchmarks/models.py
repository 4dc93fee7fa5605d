"""The fitted models that are measured, as pipelines and as bundles."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pandas as pd
from sklearn.pipeline import Pipeline

from housing_assets.ml.export import bundle_files
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.intervals import conformal_interval
from housing_assets.ml.preprocessing import FeatureSettings, fit_preprocessing
from housing_assets.ml.published import FOREST as PUBLISHED_FOREST
from housing_assets.ml.training import fit_model, predict
from housing_serving.features import TARGET

__all__ = ["PUBLISHED_FOREST", "SERVED", "ServedModel", "exported", "fitted"]

# A setting of the kind that wins the selection.
SERVED = (
    "LightGBM",
    {
        "n_estimators": 400,
        "learning_rate": 0.05,
        "num_leaves": 63,
        "min_child_samples": 10,
        "subsample": 0.8,
        "colsample_bytree": 0.3,
        "reg_lambda": 5.0,
    },
)
# Those of the published training: ratios, and similarities to ten centres.
PUBLISHED_FEATURES = FeatureSettings(
    n_clusters=10, gamma=0.1, rotations=0, city_distances=False, neighbours=False
)


class ServedModel(StrEnum):
    """What the measured services hold: what this project chooses, or the published forest and features."""

    CHOSEN = "chosen"
    PUBLISHED = "published"

    @property
    def setting(self) -> tuple[str, Mapping[str, Any]]:
        """Family and hyperparameters."""
        return SERVED if self is ServedModel.CHOSEN else ("RandomForest", PUBLISHED_FOREST)

    @property
    def features(self) -> FeatureSettings:
        """Which features the model has."""
        return FeatureSettings() if self is ServedModel.CHOSEN else PUBLISHED_FEATURES


def fitted(
    rows: pd.DataFrame,
    family: str,
    hyperparameters: Mapping[str, Any],
    features: FeatureSettings | None = None,
) -> Pipeline:
    """A model of a family, on all of this project's features unless told otherwise."""
    preprocessing = fit_preprocessing(BedroomImputer().fit(rows), rows, features)
    return fit_model(preprocessing, rows, family, hyperparameters)


def exported(
    pipeline: Pipeline,
    rows: pd.DataFrame,
    version: int = 1,
    *,
    family: str = "RandomForest",
    data_hash: str = "benchmark",
) -> dict[str, bytes]:
    """The bundle of a pipeline that was fitted on these rows, content by file name.

    Its intervals cost what real ones cost; they are too narrow, for they come from residuals of fitted rows.
    """
    preprocessing, residuals = pipeline[:-1], rows[TARGET].to_numpy() - predict(pipeline, rows)
    return bundle_files(
        pipeline,
        rows,
        model_name="benchmark",
        model_version=version,
        algorithm=family,
        snapshot="benchmark",
        data_hash=data_hash,
        git_commit="unknown",
        created_at=datetime.now(UTC),
        metrics={},
        interval=conformal_interval(residuals, preprocessing.transform(rows), highest=rows[TARGET].max()),
    )
