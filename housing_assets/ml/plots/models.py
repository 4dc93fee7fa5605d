"""Figures about models: comparison, search, importances, and errors on held-out rows."""

from typing import Any

import numpy as np
import pandas as pd

from housing_assets.ml.cleaning import PRICE_CAP
from housing_assets.ml.plots.canvas import (
    BLUE,
    DIVERGING,
    GREEN,
    GREY,
    INK,
    STOPPED_EARLY,
    VERMILION,
    in_thousands,
    label,
    new_figure,
    objective_label,
    style,
    to_png,
)

TOP_FEATURES = 15
# For orientation on the map: latitude, longitude.
CITIES = {
    "Redding": (40.59, -122.39),
    "Sacramento": (38.58, -121.49),
    "Fresno": (36.74, -119.78),
    "Bakersfield": (35.37, -119.02),
    "San Diego": (32.72, -117.16),
}
# Enlarged parts of the map: west, east, south, north.
ZOOMS = {
    "San Francisco Bay Area": (-122.85, -121.45, 37.15, 38.15),
    "Los Angeles": (-118.75, -117.35, 33.4, 34.4),
}
# Residuals beyond this share on either side get the end colours: a few would pale all the others.
COLOUR_SPAN = 0.95


def model_comparison(table: pd.DataFrame) -> bytes:
    """The best setting of each family, by cross-validated error.

    Args:
        table: family, wmape, mae, mae_std; the lowest wmape wins.
    """
    ordered = table.sort_values("wmape", ascending=False, ignore_index=True)
    places = np.arange(len(ordered))
    colours = [GREY] * (len(ordered) - 1) + [GREEN]
    figure = new_figure("Model families, best setting of each (shuffled cross-validation on training rows)")
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(places, ordered["wmape"], height=0.62, color=colours)
    right.barh(
        places, ordered["mae"], xerr=ordered["mae_std"], height=0.62, color=colours, ecolor=INK, capsize=4
    )
    _bar_notes(left, ordered["wmape"], "{:.2f} %")
    _bar_notes(right, ordered["mae"] + ordered["mae_std"], "${:,.0f}", ordered["mae"])
    left.set_yticks(places, [label(name) for name in ordered["family"]])
    style(left, xlabel="wMAPE (%), lower is better; decides", grid="x")
    style(right, xlabel="Mean absolute error ($), ± standard deviation over folds", grid="x")
    in_thousands(right.xaxis)
    return to_png(figure)


def _bar_notes(axes: Any, ends: "pd.Series[float]", pattern: str, values: Any = None) -> None:  # noqa: ANN401
    # Bars that are all zero still need an axis.
    longest = float(ends.max()) or 1.0
    for place, (end, value) in enumerate(zip(ends, ends if values is None else values, strict=True)):
        axes.text(end + longest * 0.015, place, pattern.format(value), va="center", fontsize=12, color=INK)
    axes.set_xlim(0, longest * 1.25)


def sweep_history(trials: pd.DataFrame, objective: str = "wmape", *, maximize: bool = False) -> bytes:
    """Objective of every trial in the order tried, and the best so far.

    Args:
        trials: number, state (COMPLETE or PRUNED), and the objective.
        objective: Its column.
        maximize: Whether more of it is better.
    """
    figure = new_figure("Hyperparameter search: every trial, and the best so far")
    axes = figure.subplots()
    done = trials["state"] == "COMPLETE"
    numbers = trials["number"] + 1
    axes.scatter(numbers[done], trials[objective][done], s=70, color=BLUE, label="completed", zorder=3)
    if (~done).any():
        stopped = {"marker": "x", "s": 60, "color": VERMILION, "label": STOPPED_EARLY}
        axes.scatter(numbers[~done], trials[objective][~done], zorder=3, **stopped)
    if done.any():
        completed = trials[objective].where(done)
        first = completed.idxmax() if maximize else completed.idxmin()
        found = f"best so far (trial {numbers[first]}: {completed[first]:.3f})"
        best = completed.cummax() if maximize else completed.cummin()
        axes.step(numbers, best.ffill(), where="post", color=GREEN, linewidth=2.2, label=found, zorder=2)
    axes.margins(x=0.08, y=0.18)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=12)
    better = f"{'higher' if maximize else 'lower'} is better"
    style(axes, xlabel="Trial", ylabel=f"{objective_label(objective)}, mean over folds, {better}", grid="y")
    return to_png(figure)


def feature_importances(table: pd.DataFrame) -> bytes:
    """The features that matter most.

    Args:
        table: feature, importance (shares that sum to one).
    """
    top = table.nlargest(TOP_FEATURES, "importance").iloc[::-1]
    figure = new_figure(f"The {len(top)} most important of {len(table)} features")
    axes = figure.subplots()
    axes.barh(top["feature"], 100 * top["importance"], height=0.68, color=BLUE)
    _bar_notes(axes, (100 * top["importance"]).reset_index(drop=True), "{:.1f} %")
    style(axes, xlabel="Share of importance (%)", grid="x")
    return to_png(figure)


