"""Small bundles made by hand: sums of two-leaf trees whose answers can be worked out on paper."""

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from housing_serving.bundle import (
    MANIFEST_FILE,
    BundleManifest,
    FeatureRange,
    ImputerSpec,
    IntervalSpec,
    Preprocessing,
    sha256_hex,
)
from housing_serving.features import CATEGORIES, LIMITS, NUMERIC_FEATURES
from housing_serving.imputation import IMPUTER_INPUTS

# (feature index, threshold, value at or below it, value above it)
Stump = tuple[int, float, float, float]

PREPROCESSING = Preprocessing(
    categories=CATEGORIES, cluster_centers=((37.7, -122.4), (34.0, -118.2)), gamma=1.0
)
MEDIAN_INCOME = 7
BEDROOMS_PER_HOUSEHOLD = 10
INLAND = 15
# 100,000, plus 200,000 above an income of 4, minus 50,000 inland, plus 1,000 above two bedrooms a household.
PRICE_STUMPS: tuple[Stump, ...] = (
    (MEDIAN_INCOME, 4.0, 100_000.0, 300_000.0),
    (INLAND, 0.5, 0.0, -50_000.0),
    (BEDROOMS_PER_HOUSEHOLD, 2.0, 0.0, 1_000.0),
)

INSTANCE: Mapping[str, Any] = {
    "longitude": -122.23,
    "latitude": 37.88,
    "housing_median_age": 41,
    "total_rooms": 880,
    "total_bedrooms": 129,
    "population": 322,
    "households": 126,
    "median_income": 8.3252,
    "ocean_proximity": "NEAR BAY",
}


