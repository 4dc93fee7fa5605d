"""What the asset adds to the pure functions: settings, and which behaviour stops a deployment."""

from datetime import UTC, datetime
from functools import cache
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from housing_assets.assets.registered_model import (
    EvaluationConfig,
    RegistrationConfig,
    behaviour_result,
    price_with,
)
from housing_assets.metadata import markdown_table
from housing_assets.ml.behaviour import EXTRA_COLUMN
from housing_assets.ml.evaluation import EvaluationSettings
from housing_assets.ml.export import bundle_files
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.intervals import Interval
from housing_assets.ml.preprocessing import fit_preprocessing
from housing_assets.ml.split import split
from housing_assets.ml.training import fit_model
from housing_assets_tests.ml.block_groups import PLAIN, block_groups
from housing_serving.bundle import Bundle
from housing_serving.features import Columns

VERSION = 7


@cache
def rows() -> pd.DataFrame:
    return split(block_groups(1_500))[0]


def bundle(family: str, **hyperparameters: Any) -> Bundle:
    train = rows()
    preprocessing = fit_preprocessing(BedroomImputer().fit(train), train, PLAIN)
    pipeline = fit_model(preprocessing, train, family, hyperparameters)
    files = bundle_files(
        pipeline,
        train,
        model_name="housing_price_model",
        model_version=VERSION,
        algorithm=family,
        snapshot="2026-11-22",
        data_hash="hash",
        git_commit="commit",
        created_at=datetime.now(UTC),
        metrics={},
        interval=Interval(0.9, -1.0, 1.0),
    )
    return Bundle.from_files(files, origin="test")


def test_a_good_forest_behaves_as_expected() -> None:
    found = behaviour_result(bundle("RandomForest", n_estimators=100, min_samples_leaf=5), rows())
    assert found.passed, found.description
    assert found.description == f"version {VERSION}: as expected"
    assert str(found.metadata["behaviour"].value).count("| True") >= 8


def test_a_tendency_of_the_model_is_a_warning() -> None:
    # One deep tree: its steps are as wild as single prices.
    found = behaviour_result(bundle("DecisionTree", min_samples_leaf=1), rows())
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert "more income" in str(found.description)


def test_a_defect_of_the_model_is_an_error() -> None:
    # A line goes on for ever: the largest counts of the rows make prices that nothing costs.
    found = behaviour_result(bundle("Ridge", alpha=1.0), rows())
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert "are not between" in str(found.description)


def test_columns_that_a_bundle_does_not_know_reach_it() -> None:
    class Recording:
        """Stands in for a bundle, to see what it is asked."""

        def __init__(self) -> None:
            self.asked: set[str] = set()

        def predict(self, columns: Columns) -> Any:
            self.asked = set(columns)
            return real.predict(columns)

    real, recording = bundle("DecisionTree", max_depth=3), Recording()
    frame = rows().assign(**{EXTRA_COLUMN: 1.0})
    prices = price_with(recording, frame)  # type: ignore[arg-type]
    assert EXTRA_COLUMN in recording.asked
    np.testing.assert_array_equal(prices, price_with(real, rows()))


def test_the_configuration_gives_the_settings_by_default_and_by_value() -> None:
    config = RegistrationConfig()
    given = config.evaluation.settings(config.n_folds, config.random_state, PLAIN)
    assert given == EvaluationSettings(features=PLAIN)
    changed = EvaluationConfig(spatial_folds=4, curve_fractions=[0.5]).settings(2, 7, PLAIN)
    assert (changed.spatial_folds, changed.curve_fractions) == (4, (0.5,))
    assert (changed.shuffled_folds, changed.seed) == (2, 7)
    with pytest.raises(ValueError, match="must ascend"):
        EvaluationConfig(curve_fractions=[0.5, 2.0]).settings(2, 7, PLAIN)


def test_a_table_shows_nulls_as_empty_cells() -> None:
    shown = str(markdown_table(pd.DataFrame({"figure": ["rmse", "r2"], "ratio": [0.75, np.nan]})).value)
    assert shown.splitlines()[2:] == ["| rmse     |    0.75 |", "| r2       |         |"]
