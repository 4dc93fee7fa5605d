"""A fitted pipeline as a model bundle, and the check that the bundle answers as the pipeline does.

The bundle's format and reader are `housing_serving.bundle`; the translation of estimators to ONNX is
`onnx_compiler`.
"""

import io
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from housing_assets.ml.cleaning import ID_COLUMN
from housing_assets.ml.columns import columns_of
from housing_assets.ml.explanation import explanation_file
from housing_assets.ml.imputation import BedroomImputer, EstimatorImputer
from housing_assets.ml.intervals import LEAST_SPREAD, Interval
from housing_assets.ml.onnx_compiler import UnsupportedEstimator, compile_estimator
from housing_assets.ml.training import predict
from housing_serving.bundle import (
    EXPLANATION_FILE,
    IMPUTER_FILES,
    MANIFEST_FILE,
    MODEL_FILE,
    NEIGHBOURS_FILE,
    SPREAD_FILE,
    Bundle,
    BundleManifest,
    FeatureRange,
    ImputerSpec,
    IntervalSpec,
    Preprocessing,
    SegmentInterval,
    sha256_hex,
)
from housing_serving.features import (
    CATEGORICAL_FEATURE,
    NULLABLE_FEATURE,
    NUMERIC_FEATURES,
    TARGET,
    Columns,
    FeatureSpec,
    FloatArray,
)
from housing_serving.imputation import IMPUTER_INPUTS, ConstantImputer, NeighboursImputer
from housing_serving.neighbours import Neighbourhood

__all__ = [
    "PARITY_TOLERANCE",
    "Parity",
    "UnsupportedEstimator",
    "bundle_files",
    "check_parity",
    "compile_estimator",
]

# Dollars. Trees differ by exactly nothing, linear models in the last bits of a sum.
PARITY_TOLERANCE = 1e-6
LIBRARIES = ("lightgbm", "numpy", "onnx", "onnxruntime", "scikit-learn")
WORST_ROWS = 10
# Rows that are also asked for one at a time, spread evenly over the frame.
SINGLE_ROWS = 1_000


@dataclass(frozen=True)
class Parity:
    """How far a bundle's prices are from the pipeline's.

    Attributes:
        rows: rows compared, each in batch as it is and without its bedrooms.
        max_abs_difference: largest difference in dollars, of all comparisons.
        worst: the most different answers: block_group_id, asked (how), pipeline, bundle, difference.
    """

    rows: int
    max_abs_difference: float
    worst: pd.DataFrame


def bundle_files(
    pipeline: Pipeline,
    train: pd.DataFrame,
    *,
    model_name: str,
    model_version: int,
    algorithm: str,
    snapshot: str,
    data_hash: str,
    git_commit: str,
    created_at: datetime,
    metrics: Mapping[str, float],
    interval: Interval,
    segments: pd.DataFrame | None = None,
) -> dict[str, bytes]:
    """The complete bundle of a pipeline from `training.fit_model`, content by file name.

    The same pipeline and arguments give the same bytes.

    Args:
        pipeline: Fitted pipeline.
        train: The rows it was fitted on, for the ranges and categories seen.
        model_name: Registered name.
        model_version: Registered version.
        algorithm: Model family.
        snapshot: Training snapshot.
        data_hash: Content hash of the training data.
        git_commit: Commit of the code.
        created_at: Moment with its time zone.
        metrics: Scores on the test set.
        interval: From `intervals.conformal_interval`.
        segments: How it did on the test rows, by `ocean_proximity`; from `segments.errors_by`.
    """
    spec: FeatureSpec = pipeline["preprocessing"]["encoder"].spec_
    imputer, imputer_files = _export_imputer(pipeline["preprocessing"]["imputer"])
    content = {
        MODEL_FILE: compile_estimator(pipeline["model"], spec.size),
        EXPLANATION_FILE: explanation_file(pipeline["model"], spec.size),
        **imputer_files,
    }
    if spec.neighbourhood is not None:
        content[NEIGHBOURS_FILE] = _neighbourhood_file(spec.neighbourhood)
    if interval.spread is not None:
        content[SPREAD_FILE] = compile_estimator(interval.spread, spec.size)
    manifest = BundleManifest(
        model_name=model_name,
        model_version=model_version,
        algorithm=algorithm,
        snapshot=snapshot,
        data_hash=data_hash,
        git_commit=git_commit,
        target=TARGET,
        created_at=created_at,
        metrics={name: float(value) for name, value in metrics.items()},
        features=_training_ranges(train),
        categories=tuple(sorted(train[CATEGORICAL_FEATURE].unique())),
        preprocessing=_preprocessing(spec),
        imputer=imputer,
        interval=_interval(interval, segments),
        libraries={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        files={name: sha256_hex(data) for name, data in content.items()},
    )
    return {**content, MANIFEST_FILE: manifest.to_json()}


def _preprocessing(spec: FeatureSpec) -> Preprocessing:
    return Preprocessing(
        categories=spec.categories,
        cluster_centers=spec.cluster_centers,
        gamma=spec.gamma,
        ratios=spec.ratios,
        rotations=spec.rotations,
        cities=spec.cities,
        neighbours=spec.neighbourhood is not None,
        reach=spec.reach,
    )


def _interval(interval: Interval, segments: pd.DataFrame | None) -> IntervalSpec:
    rows = () if segments is None else segments.to_dict("records")
    return IntervalSpec(
        level=interval.level,
        lower_offset=interval.lower_offset,
        upper_offset=interval.upper_offset,
        scaled=interval.spread is not None,
        least_spread=0.0 if interval.spread is None else LEAST_SPREAD,
        highest=interval.highest,
        segments=tuple(
            SegmentInterval(
                category=row[CATEGORICAL_FEATURE],
                **{name: row[name] for name in ("rows", "coverage", "width")},
            )
            for row in rows
        ),
    )


def _neighbourhood_file(around: Neighbourhood) -> bytes:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        latitude=around.latitude,
        longitude=around.longitude,
        price=around.price,
        traits=around.traits,
    )
    return buffer.getvalue()


