"""Figures about how far a model can be trusted: calibration, learning curve, what its inputs are worth."""

from typing import Any

import pandas as pd

from housing_assets.ml.plots.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    VERMILION,
    in_thousands,
    label,
    new_figure,
    style,
    to_png,
)

OWN_FEATURES = 10
# What the intervals of `protocols` show, and how it is written.
SHOWN_FIGURES = {"rmse": "Root mean squared error ($)", "wmape": "wMAPE (%)"}


def protocols(table: pd.DataFrame) -> bytes:
    """Cross-validation and test errors side by side, with their intervals.

    Args:
        table: protocol, figure (with `rmse` and `wmape`), value, low, high.
    """
    figure = new_figure("How large errors are, by what was held out (lower is better)")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (name, title) in zip(panels, SHOWN_FIGURES.items(), strict=True):
        found = table[table["figure"] == name].iloc[::-1].reset_index(drop=True)
        for place, colour in enumerate((GREEN, VERMILION, BLUE)[-len(found) :]):
            _interval(axes, found.iloc[place], place, colour, "${:,.0f}" if name == "rmse" else "{:.1f} %")
        axes.set_yticks(range(len(found)), [name.replace(", ", ",\n") for name in found["protocol"]])
        axes.set(xlim=(0, 1.3 * float(found["high"].max())), ylim=(-0.6, len(found) - 0.4))
        style(axes, xlabel=f"{title}, with its 95 % interval", grid="x")
    in_thousands(panels[0].xaxis)
    return to_png(figure)


def _interval(axes: Any, one: "pd.Series[float]", place: int, colour: str, form: str) -> None:  # noqa: ANN401
    """A value with its bounds at a place on the vertical axis, and all three in words above."""
    value, low, high = one["value"], one["low"], one["high"]
    marks = {"fmt": "o", "markersize": 11, "capsize": 7, "linewidth": 2.5, "color": colour}
    axes.errorbar(value, place, xerr=[[value - low], [high - value]], **marks)
    text = f"{form.format(value)}   ({form.format(low)} to {form.format(high)})"
    axes.text(value, place + 0.17, text, ha="center", fontsize=12, color=INK)


def calibration(table: pd.DataFrame) -> bytes:
    """Whether rows that are priced alike cost that on average; the deviation enlarged below.

    Args:
        table: part, rows, predicted, actual, low, high; one row per part by predicted price.
    """
    rows = int(table["rows"].sum())
    figure = new_figure(
        f"Calibration: {rows:,} held-out block groups in {len(table)} parts by predicted price"
    )
    above, below = figure.subplots(2, 1, height_ratios=(1.7, 1), sharex=True)
    top = 1.05 * float(max(table["predicted"].max(), table["high"].fillna(table["actual"]).max()))
    above.plot([0, top], [0, top], color=GREY, linewidth=1.5, linestyle="--", label="actual = predicted")
    _with_intervals(above, table, 0.0)
    above.set(xlim=(0, top), ylim=(0, top))
    above.legend(frameon=False, fontsize=12, loc="upper left")
    style(above, ylabel="Mean actual value", grid="both")
    below.axhline(0, color=GREY, linewidth=1.5, linestyle="--")
    _with_intervals(below, table, table["predicted"])
    style(below, xlabel="Mean predicted value", ylabel="Actual - predicted", grid="both")
    for axis in (above.yaxis, below.yaxis, below.xaxis):
        in_thousands(axis)
    return to_png(figure)


def _with_intervals(axes: Any, table: pd.DataFrame, less: Any) -> None:  # noqa: ANN401
    """Means of actual with their intervals, all of them less something."""
    widths = [table["actual"] - table["low"], table["high"] - table["actual"]]
    axes.errorbar(
        table["predicted"],
        table["actual"] - less,
        yerr=widths,
        color=BLUE,
        ecolor=INK,
        marker="o",
        markersize=7,
        linewidth=1.5,
        elinewidth=1.5,
        capsize=5,
        label="mean of a part, with its 95 % interval",
    )


