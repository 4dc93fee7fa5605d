"""Every figure is a PNG of the common size, drawn alike each time, of odd input too."""

import io
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from housing_assets.ml import plots
from housing_assets.ml.plots.canvas import dollars
from housing_assets.ml.segments import calibration
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
    return pd.DataFrame({**columns, "davies_bouldin": [0.3, 0.6, 0.5], "price_wmape": [15.0, 14.2, 14.4]})


def trials(*states: str) -> pd.DataFrame:
    numbers = range(len(states))
    return pd.DataFrame({"number": numbers, "state": states, "wmape": [15.0 - 0.3 * one for one in numbers]})


def settings(*states: str) -> pd.DataFrame:
    """Trials with hyperparameters of every kind."""
    count = len(states)
    numbers = np.arange(count)
    columns = {"alpha": 10.0**-numbers, "depth": numbers % 3, "features": ["sqrt", None, "log2"] * count}
    return trials(*states).assign(**{name: values[:count] for name, values in columns.items()}, fixed=7)


def coordinates(frame: pd.DataFrame, **options: Any) -> bytes:
    return plots.parallel_coordinates(frame, ["alpha", "depth", "features", "fixed"], **options)


def protocols() -> pd.DataFrame:
    estimates = {"shuffled": (44e3, 43e3, 45e3), "blocks": (59e3, 50e3, 65e3), "test": (42e3, 40e3, 44e3)}
    rows = [
        (protocol, figure, *(bound * unit for bound in bounds))
        for figure, unit in (("rmse", 1.0), ("wmape", 3e-4), ("r2", 1e-5))
        for protocol, bounds in estimates.items()
    ]
    return pd.DataFrame(rows, columns=["protocol", "figure", "value", "low", "high"])


def curve(*rows: int) -> pd.DataFrame:
    wmape, rmse = (np.linspace(start, 0.7 * start, len(rows)) for start in (17.0, 52_000.0))
    edges = {"wmape_lowest": wmape - 1, "wmape_highest": wmape + 1, "rmse_lowest": rmse, "rmse_highest": rmse}
    return pd.DataFrame({"rows": rows, "wmape": wmape, "rmse": rmse, **edges})


def inputs(*increases: float) -> pd.DataFrame:
    names = ["place", "median_income", "ocean_proximity"]
    return pd.DataFrame({"input": names, "mae_increase": increases, "std": [500.0, 200.0, 0.0]})


def own_features() -> pd.DataFrame:
    return pd.DataFrame({"feature": [f"f{number}" for number in range(20)], "importance": [0.05] * 20})


FIGURES: dict[str, Callable[[], bytes]] = {
    "imputation comparison": lambda: plots.imputation_comparison(comparison(), "knn"),
    "cluster scan": lambda: plots.cluster_scan(scan(), 3),
    "correlation heat map": lambda: plots.correlation_heatmap(block_groups(50)),
    "train and test": lambda: plots.train_test_distributions(*split(block_groups(300))),
    "model comparison": lambda: plots.model_comparison(families()),
    "sweep": lambda: plots.sweep_history(trials("COMPLETE", "PRUNED", "COMPLETE")),
    "sweep, none stopped": lambda: plots.sweep_history(trials("COMPLETE")),
    "sweep, all stopped": lambda: plots.sweep_history(trials("PRUNED", "PRUNED")),
    "sweep, more is better": lambda: plots.sweep_history(trials("COMPLETE", "COMPLETE"), maximize=True),
    "parallel coordinates": lambda: coordinates(
        settings("COMPLETE", "PRUNED", "COMPLETE", "PRUNED"), logarithmic=["alpha"]
    ),
    "parallel coordinates, more is better": lambda: coordinates(
        settings("COMPLETE", "PRUNED", "COMPLETE"), maximize=True
    ),
    "parallel coordinates, one trial": lambda: coordinates(settings("COMPLETE")),
    "parallel coordinates, all stopped": lambda: coordinates(settings("PRUNED", "PRUNED")),
    "parameter importances": lambda: plots.parameter_importances(
        pd.DataFrame({"parameter": ["depth", "alpha"], "importance": [0.9, 0.1]})
    ),
    "importances": lambda: plots.feature_importances(own_features()),
    "importances of nothing": lambda: plots.feature_importances(
        pd.DataFrame({"feature": ["a", "b"], "importance": [0.0, 0.0]})
    ),
    "protocols": lambda: plots.protocols(protocols()),
    "calibration": lambda: plots.calibration(calibration(predictions(), 10)),
    "calibration of parts of one row": lambda: plots.calibration(calibration(predictions(4), 4)),
    "learning curve": lambda: plots.learning_curve(curve(100, 200, 1_000)),
    "learning curve of one point": lambda: plots.learning_curve(curve(1_000)),
    "permutation": lambda: plots.permutation_importances(inputs(40e3, 20e3, 0.0), own_features()),
    "permutation, none worth anything": lambda: plots.permutation_importances(
        inputs(0.0, -100.0, 0.0), own_features().assign(importance=0.0)
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


def test_the_best_trial_is_by_the_direction() -> None:
    frame = settings("COMPLETE", "COMPLETE", "COMPLETE")
    assert coordinates(frame) != coordinates(frame, maximize=True)
    assert plots.sweep_history(frame) != plots.sweep_history(frame, maximize=True)


def test_a_setting_far_from_the_best_does_not_squeeze_the_others() -> None:
    frame = settings(*["COMPLETE"] * 6)
    far, further = frame.copy(), frame.copy()
    far.loc[0, "wmape"], further.loc[0, "wmape"] = 1e3, 1e6
    assert coordinates(far) == coordinates(further)


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