def _training_ranges(train: pd.DataFrame) -> tuple[FeatureRange, ...]:
    return tuple(
        FeatureRange(
            name=name,
            minimum=float(train[name].min()),
            maximum=float(train[name].max()),
            nullable=name == NULLABLE_FEATURE,
        )
        for name in NUMERIC_FEATURES
    )


def _export_imputer(fitted: BedroomImputer) -> tuple[ImputerSpec, dict[str, bytes]]:
    """How the bundle fills nulls, and the file it needs for that, if any."""
    match fitted.as_imputer():
        case ConstantImputer(value):
            return ImputerSpec(strategy=fitted.strategy, kind="constant", value=value), {}
        case NeighboursImputer() as neighbours:
            spec = ImputerSpec(strategy=fitted.strategy, kind="neighbours")
            return spec, {IMPUTER_FILES["neighbours"]: _neighbours_file(neighbours)}
        case EstimatorImputer(estimator, per_household):
            spec = ImputerSpec(strategy=fitted.strategy, kind="compiled", per_household=per_household)
            return spec, {IMPUTER_FILES["compiled"]: compile_estimator(estimator, len(IMPUTER_INPUTS))}
        case other:
            raise UnsupportedEstimator(f"{type(other).__name__} cannot be exported")


def _neighbours_file(imputer: NeighboursImputer) -> bytes:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        reference=imputer.reference,
        values=imputer.values,
        mean=imputer.mean,
        scale=imputer.scale,
        k=np.int64(imputer.k),
    )
    return buffer.getvalue()


def check_parity(
    bundle: Bundle, pipeline: Pipeline, frame: pd.DataFrame, single_rows: int = SINGLE_ROWS
) -> Parity:
    """Ask the bundle and the pipeline for the same prices.

    Every row in one batch and some alone, all of that as they are and with `total_bedrooms` removed.

    Args:
        bundle: As the service loads it.
        pipeline: What it was exported from.
        frame: Rows with the raw features.
        single_rows: How many rows are asked for alone, spread evenly over the frame.

    Raises:
        ValueError: there are no rows.
    """
    if frame.empty:
        raise ValueError("there is nothing to compare: no rows")
    # The pipeline's boosted imputer would otherwise wait by spinning threads on a busy machine.
    with threadpool_limits(limits=1):
        answers = pd.concat(_comparisons(bundle, pipeline, frame, single_rows), ignore_index=True)
    worst = answers.sort_values("difference", ascending=False, kind="stable", ignore_index=True)
    return Parity(len(frame), float(answers["difference"].max()), worst.head(WORST_ROWS))


def _comparisons(
    bundle: Bundle, pipeline: Pipeline, frame: pd.DataFrame, single_rows: int
) -> Iterator[pd.DataFrame]:
    without_bedrooms = frame.assign(**{NULLABLE_FEATURE: np.nan})
    yield from _compare(bundle, pipeline, frame, single_rows, "as they are")
    yield from _compare(bundle, pipeline, without_bedrooms, single_rows, "without bedrooms")


def _compare(
    bundle: Bundle, pipeline: Pipeline, frame: pd.DataFrame, single_rows: int, asked: str
) -> Iterator[pd.DataFrame]:
    expected = predict(pipeline, frame)
    columns = columns_of(frame)
    ids = frame[ID_COLUMN].to_numpy() if ID_COLUMN in frame.columns else np.arange(len(frame))
    yield _answers(ids, f"batch, {asked}", expected, bundle.predict(columns).price)
    chosen = np.unique(np.linspace(0, len(frame) - 1, min(single_rows, len(frame))).astype(np.int64))
    alone = np.array([bundle.predict(_row(columns, position)).price[0] for position in chosen])
    yield _answers(ids[chosen], f"alone, {asked}", expected[chosen], alone)


def _row(columns: Columns, position: int) -> dict[str, NDArray[Any]]:
    return {name: values[position : position + 1] for name, values in columns.items()}


def _answers(ids: NDArray[Any], asked: str, expected: FloatArray, answered: FloatArray) -> pd.DataFrame:
    difference = np.abs(answered - expected)
    return pd.DataFrame(
        {
            ID_COLUMN: ids,
            "asked": asked,
            "pipeline": expected,
            "bundle": answered,
            # An answer that is no number at all is the worst there is.
            "difference": np.where(np.isnan(difference), np.inf, difference),
        }
    )
