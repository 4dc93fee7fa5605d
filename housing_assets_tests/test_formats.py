"""Formats: every value comes back as it was, the bytes repeat, and nothing untrusted is ever loaded."""

import io
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from skops import io as skops_io

from housing_assets.formats import TRUSTED_TYPES, FormatError, UntrustedType, decode, encode
from housing_assets.ml.cleaning import add_row_features, process
from housing_assets.ml.families import FAMILIES, build_estimator
from housing_assets.ml.imputation import STRATEGIES, BedroomImputer
from housing_assets.ml.preprocessing import FeatureSettings, RowFeatures, fit_preprocessing
from housing_assets.sources import packaged_source, parse

TYPED = pd.DataFrame(
    {
        "id": ["00ff", "0a0b"],
        "price": [452600.0, np.nan],
        "rooms": np.array([880, 7099], dtype=np.int32),
        "inland": [True, False],
        "category": pd.Categorical(["INLAND", "ISLAND"], categories=["ISLAND", "INLAND"]),
        "seen": pd.to_datetime(["2026-11-22", None]),
        "note": ["as published", None],
    }
)


class Stranger(BaseEstimator):  # type: ignore[misc]
    """An estimator nobody has put on the list."""


@pytest.fixture(scope="module")
def train() -> pd.DataFrame:
    rows = add_row_features(process(parse(packaged_source()).iloc[::100]).frame)
    rows.loc[::9, "total_bedrooms"] = np.nan
    return rows


# Tables


def test_a_table_comes_back_with_its_types() -> None:
    pd.testing.assert_frame_equal(decode("a/t.parquet", encode("a/t.parquet", TYPED)), TYPED)


def test_a_table_without_rows_keeps_its_columns() -> None:
    plain = TYPED.drop(columns="category")
    empty = decode("t.parquet", encode("t.parquet", plain.head(0)))
    assert empty.dtypes.to_dict() == plain.dtypes.to_dict()
    assert len(empty) == 0


def test_the_same_table_gives_the_same_bytes() -> None:
    assert encode("t.parquet", TYPED) == encode("other.parquet", TYPED.copy())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1, 2], "parquet holds a DataFrame, not list"),
        (TYPED.set_index("id"), "the index would be lost; call reset_index first"),
        (pd.DataFrame({"mixed": [1, "one"]}), "not a parquet table"),
        (pd.DataFrame([[1, 2]], columns=["twice", "twice"]), "not a parquet table"),
    ],
)
def test_what_is_no_table_is_refused(value: object, reason: str) -> None:
    with pytest.raises(FormatError, match=rf"a/t\.parquet: {reason}"):
        encode("a/t.parquet", value)


# Estimators


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_imputer_fills_the_same_bedrooms_after_a_round_trip(train: pd.DataFrame, strategy: str) -> None:
    pipeline = fit_preprocessing(BedroomImputer(strategy).fit(train), train, FeatureSettings(n_clusters=3))
    loaded = decode("p.skops", encode("p.skops", pipeline))
    assert np.array_equal(loaded.transform(train), pipeline.transform(train))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_predicts_the_same_price_after_a_round_trip(train: pd.DataFrame, family: str) -> None:
    preprocessing = fit_preprocessing(
        BedroomImputer("median").fit(train), train, FeatureSettings(n_clusters=3)
    )
    params = {"n_estimators": 5} if family in ("RandomForest", "GradientBoosting") else {}
    model = build_estimator(family, params, 1).fit(
        preprocessing.transform(train), train["median_house_value"]
    )
    if family == "RandomForest":
        model.set_params(n_jobs=1)
    steps = [("row_features", RowFeatures()), ("preprocessing", preprocessing), ("model", model)]
    pipeline = Pipeline(steps)
    loaded = decode("m.skops", encode("m.skops", pipeline))
    assert np.array_equal(loaded.predict(train), pipeline.predict(train))


def test_an_unknown_type_is_named_when_written_and_when_read() -> None:
    named = r"s\.skops: holds untrusted type housing_assets_tests\.test_formats\.Stranger"
    with pytest.raises(UntrustedType, match=f"{named}; if it is harmless, add it to TRUSTED_TYPES"):
        encode("s.skops", Stranger())
    with pytest.raises(UntrustedType, match=named):
        decode("s.skops", skops_io.dumps(Stranger()))


def test_the_trusted_types_are_few_and_ours_or_fitted_trees() -> None:
    assert TRUSTED_TYPES == (
        "collections.OrderedDict",
        "collections.defaultdict",
        "housing_assets.ml.imputation.BedroomImputer",
        "housing_assets.ml.preprocessing.FeatureEncoder",
        "housing_assets.ml.preprocessing.RowFeatures",
        "housing_serving.features.FeatureSpec",
        "housing_serving.neighbours.Neighbourhood",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMRegressor",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.tree._tree.Tree",
    )


# Results


@pytest.mark.parametrize("name", ["best_params.yaml", "release.json"])
def test_plain_data_comes_back(name: str) -> None:
    value = {
        "model_type": "RandomForest",
        "hyperparameters": {"max_depth": 23, "max_features": "log2", "alpha": 1e-05, "tiny": 0.1 + 0.2},
        "url": None,
        "notes": ["Überblick", True, "no", "2026-11-22"],
    }
    assert decode(name, encode(name, value)) == value


def test_yaml_is_sorted_and_diffable() -> None:
    shared = [1]
    assert encode("r.yaml", {"b": shared, "a": shared}) == b"a:\n- 1\nb:\n- 1\n"


def test_json_is_sorted_and_ends_with_a_newline() -> None:
    assert encode("r.json", {"b": 1, "a": "ü"}) == '{\n  "a": "ü",\n  "b": 1\n}\n'.encode()


@pytest.mark.parametrize("name", ["r.yaml", "r.json"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("text", "holds a dict or list, not str"),
        ({"a": np.float32(1)}, "not plain data"),
        ({"a": Path("x")}, "not plain data"),
    ],
)
def test_what_is_not_plain_data_is_refused(name: str, value: object, reason: str) -> None:
    with pytest.raises(FormatError, match=f"{name}: {reason}"):
        encode(name, value)


def test_json_holds_no_nan() -> None:
    with pytest.raises(FormatError, match=r"r\.json: not plain data"):
        encode("r.json", {"a": float("nan")})


def test_yaml_does_not_build_objects() -> None:
    with pytest.raises(FormatError, match=r"r\.yaml: not readable YAML"):
        decode("r.yaml", b"!!python/object/apply:os.system ['true']")
    with pytest.raises(FormatError, match=r"r\.yaml: not plain data"):
        encode("r.yaml", OrderedDict(a=object()))


# Names and damage


@pytest.mark.parametrize("name", ["model.pkl", "model", "table.csv"])
def test_an_unknown_suffix_names_the_known_ones(name: str) -> None:
    for call in (lambda: encode(name, {}), lambda: decode(name, b"")):
        with pytest.raises(
            FormatError, match=rf"{name}: no format for .*known: \.parquet, \.skops, \.yaml, \.json"
        ):
            call()


@pytest.mark.parametrize("name", ["x.parquet", "x.skops", "x.json"])
def test_a_damaged_object_is_named(name: str) -> None:
    for data in (b"", b"\x00damage"):
        with pytest.raises(FormatError, match=f"{name}: not (a )?readable"):
            decode(name, data)


def test_an_archive_that_is_no_skops_file_is_named() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("other.txt", "x")
    with pytest.raises(FormatError, match=r"x\.skops: not a readable skops file"):
        decode("x.skops", buffer.getvalue())
