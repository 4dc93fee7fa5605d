"""The published forest, its split and its figures, and a fair comparison with it."""

import numpy as np
import pandas as pd
import pytest

from housing_assets.metadata import markdown_table
from housing_assets.ml.cleaning import add_row_features, process
from housing_assets.ml.metrics import regression_metrics
from housing_assets.ml.published import (
    FOREST,
    ClusterLabel,
    compare_with_forest,
    fit_published_forest,
    published_figures,
    published_split,
)
from housing_assets.ml.split import split
from housing_assets.ml.training import predict
from housing_assets.sources import packaged_source, parse
from housing_assets_tests.ml.block_groups import block_groups
from housing_serving.features import TARGET


def test_the_forest_has_the_published_settings_and_features() -> None:
    train, test = split(block_groups(1_200))
    forest = fit_published_forest(train)
    assert {name: forest["model"].get_params()[name] for name in FOREST} == FOREST
    # Eight numbers, a column per category, a cluster number.
    assert forest["model"].n_features_in_ == 8 + train["ocean_proximity"].nunique() + 1
    predicted = predict(forest, test.assign(total_bedrooms=np.nan))
    assert (
        predicted.tobytes()
        == predict(fit_published_forest(train), test.assign(total_bedrooms=np.nan)).tobytes()
    )
    assert regression_metrics(test[TARGET], predicted)["r2"] > 0.5


def test_a_cluster_label_tells_north_from_south() -> None:
    places = pd.DataFrame(
        {"latitude": [34.0, 34.1, 38.0, 38.1], "longitude": [-118.0, -118.1, -122.0, -122.1]}
    )
    labels = ClusterLabel(2).fit(places).transform(places)
    assert labels.shape == (4, 1)
    assert labels[0] == labels[1] != labels[2] == labels[3]


def test_the_published_split_is_drawn_from_the_published_order() -> None:
    raw = parse(packaged_source())
    frame = add_row_features(process(raw).frame)
    train, test = published_split(frame, raw)
    assert (len(train), len(test)) == (16_512, 4_128)
    assert set(train["block_group_id"]).isdisjoint(test["block_group_id"])
    # First test row of `train_test_split(rows, test_size=0.2, random_state=42)` on the published rows.
    first = raw.iloc[20_046]
    found = test[(test["total_rooms"] == first["total_rooms"]) & (test["population"] == first["population"])]
    assert found[TARGET].tolist() == [47_700.0]


def test_published_figures_are_stated_once_and_what_was_not_published_is_empty() -> None:
    table = published_figures().set_index("model")
    assert table["rmse"].tolist() == [53_277.02, 45_076.44]
    assert table["wmape"].isna().tolist() == [True, False]
    shown = markdown_table(published_figures()).value
    assert "nan" not in shown
    assert "53,277" in shown


def test_a_comparison_is_generated_from_predictions_on_the_same_rows() -> None:
    generator = np.random.default_rng(1)
    actual, errors = generator.uniform(1e5, 4e5, 300), generator.normal(0, 4e4, 300)
    found = compare_with_forest(actual, actual + 0.8 * errors, actual + errors, resamples=100)
    table = found.table.set_index("figure")
    theirs = regression_metrics(actual, actual + errors)
    assert table["published_forest"].to_dict() == pytest.approx({name: theirs[name] for name in table.index})
    assert found.ratios == pytest.approx(dict.fromkeys(("rmse", "mae", "mape", "wmape"), 0.8))
    assert table.loc["rmse", ["ratio", "low", "high"]].tolist() == pytest.approx([0.8] * 3)
    assert table.loc["r2", "ours"] > table.loc["r2", "published_forest"]
    assert table.loc["r2", ["ratio", "low", "high"]].isna().all()
