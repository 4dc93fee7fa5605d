"""Figures about the data and the preprocessing."""

from typing import Any

import numpy as np
import pandas as pd

from housing_assets.ml.plots.canvas import (
    BLUE,
    DIVERGING,
    GREEN,
    GREY,
    INK,
    ORANGE,
    label,
    new_figure,
    style,
    to_png,
)
from housing_serving.features import CATEGORICAL_FEATURE, CATEGORIES, NUMERIC_FEATURES, TARGET

# Counts span three orders of magnitude: only the logarithm shows their shape.
LOGARITHMIC = frozenset({"total_rooms", "total_bedrooms", "population", "households"})
HISTOGRAM_BINS = 40


def imputation_comparison(table: pd.DataFrame, chosen: str) -> bytes:
    """Error of each strategy on hidden known bedrooms; the chosen one stands out.

    Args:
        table: strategy, rmse, mae.
        chosen: The strategy that is used.
    """
    ordered = table.sort_values("rmse", ascending=False)
    figure = new_figure("Imputing total_bedrooms: error on hidden known values")
    axes = figure.subplots()
    places = np.arange(len(ordered))
    colours = [GREEN if name == chosen else GREY for name in ordered["strategy"]]
    axes.barh(places, ordered["rmse"], height=0.62, color=colours)
    largest = float(ordered["rmse"].max())
    columns = (ordered[name] for name in ("strategy", "rmse", "mae"))
    for place, (name, rmse, mae) in enumerate(zip(*columns, strict=True)):
        text = f"RMSE {rmse:,.1f}   MAE {mae:,.1f}{'   chosen' if name == chosen else ''}"
        axes.text(rmse + largest * 0.012, place, text, va="center", fontsize=12, color=INK)
    axes.set_yticks(places, [label(name) for name in ordered["strategy"]])
    axes.set_xlim(0, largest * 1.36)
    style(axes, xlabel="Root mean squared error (bedrooms per block group), lower is better", grid="x")
    return to_png(figure)


def cluster_scan(scan: pd.DataFrame, n_clusters: int) -> bytes:
    """Elbow and cluster quality by number of geographic clusters.

    Args:
        scan: k, inertia, silhouette, davies_bouldin, price_wmape.
        n_clusters: The number that is used.
    """
    figure = new_figure("Geographic clusters of the block groups: how well they fit, by number K")
    panels = (
        ("price_wmape", "Price error by K (wMAPE, %), decides"),
        ("inertia", "Inertia (square degrees), elbow"),
        ("silhouette", "Silhouette, higher is better"),
        ("davies_bouldin", "Davies-Bouldin, lower is better"),
    )
    grid = figure.subplots(2, 2)
    for axes, (column, title) in zip(grid.flat, panels, strict=True):
        _scan_line(axes, scan, column, n_clusters)
        style(axes, xlabel="Clusters K", ylabel=title, grid="both")
    grid[0, 1].set_ylim(bottom=0)
    left = grid[0, 0]
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=12)
    return to_png(figure)


def _scan_line(axes: Any, scan: pd.DataFrame, column: str, n_clusters: int) -> None:  # noqa: ANN401
    axes.plot(scan["k"], scan[column], color=BLUE, marker="o", markersize=5, linewidth=2)
    axes.axvline(n_clusters, color=ORANGE, linestyle="--", linewidth=2, label=f"used: K = {n_clusters}")
    axes.xaxis.get_major_locator().set_params(integer=True)


def correlation_heatmap(frame: pd.DataFrame) -> bytes:
    """Correlation of every pair of numbers, the target last."""
    names = [*NUMERIC_FEATURES, TARGET]
    matrix = frame[names].corr().to_numpy()
    figure = new_figure("Correlation of the numeric columns (Pearson)")
    axes = figure.subplots()
    image = axes.imshow(matrix, cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto")
    for row, column in np.ndindex(matrix.shape):
        value = matrix[row, column]
        # White text on the dark ends of the scale.
        colour = "white" if abs(value) > 0.6 else INK
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=11, color=colour)
    readable = [label(name).split(" (")[0] for name in names]
    style(axes)
    axes.set_xticks(range(len(names)), readable, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), readable)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.01)
    bar.set_label("Correlation coefficient", fontsize=12)
    return to_png(figure)


def train_test_distributions(train: pd.DataFrame, test: pd.DataFrame) -> bytes:
    """Distribution of every column on both sides of the split."""
    title = f"{len(train):,} training and {len(test):,} test rows, column by column"
    return distributions(title, train, test, ("Training", "Test"), TARGET)


def distributions(
    title: str, left: pd.DataFrame, right: pd.DataFrame, names: tuple[str, str], price: str
) -> bytes:
    """Distribution of every feature, and of a price, in two frames.

    Args:
        title: of the figure.
        left: the raw features and the price; drawn filled.
        right: the same columns; drawn as a line.
        names: of the two.
        price: name of the price's column.
    """
    figure = new_figure(title)
    grid = figure.subplots(2, 5).ravel()
    for axes, name in zip(grid, [*NUMERIC_FEATURES, price], strict=False):
        _histograms(axes, name, left[name].dropna(), right[name].dropna(), names)
    _category_bars(grid[-1], left, right)
    figure.supylabel("Share of the side's rows (%)", fontsize=12, color=INK)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=12)
    return to_png(figure)


def _histograms(
    axes: Any,  # noqa: ANN401
    name: str,
    left: "pd.Series[float]",
    right: "pd.Series[float]",
    names: tuple[str, str],
) -> None:
    both = pd.concat([left, right])
    lowest, highest = float(both.min()), float(both.max())
    bins = np.linspace(lowest, highest, HISTOGRAM_BINS + 1)
    if name in LOGARITHMIC and lowest > 0:
        bins = np.geomspace(lowest, highest, HISTOGRAM_BINS + 1)
        axes.set_xscale("log")
    # Shares of each side, so that a large and a small side compare.
    for values, colour, filled, side in ((left, BLUE, True, names[0]), (right, ORANGE, False, names[1])):
        weights = np.full(len(values), 100 / max(len(values), 1))
        kind, opacity = ("stepfilled", 0.45) if filled else ("step", 1.0)
        axes.hist(
            values, bins, weights=weights, color=colour, histtype=kind, alpha=opacity, lw=1.6, label=side
        )
    style(axes, xlabel=label(name))
    axes.xaxis.label.set_size(11)
    axes.tick_params(labelsize=9)
    if highest >= 1e5 and name not in LOGARITHMIC:
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}k")


def _category_bars(axes: Any, left: pd.DataFrame, right: pd.DataFrame) -> None:  # noqa: ANN401
    places = np.arange(len(CATEGORIES))
    for side, colour, opacity, shift in ((left, BLUE, 0.45, -0.2), (right, ORANGE, 1.0, 0.2)):
        shares = [100 * float((side[CATEGORICAL_FEATURE] == name).mean()) for name in CATEGORIES]
        axes.barh(places + shift, shares, height=0.38, color=colour, alpha=opacity)
    style(axes, xlabel=label(CATEGORICAL_FEATURE))
    axes.xaxis.label.set_size(11)
    axes.set_yticks(places, CATEGORIES)
    axes.invert_yaxis()
    axes.tick_params(labelsize=9)
