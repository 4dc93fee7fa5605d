"""Bundles: complete, reproducible, and equal to the pipeline they came from."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeRegressor

from housing_assets.ml.export import UnsupportedEstimator, bundle_files, check_parity
from housing_assets.ml.imputation import STRATEGIES, BedroomImputer
from housing_assets.ml.intervals import Interval
from housing_assets.ml.preprocessing import FeatureSettings, fit_preprocessing
from housing_assets.ml.selection import FAMILIES
from housing_assets.ml.training import fit_model, predict
from housing_assets_tests.ml.block_groups import block_groups
from housing_serving.bundle import Bundle, sha256_hex

TRAIN_ROWS = 500
CHEAP = {"RandomForest": {"n_estimators": 10}, "GradientBoosting": {"n_estimators": 10}}
FILES = {
    "median": ["block_groups.npz", "bundle.json", "explanation.npz", "model.onnx"],
    "mean": ["block_groups.npz", "bundle.json", "explanation.npz", "model.onnx"],
    "knn": ["block_groups.npz", "bundle.json", "explanation.npz", "imputer.npz", "model.onnx"],
    "iterative_forest": ["block_groups.npz", "bundle.json", "explanation.npz", "imputer.onnx", "model.onnx"],
    "ratio_boosting": ["block_groups.npz", "bundle.json", "explanation.npz", "imputer.onnx", "model.onnx"],
}


@cache
def pipeline_of(family: str, strategy: str) -> Pipeline:
    train = block_groups(TRAIN_ROWS)
    preprocessing = fit_preprocessing(
        BedroomImputer(strategy).fit(train), train, FeatureSettings(n_clusters=4)
    )
    return fit_model(preprocessing, train, family, CHEAP.get(family, {}))


@cache
def files_of(family: str, strategy: str) -> dict[str, bytes]:
    return bundle_files(
        pipeline_of(family, strategy),
        block_groups(TRAIN_ROWS),
        model_name="housing_price_model",
        model_version=3,
        algorithm=family,
        snapshot="2026-01-04",
        data_hash="d" * 64,
        git_commit="abc123",
        created_at=datetime(2026, 1, 4, 2, 0, tzinfo=UTC),
        metrics={"mae": np.float64(30_000.5)},
        interval=Interval(0.9, -50_000.0, 60_000.0),
    )


def loaded(folder: Path, family: str, strategy: str) -> Bundle:
    for name, data in files_of(family, strategy).items():
        (folder / name).write_bytes(data)
    return Bundle.load(folder)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_imputer_is_exported_and_fills_nulls_to_the_same_price(tmp_path: Path, strategy: str) -> None:
    bundle = loaded(tmp_path, "RandomForest", strategy)
    assert sorted(files_of("RandomForest", strategy)) == FILES[strategy]
    assert bundle.manifest.imputer.strategy == strategy
    rows = block_groups(700)
    parity = check_parity(bundle, pipeline_of("RandomForest", strategy), rows, single_rows=50)
    assert parity.rows == 700
    assert parity.max_abs_difference == 0.0


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_exported_to_the_same_price(tmp_path: Path, family: str) -> None:
    bundle = loaded(tmp_path, family, "ratio_boosting")
    parity = check_parity(bundle, pipeline_of(family, "ratio_boosting"), block_groups(700), single_rows=50)
    assert parity.max_abs_difference <= (1e-6 if family in ("Ridge", "Lasso") else 0.0)


def test_the_manifest_states_the_model_and_what_it_was_trained_on(tmp_path: Path) -> None:
    train = block_groups(TRAIN_ROWS)
    manifest = loaded(tmp_path, "DecisionTree", "ratio_boosting").manifest
    assert (manifest.model_name, manifest.model_version, manifest.algorithm) == (
        *("housing_price_model", 3, "DecisionTree"),
    )
    assert (manifest.snapshot, manifest.data_hash, manifest.git_commit) == ("2026-01-04", "d" * 64, "abc123")
    assert manifest.created_at == datetime(2026, 1, 4, 2, 0, tzinfo=UTC)
    assert manifest.metrics == {"mae": 30_000.5}
    assert manifest.target == "median_house_value"
    interval = manifest.interval
    assert (interval.level, interval.lower_offset, interval.upper_offset) == (0.9, -50_000.0, 60_000.0)
    income = manifest.features[-1]
    assert (income.name, income.minimum, income.maximum, income.nullable) == (
        *("median_income", train["median_income"].min(), train["median_income"].max(), False),
    )
    assert [one.name for one in manifest.features if one.nullable] == ["total_bedrooms"]
    assert set(manifest.categories) == set(train["ocean_proximity"])
    assert len(manifest.preprocessing.cluster_centers) == 4
    assert manifest.imputer.per_household
    assert {"python", "lightgbm", "numpy", "onnx", "onnxruntime", "scikit-learn"} == set(manifest.libraries)


def test_the_manifest_holds_the_hash_of_every_other_file(tmp_path: Path) -> None:
    files = files_of("DecisionTree", "knn")
    listed = loaded(tmp_path, "DecisionTree", "knn").manifest.files
    assert listed == {name: sha256_hex(data) for name, data in files.items() if name != "bundle.json"}


@pytest.mark.parametrize("strategy", ["knn", "ratio_boosting"])
def test_the_same_pipeline_gives_the_same_bytes(strategy: str) -> None:
    first = files_of("RandomForest", strategy)
    files_of.cache_clear()
    pipeline_of.cache_clear()
    assert files_of("RandomForest", strategy) == first


def test_a_bundle_of_another_model_is_found_out_with_the_worst_rows(tmp_path: Path) -> None:
    rows = block_groups(60)
    other = pipeline_of("RandomForest", "median")
    bundle = loaded(tmp_path, "DecisionTree", "median")
    parity = check_parity(bundle, other, rows, single_rows=5)
    differences = np.abs(predict(other, rows) - predict(pipeline_of("DecisionTree", "median"), rows))
    assert parity.max_abs_difference >= differences.max() > 1_000
    assert list(parity.worst.columns) == ["block_group_id", "asked", "pipeline", "bundle", "difference"]
    assert len(parity.worst) == 10
    worst = parity.worst.iloc[0]
    assert worst["difference"] == parity.max_abs_difference == abs(worst["pipeline"] - worst["bundle"])
    assert worst["block_group_id"] in set(rows["block_group_id"])
    assert parity.worst["difference"].is_monotonic_decreasing


def test_rows_without_ids_are_named_by_their_position(tmp_path: Path) -> None:
    rows = block_groups(5).drop(columns="block_group_id")
    bundle = loaded(tmp_path, "DecisionTree", "median")
    parity = check_parity(bundle, pipeline_of("DecisionTree", "median"), rows)
    assert set(parity.worst["block_group_id"]) <= set(range(5))
    assert parity.max_abs_difference == 0.0


def test_an_answer_that_is_no_number_is_the_worst_difference(tmp_path: Path) -> None:
    rows = block_groups(5)
    broken = rows.assign(median_income=[np.nan, *rows["median_income"][1:]])
    bundle = loaded(tmp_path, "Ridge", "median")
    pipeline = pipeline_of("DecisionTree", "median")
    assert check_parity(bundle, pipeline, broken).max_abs_difference == np.inf


def test_nothing_to_compare_is_refused(tmp_path: Path) -> None:
    bundle = loaded(tmp_path, "DecisionTree", "median")
    with pytest.raises(ValueError, match="no rows"):
        check_parity(bundle, pipeline_of("DecisionTree", "median"), block_groups(5).head(0))


class SuspiciousImputer(BedroomImputer):
    """An imputer of a kind that bundles do not know."""

    def as_imputer(self) -> object:
        return DecisionTreeRegressor()


def test_an_imputer_that_bundles_do_not_know_is_refused() -> None:
    train = block_groups(50)
    known = pipeline_of("DecisionTree", "median")
    preprocessing = Pipeline(
        [
            ("imputer", SuspiciousImputer("median").fit(train)),
            ("encoder", known["preprocessing"]["encoder"]),
        ]
    )
    pipeline = Pipeline([("preprocessing", preprocessing), ("model", known["model"])])
    with pytest.raises(UnsupportedEstimator, match="DecisionTreeRegressor cannot be exported"):
        bundle_files(
            pipeline,
            train,
            model_name="m",
            model_version=1,
            algorithm="DecisionTree",
            snapshot="2026-01-04",
            data_hash="d",
            git_commit="c",
            created_at=datetime(2026, 1, 4, tzinfo=UTC),
            metrics={},
            interval=Interval(0.9, -1.0, 1.0),
        )