def learning_curve(table: pd.DataFrame) -> bytes:
    """How errors fall with the number of rows that a model is fitted on.

    Args:
        table: rows, and of wmape and rmse the mean over folds, `<name>_lowest` and `<name>_highest`.
    """
    figure = new_figure("Learning curve: cross-validated error by number of training rows")
    left, right = figure.subplots(1, 2)
    _curve(left, table, "wmape", BLUE, "{:.2f} %")
    _curve(right, table, "rmse", GREEN, "${:,.0f}")
    style(left, xlabel="Training rows", ylabel="wMAPE (%), lower is better", grid="both")
    style(right, xlabel="Training rows", ylabel="Root mean squared error ($)", grid="both")
    in_thousands(right.yaxis)
    return to_png(figure)


def _curve(axes: Any, table: pd.DataFrame, name: str, colour: str, form: str) -> None:  # noqa: ANN401
    rows, mean = table["rows"], table[name]
    band = {"color": colour, "alpha": 0.18, "linewidth": 0, "label": "lowest to highest fold"}
    axes.fill_between(rows, table[f"{name}_lowest"], table[f"{name}_highest"], **band)
    axes.plot(rows, mean, color=colour, marker="o", markersize=7, linewidth=2, label="mean over folds")
    for place, value in zip(rows, mean, strict=True):
        # To the upper right: a falling curve leaves that side free.
        where = {"xytext": (7, 7), "textcoords": "offset points", "fontsize": 12}
        axes.annotate(form.format(value), (place, value), color=INK, **where)
    low, high = float(rows.min()), float(rows.max())
    axes.set_xlim(0, high + 0.24 * (high - low or high))
    axes.margins(y=0.12)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.locator_params(axis="x", nbins=6)
    axes.legend(frameon=False, fontsize=12, loc="upper right")


def permutation_importances(inputs: pd.DataFrame, features: pd.DataFrame) -> bytes:
    """What the model loses without each input, beside what its own structure says of its features.

    Args:
        inputs: input, mae_increase, std.
        features: feature, importance (shares that sum to one).
    """
    ordered = inputs.sort_values("mae_increase", kind="stable", ignore_index=True)
    top = features.nlargest(OWN_FEATURES, "importance").iloc[::-1]
    figure = new_figure("What the inputs are worth")
    left, right = figure.subplots(1, 2)
    names = [label(name).split(" (")[0] for name in ordered["input"]]
    spread = {"xerr": ordered["std"], "ecolor": INK, "capsize": 4}
    left.barh(names, ordered["mae_increase"], height=0.68, color=ORANGE, **spread)
    _notes(left, ordered["mae_increase"], ordered["std"], "${:,.0f}")
    right.barh(top["feature"], 100 * top["importance"], height=0.68, color=BLUE)
    _notes(right, 100 * top["importance"], 0.0 * top["importance"], "{:.1f} %")
    left.set_title("Mean error rises when an input is shuffled (test rows)", fontsize=12, color=INK)
    right.set_title(f"The model's own importances, top {len(top)}", fontsize=12, color=INK)
    style(left, xlabel="Rise of the mean absolute error ($)", grid="x")
    style(right, xlabel="Share (%)", grid="x")
    in_thousands(left.xaxis)
    return to_png(figure)


def _notes(axes: Any, values: "pd.Series[float]", spread: "pd.Series[float]", form: str) -> None:  # noqa: ANN401
    """Write each bar's value beyond its end, and leave room for that."""
    ends = (values + spread).clip(lower=0)
    # Bars that are all zero still need an axis.
    longest = float(ends.max()) or 1.0
    for place, (end, value) in enumerate(zip(ends, values, strict=True)):
        axes.text(end + longest * 0.02, place, form.format(value), va="center", fontsize=12, color=INK)
    axes.set_xlim(min(0.0, float((values - spread).min())), longest * 1.3)
