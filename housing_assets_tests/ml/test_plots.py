"""Every figure is a PNG of the common size, drawn alike each time, of odd input too."""

import io
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from housing_assets.ml import plots
from housing_assets.ml.plots.canvas import dollars
from housing_assets.ml.split import split
from housing_assets_tests.ml.block_groups import block_groups


def predictions(rows: int = 60, top: float = 500_001.0) -> pd.DataFrame:
    frame = block_groups(rows)[["block_group_id", "longitude", "latitude"]]
    actual = np.linspace(20_000, top, rows)
    predicted = actual + 1e4 * np.cos(np.arange(rows))
    return frame.assign(actual=actual, predicted=predicted, residual=actual - predicted)


def comparison() -> pd.DataFrame:
    return pd.DataFrame({"strategy": ["mean", "knn"], "rmse": [409.0, 64.0], "mae": [261.0, 40.0]})


def families() -> pd.DataFrame:
    rows = [("Ridge", 22.9, 47_000.0, 500.0), ("RandomForest", 13.7, 28_000.0, 300.0)]
    return pd.DataFrame(rows, columns=["family", "wmape", "mae", "mae_std"])


def scan() -> pd.DataFrame:
    columns = {"k": [2, 3, 4], "inertia": [9.0, 5.0, 3.0], "silhouette": [0.7, 0.5, 0.6]}
    return pd.DataFrame({**columns, "davies_bouldin": [0.3, 0.6, 0.5]})


def trials(*states: str) -> pd.DataFrame:
    numbers = range(len(states))
    return pd.DataFrame({"number": numbers, "state": states, "wmape": [15.0 - 0.3 * one for one in numbers]})


FIGURES: dict[str, Callable[[], bytes]] = {
    "imputation comparison": lambda: plots.imputation_comparison(comparison(), "knn"),
    "cluster scan": lambda: plots.cluster_scan(scan(), 3),
    "correlation heat map": lambda: plots.correlation_heatmap(block_groups(50)),
    "train and test": lambda: plots.train_test_distributions(*split(block_groups(300))),
    "model comparison": lambda: plots.model_comparison(families()),
    "sweep": lambda: plots.sweep_history(trials("COMPLETE", "PRUNED", "COMPLETE")),
    "sweep, none stopped": lambda: plots.sweep_history(trials("COMPLETE")),
    "sweep, all stopped": lambda: plots.sweep_history(trials("PRUNED", "PRUNED")),
    "importances": lambda: plots.feature_importances(
        pd.DataFrame({"feature": [f"f{number}" for number in range(20)], "importance": [0.05] * 20})
    ),
    "importances of nothing": lambda: plots.feature_importances(
        pd.DataFrame({"feature": ["a", "b"], "importance": [0.0, 0.0]})
    ),
    "residual map": lambda: plots.residual_map(predictions()),
    "residual map of a perfect model": lambda: plots.residual_map(predictions().assign(residual=0.0)),
    "predicted against actual": lambda: plots.predicted_vs_actual(predictions()),
    "predicted against actual, no capped price": lambda: plots.predicted_vs_actual(predictions(top=300_000)),
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_figure_is_a_picture_of_the_common_size_and_the_same_each_time(name: str) -> None:
    png = FIGURES[name]()
    with Image.open(io.BytesIO(png)) as picture:
        assert (picture.format, picture.size) == ("PNG", (1200, 700))
        assert len(picture.convert("RGB").getcolors(maxcolors=10**6) or []) > 10
    assert FIGURES[name]() == png


def test_an_empty_test_side_still_draws() -> None:
    frame = block_groups(50)
    assert plots.train_test_distributions(frame, frame.head(0)).startswith(b"\x89PNG")


def test_the_chosen_strategy_stands_out() -> None:
    assert plots.imputation_comparison(comparison(), "knn") != plots.imputation_comparison(
        comparison(), "mean"
    )


@pytest.mark.parametrize(("value", "text"), [(0, "$0k"), (125_000, "$125k"), (-75_400, "-$75k")])
def test_amounts_are_written_in_thousands(value: float, text: str) -> None:
    assert dollars(value) == text


def test_importing_the_plots_does_not_import_matplotlib_and_drawing_needs_no_pyplot() -> None:
    code = (
        "import sys, pandas as pd; from housing_assets.ml import plots; "
        "assert 'matplotlib' not in sys.modules; "
        "plots.feature_importances(pd.DataFrame({'feature': ['a'], 'importance': [1.0]})); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
