"""Figures about what was served."""

import numpy as np
import pandas as pd

from housing_assets.ml.plots.canvas import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    VERMILION,
    label,
    new_figure,
    style,
    to_png,
)
from housing_serving.features import CATEGORICAL_FEATURE

VERDICT_COLOURS = {"no drift": GREY, "warning": ORANGE, "critical": VERMILION}


def drift_sizes(title: str, table: pd.DataFrame, warning: float, critical: float) -> bytes:
    """How far each feature is from training, and what is thought of it.

    Args:
        title: of the figure.
        table: feature, PSI, verdict.
        warning: PSI of a change.
        critical: PSI of a large change.
    """
    ordered = table.sort_values("PSI").reset_index(drop=True)
    figure = new_figure(title)
    axes = figure.subplots()
    colours = [VERDICT_COLOURS[verdict] for verdict in ordered["verdict"]]
    places = np.arange(len(ordered))
    axes.barh(places, ordered["PSI"], height=0.66, color=colours)
    right = max(float(ordered["PSI"].max()), critical) * 1.22
    for place, (size, verdict) in enumerate(zip(ordered["PSI"], ordered["verdict"], strict=True)):
        # What is none by its PSI has nulls, unseen categories, or values far out.
        cause = " by another measure" if size < warning else ""
        text = f"{size:.3f}" + ("" if verdict == "no drift" else f"   {verdict}{cause}")
        axes.text(size + right * 0.008, place, text, va="center", fontsize=11, color=INK)
    for limit, colour, name in ((warning, ORANGE, "a change"), (critical, VERMILION, "a large change")):
        axes.axvline(limit, color=colour, linestyle="--", linewidth=1.6, label=f"{limit:g}: {name}")
    axes.set_yticks(places, [label(name) for name in ordered["feature"]])
    axes.set_xlim(0, right)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=12)
    style(axes, xlabel="Population stability index (PSI) against the training rows", grid="x")
    return to_png(figure)


def error_by_segment(title: str, table: pd.DataFrame, own: float | None) -> bytes:
    """Mean absolute percentage error by region.

    Args:
        title: of the figure.
        table: ocean_proximity, labels, mape.
        own: the version's error on its whole test set, where it is known.
    """
    figure = new_figure(title)
    axes = figure.subplots()
    places = np.arange(len(table))
    axes.barh(places, table["mape"], height=0.62, color=BLUE)
    right = max(float(table["mape"].max()), own or 0.0) * 1.25
    for place, (error, rows) in enumerate(zip(table["mape"], table["labels"], strict=True)):
        axes.text(error + right * 0.008, place, f"{error:.1f} %   {rows:,} labels", va="center", fontsize=12)
    if own is not None:
        axes.axvline(own, color=ORANGE, linestyle="--", linewidth=2, label=f"its test set: {own:.1f} %")
        figure.legend(loc="outside lower center", frameon=False, fontsize=12)
    axes.set_yticks(places, list(table[CATEGORICAL_FEATURE]))
    axes.invert_yaxis()
    axes.set_xlim(0, right)
    style(axes, xlabel="Mean absolute percentage error (%), lower is better", grid="x")
    return to_png(figure)