def contributions(table: pd.DataFrame) -> bytes:
    """How far each input moves prices.

    Args:
        table: feature, mean_absolute_contribution (dollars), the largest first.
    """
    ordered = table.iloc[::-1].reset_index(drop=True)
    figure = new_figure("How far each input moves a price, on average (mean absolute Shapley value)")
    axes = figure.subplots()
    axes.barh(
        [label(name) for name in ordered["feature"]],
        ordered["mean_absolute_contribution"],
        height=0.68,
        color=BLUE,
    )
    _bar_notes(axes, ordered["mean_absolute_contribution"], "${:,.0f}")
    in_thousands(axes.xaxis)
    style(axes, xlabel="Location = coordinates, distances and what is known of neighbours", grid="x")
    return to_png(figure)


def residual_map(predictions: pd.DataFrame) -> bytes:
    """Where in California the model asks too much or too little, the two large conurbations enlarged.

    Args:
        predictions: longitude, latitude, residual (actual - predicted).
    """
    figure = new_figure(f"Residuals on the map: {len(predictions):,} held-out block groups of California")
    panels = figure.subplot_mosaic([["state", name] for name in ZOOMS], width_ratios=(1.3, 1))
    residuals = predictions["residual"]
    span = max(float(residuals.abs().quantile(COLOUR_SPAN)), 1.0)
    colours = {"c": residuals, "cmap": DIVERGING, "vmin": -span, "vmax": span}
    for name, axes in panels.items():
        size = 12 if name == "state" else 20
        lines = {"edgecolors": "#55555580", "linewidths": 0.3}
        points = axes.scatter(predictions["longitude"], predictions["latitude"], s=size, **colours, **lines)
        # A degree of longitude is shorter than one of latitude.
        axes.set_aspect(1 / np.cos(np.radians(36.0)), adjustable="datalim" if name == "state" else "box")
        axes.set_facecolor("#F4F4F4")
        style(axes)
    style(panels["state"], xlabel="Longitude (°)", ylabel="Latitude (°)")
    _zoom(panels)
    _cities(panels["state"])
    bar = figure.colorbar(points, ax=list(panels.values()), pad=0.01, extend="both", aspect=32)
    bar.set_label("Actual - predicted: blue = priced too high, red = too low", fontsize=12)
    in_thousands(bar.ax.yaxis)
    return to_png(figure)


def _zoom(panels: dict[str, Any]) -> None:
    for name, (west, east, south, north) in ZOOMS.items():
        panels[name].set(xlim=(west, east), ylim=(south, north))
        panels[name].set_title(name, fontsize=12, color=INK)
        panels[name].locator_params(nbins=5)
        corners = [(west, south), (east, south), (east, north), (west, north), (west, south)]
        panels["state"].plot(*zip(*corners, strict=True), color=INK, linewidth=1)


def _cities(axes: Any) -> None:  # noqa: ANN401
    from matplotlib.patheffects import withStroke  # noqa: PLC0415  (slow to import)

    for name, (latitude, longitude) in CITIES.items():
        axes.plot(longitude, latitude, marker="+", color=INK, markersize=9, markeredgewidth=1.6)
        place = {"xytext": (8, 5), "textcoords": "offset points", "fontsize": 11, "color": INK}
        halo = [withStroke(linewidth=3, foreground="white")]
        axes.annotate(name, (longitude, latitude), path_effects=halo, **place)


def predicted_vs_actual(predictions: pd.DataFrame) -> bytes:
    """Predictions against published values; on the line is right.

    Args:
        predictions: actual, predicted.
    """
    figure = new_figure(f"Predicted against actual house values: {len(predictions):,} held-out block groups")
    axes = figure.subplots()
    top = 1.03 * float(max(predictions["actual"].max(), predictions["predicted"].max()))
    cells = axes.hexbin(
        predictions["actual"],
        predictions["predicted"],
        gridsize=(70, 34),
        extent=(0, top, 0, top),
        mincnt=1,
        bins="log",
        cmap="viridis_r",
        linewidths=0.1,
    )
    axes.plot([0, top], [0, top], color=VERMILION, linewidth=2, label="predicted = actual")
    if predictions["actual"].max() >= PRICE_CAP:
        axes.axvline(
            PRICE_CAP, color=INK, linestyle=":", linewidth=1.5, label="published values are capped here"
        )
    axes.set(xlim=(0, top), ylim=(0, top))
    axes.legend(frameon=False, fontsize=12, loc="upper left")
    style(axes, xlabel="Actual median house value", ylabel="Predicted median house value", grid="both")
    in_thousands(axes.xaxis)
    in_thousands(axes.yaxis)
    bar = figure.colorbar(cells, ax=axes, pad=0.01, ticks=[1, 2, 5, 10, 20, 50, 100, 200], format="%d")
    bar.minorticks_off()
    bar.set_label("Block groups per cell (log scale)", fontsize=12)
    return to_png(figure)