def stump_model(width: int, stumps: Sequence[Stump], *, output: str = "prediction") -> bytes:
    """An ONNX model that sums two-leaf trees over `width` double features."""
    count = len(stumps)
    node = helper.make_node(
        "TreeEnsemble",
        ["features"],
        [output],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=1,
        post_transform=0,
        tree_roots=list(range(count)),
        nodes_featureids=[feature for feature, _, _, _ in stumps],
        nodes_splits=numpy_helper.from_array(np.array([threshold for _, threshold, _, _ in stumps])),
        nodes_modes=numpy_helper.from_array(np.zeros(count, dtype=np.uint8)),
        nodes_truenodeids=[2 * index for index in range(count)],
        nodes_falsenodeids=[2 * index + 1 for index in range(count)],
        nodes_trueleafs=[1] * count,
        nodes_falseleafs=[1] * count,
        leaf_targetids=[0] * (2 * count),
        leaf_weights=numpy_helper.from_array(np.array([leaf for stump in stumps for leaf in stump[2:]])),
    )
    graph = helper.make_graph(
        [node],
        "stumps",
        [helper.make_tensor_value_info("features", TensorProto.DOUBLE, [None, width])],
        [helper.make_tensor_value_info(output, TensorProto.DOUBLE, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 5)]
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return model


def neighbours_file(**changes: object) -> bytes:
    """`imputer.npz` with two training rows: 100 bedrooms at 100 households, 900 at 1000 households."""
    households = IMPUTER_INPUTS.index("households")
    reference = np.zeros((2, len(IMPUTER_INPUTS)))
    reference[:, households] = [100.0, 1000.0]
    scale = np.full(len(IMPUTER_INPUTS), 1e9)
    scale[households] = 1.0
    arrays: dict[str, Any] = {
        "reference": reference,
        "values": np.array([100.0, 900.0]),
        "mean": np.zeros(len(IMPUTER_INPUTS)),
        "scale": scale,
        "k": np.int64(1),
    }
    return npz(arrays | changes)


def imputer_parts(kind: str) -> tuple[ImputerSpec, dict[str, bytes]]:
    """An imputer of each kind, and the file it needs."""
    if kind == "constant":
        return ImputerSpec(strategy="median", kind="constant", value=435.4), {}
    if kind == "neighbours":
        return ImputerSpec(strategy="knn", kind="neighbours"), {"imputer.npz": neighbours_file()}
    total_rooms = IMPUTER_INPUTS.index("total_rooms")
    # 1.5 bedrooms a household up to 500 rooms, 3 above.
    model = stump_model(len(IMPUTER_INPUTS), [(total_rooms, 500.0, 1.5, 3.0)])
    spec = ImputerSpec(strategy="ratio_boosting", kind="compiled", per_household=True)
    return spec, {"imputer.onnx": model}


def explanation_arrays(width: int, stumps: Sequence[Stump]) -> dict[str, NDArray[Any]]:
    """The same sum as `explanation.npz` holds it; of each stump's training rows, half went either way."""
    roots = 3 * np.arange(len(stumps))
    left, right, feature = (np.full(3 * len(stumps), -1, dtype=np.int32) for _ in range(3))
    left[roots], right[roots] = roots + 1, roots + 2
    feature[roots] = [stump[0] for stump in stumps]
    return {
        "constant": np.zeros(()),
        "coefficients": np.zeros(width),
        "means": np.zeros(width),
        "feature": feature,
        "threshold": np.array([[stump[1], 0.0, 0.0] for stump in stumps]).ravel(),
        "left": left,
        "right": right,
        "value": np.array([[0.0, *stump[2:]] for stump in stumps]).ravel(),
        "cover": np.tile([200.0, 100.0, 100.0], len(stumps)),
    }


def npz(arrays: Mapping[str, Any]) -> bytes:
    """Arrays as a file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def bundle_files(
    *,
    kind: str = "constant",
    version: int = 1,
    stumps: Sequence[Stump] = PRICE_STUMPS,
    explained: bool = False,
    files_instead: Mapping[str, bytes] | None = None,
    **changes: object,
) -> dict[str, bytes]:
    """The files of a valid bundle, able to explain if so asked.

    `files_instead` replaces the model's and adds others, `changes` replace fields of the manifest.
    """
    imputer, imputer_files = imputer_parts(kind)
    width = PREPROCESSING.spec().size
    files = {"model.onnx": stump_model(width, stumps), **imputer_files}
    if explained:
        files["explanation.npz"] = npz(explanation_arrays(width, stumps))
    files |= files_instead or {}
    fields: dict[str, Any] = {
        "model_name": "housing_price_model",
        "model_version": version,
        "algorithm": "RandomForest",
        "snapshot": "2025-01-05",
        "data_hash": "d" * 64,
        "git_commit": "ebe5dd9",
        "target": "median_house_value",
        "created_at": datetime(2025, 1, 5, 2, 0, tzinfo=UTC),
        "metrics": {"mae": 31_800.5, "r2": 0.83},
        "features": tuple(
            FeatureRange(name=name, minimum=low, maximum=high, nullable=name == "total_bedrooms")
            for name, (low, high) in ((name, LIMITS[name]) for name in NUMERIC_FEATURES)
        ),
        "categories": CATEGORIES,
        "preprocessing": PREPROCESSING,
        "imputer": imputer,
        "interval": IntervalSpec(level=0.9, lower_offset=-120_000.0, upper_offset=80_000.0),
        "libraries": {"numpy": "2.4.0"},
        "files": {name: sha256_hex(data) for name, data in files.items()},
    }
    return {**files, MANIFEST_FILE: BundleManifest(**(fields | changes)).to_json()}


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a new folder."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def columns_of(*instances: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Instances as columns; null is NaN."""
    columns: dict[str, NDArray[Any]] = {
        name: np.array([instance[name] for instance in instances], dtype=np.float64)
        for name in NUMERIC_FEATURES
    }
    columns["ocean_proximity"] = np.array([instance["ocean_proximity"] for instance in instances])
    return columns


def random_columns(rows: int, seed: int = 7) -> dict[str, NDArray[Any]]:
    """Plausible block groups, a third of them without bedrooms."""
    generator = np.random.default_rng(seed)
    rooms = generator.integers(2, 5000, rows).astype(np.float64)
    bedrooms = np.maximum(np.rint(rooms / 5), 1.0)
    bedrooms[generator.random(rows) < 1 / 3] = np.nan
    return {
        "longitude": generator.uniform(-124, -115, rows),
        "latitude": generator.uniform(33, 41, rows),
        "housing_median_age": generator.integers(1, 53, rows).astype(np.float64),
        "total_rooms": rooms,
        "total_bedrooms": bedrooms,
        "population": generator.integers(3, 4000, rows).astype(np.float64),
        "households": generator.integers(1, 1500, rows).astype(np.float64),
        "median_income": generator.uniform(0.5, 15, rows),
        "ocean_proximity": generator.choice(CATEGORIES, rows),
    }


def random_stumps(count: int = 200, seed: int = 11) -> list[Stump]:
    """Trees on every feature whose values do not add up exactly, so that order would show."""
    generator = np.random.default_rng(seed)
    width = PREPROCESSING.spec().size
    limits = [*LIMITS.values(), *((0.0, 5.0) for _ in range(4)), *((0.0, 1.0) for _ in range(7))]
    features = generator.integers(0, width, count)
    return [
        (
            int(feature),
            float(generator.uniform(*limits[feature])),
            float(generator.normal(1000, 300)),
            float(generator.normal(1500, 300)),
        )
        for feature in features
    ]
