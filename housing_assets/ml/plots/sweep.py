"""Figures about the search for hyperparameters, beside its history: which settings did well, and why."""

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from housing_assets.ml.plots.canvas import (
    BLUE,
    GREY,
    INK,
    STOPPED_EARLY,
    VERMILION,
    new_figure,
    objective_label,
    style,
    to_png,
)

# Dark is good.
COLOURS = "viridis"
# Trials that miss the best by more than so many times what the median one does are drawn at the edge.
CLIP = 3.0
MAX_TICKS = 6


@dataclass(frozen=True)
class _Axis:
    """One vertical axis: where each trial lies on it, from 0 to 1, and its ticks by place."""

    name: str
    places: NDArray[np.float64]
    ticks: Mapping[float, str]


def parallel_coordinates(
    trials: pd.DataFrame,
    parameters: Collection[str],
    objective: str = "wmape",
    *,
    maximize: bool = False,
    logarithmic: Collection[str] = (),
) -> bytes:
    """A line per trial through its hyperparameters to its objective; the best one stands out.

    Args:
        trials: state (COMPLETE or PRUNED), the hyperparameters, and the objective.
        parameters: The columns of the hyperparameters.
        objective: Its column.
        maximize: Whether more of it is better.
        logarithmic: Hyperparameters that are shown by magnitude.
    """
    columns = [_parameter_axis(trials[name], log=name in logarithmic) for name in parameters]
    last = _objective_axis(trials[objective], maximize=maximize)
    done = trials["state"] == "COMPLETE"
    completed = trials[objective].where(done)
    best = (completed.idxmax() if maximize else completed.idxmin()) if done.any() else None
    figure = new_figure("Hyperparameter search: what each trial tried, and what it reached")
    axes = figure.subplots()
    _lines(axes, [*columns, last], done.to_numpy(), best, maximize=maximize)
    _scales(axes, [*columns, last])
    _legend(axes, stopped=bool((~done).any()), found=best is not None)
    return to_png(figure)


def _parameter_axis(values: "pd.Series[Any]", *, log: bool) -> _Axis:
    if values.isna().any() or not pd.api.types.is_numeric_dtype(values) or values.dtype == bool:
        names = values.astype(object).where(values.notna(), "none").astype(str)
        choices = sorted(names.unique())
        place = {choice: (row + 0.5) / len(choices) for row, choice in enumerate(choices)}
        return _Axis(str(values.name), names.map(place).to_numpy(), {place[name]: name for name in choices})
    numbers = values.to_numpy(dtype=np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    return _number_axis(str(values.name), numbers, low, high, log=log and low > 0)


def _objective_axis(values: "pd.Series[Any]", *, maximize: bool) -> _Axis:
    numbers = values.to_numpy(dtype=np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    reach = CLIP * abs(float(np.median(numbers)) - (high if maximize else low))
    if reach > 0:
        low, high = (max(low, high - reach), high) if maximize else (low, min(high, low + reach))
    better = "higher" if maximize else "lower"
    name = f"{objective_label(str(values.name))}\n{better} is better"
    axis = _number_axis(name, np.clip(numbers, low, high), low, high, log=False)
    beyond = {0.0: f"≤ {low:.4g}"} if low > numbers.min() else {}
    beyond |= {1.0: f"≥ {high:.4g}"} if high < numbers.max() else {}
    return replace(axis, ticks={**_apart(axis.ticks, beyond), **beyond})


def _apart(ticks: Mapping[float, str], others: Collection[float]) -> dict[float, str]:
    """Those of the ticks that leave room for others."""
    return {at: text for at, text in ticks.items() if all(abs(at - other) > 0.04 for other in others)}


def _number_axis(name: str, numbers: NDArray[np.float64], low: float, high: float, *, log: bool) -> _Axis:
    from matplotlib.ticker import LogLocator, MaxNLocator  # noqa: PLC0415  (slow to import)

    if low == high:
        return _Axis(name, np.full(len(numbers), 0.5), {0.5: f"{low:g}"})
    scale = np.log if log else np.asarray
    locator = LogLocator(subs=(1, 3)) if log else MaxNLocator(MAX_TICKS, steps=[1, 2, 5, 10])
    shown = [tick for tick in locator.tick_values(low, high) if low <= tick <= high]
    start, span = scale(low), scale(high) - scale(low)
    return _Axis(
        name,
        (scale(numbers) - start) / span,
        {float((scale(tick) - start) / span): f"{tick:,.6g}" for tick in shown},
    )


def _lines(
    axes: Any,  # noqa: ANN401  (matplotlib ships no types)
    columns: list[_Axis],
    done: NDArray[np.bool_],
    best: Any,  # noqa: ANN401  (a label of the index)
    *,
    maximize: bool,
) -> None:
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.patches import PathPatch  # noqa: PLC0415

    goodness = columns[-1].places if maximize else 1 - columns[-1].places
    compared = goodness[done] if done.any() else goodness
    spread = float(np.ptp(compared)) or 1.0
    # The last tenth of the colours is too pale for a line on white.
    colours = mpl.colormaps[COLOURS](0.9 * (compared.max() - goodness) / spread)
    # The better ones are drawn over the others.
    for trial in np.argsort(goodness, kind="stable"):
        look: dict[str, Any] = {"edgecolor": colours[trial], "linewidth": 1.8, "alpha": 0.85, "zorder": 2}
        if not done[trial]:
            look |= {"edgecolor": GREY, "linewidth": 1.0, "alpha": 0.55, "zorder": 1}
        if trial == best:
            look |= {"edgecolor": VERMILION, "linewidth": 3.2, "alpha": 1.0, "zorder": 3}
        heights = [column.places[trial] for column in columns]
        axes.add_patch(PathPatch(_curve(heights), facecolor="none", **look))
        if trial == best:
            axes.plot(range(len(heights)), heights, "o", color=VERMILION, markersize=8, zorder=4)


def _curve(heights: list[float]) -> Any:  # noqa: ANN401
    """A path through the heights that crosses every axis level, so that lines can be told apart there."""
    from matplotlib.path import Path  # noqa: PLC0415

    points, codes = [(0.0, heights[0])], [Path.MOVETO]
    for left, (here, there) in enumerate(itertools.pairwise(heights)):
        points += [(left + 0.4, here), (left + 0.6, there), (left + 1.0, there)]
        codes += [Path.CURVE4] * 3
    return Path(points, codes)


def _scales(axes: Any, columns: list[_Axis]) -> None:  # noqa: ANN401
    from matplotlib.patheffects import withStroke  # noqa: PLC0415

    halo = [withStroke(linewidth=3.5, foreground="white")]
    width = 0.0025 * len(columns)
    for place, column in enumerate(columns):
        axes.plot([place, place], [0, 1], color=INK, linewidth=1.2, zorder=5)
        for height, text in column.ticks.items():
            axes.plot([place - width, place], [height, height], color=INK, linewidth=1.2, zorder=5)
            axes.text(
                *(place - 2 * width, height, text),
                ha="right",
                va="center",
                fontsize=11,
                color=INK,
                path_effects=halo,
                zorder=6,
            )
    axes.set_xticks(range(len(columns)), [_short_lines(column.name) for column in columns])
    axes.set_yticks([])
    axes.set(xlim=(-0.35, len(columns) - 0.9), ylim=(-0.03, 1.03))
    style(axes)
    axes.tick_params(axis="x", length=0, pad=10, labelsize=12)
    axes.spines[["left", "bottom"]].set_visible(False)


def _short_lines(name: str) -> str:
    """A long name on two lines, so that it does not reach its neighbour's."""
    head, _, tail = name.rpartition("_")
    return f"{head}_\n{tail}" if head and len(name) > 12 else name


def _legend(axes: Any, *, stopped: bool, found: bool) -> None:  # noqa: ANN401
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.lines import Line2D  # noqa: PLC0415

    dark, pale = mpl.colormaps[COLOURS](0.0), mpl.colormaps[COLOURS](0.9)
    lines = [
        Line2D([], [], color=dark, linewidth=1.8, label="completed, good"),
        Line2D([], [], color=pale, linewidth=1.8, label="completed, worse"),
    ]
    if found:
        lines.insert(0, Line2D([], [], color=VERMILION, linewidth=3.2, marker="o", label="the best trial"))
    if stopped:
        lines.append(Line2D([], [], color=GREY, linewidth=1.0, label=STOPPED_EARLY))
    axes.legend(
        handles=lines, loc="upper center", bbox_to_anchor=(0.5, 1.09), ncols=4, frameon=False, fontsize=12
    )


def parameter_importances(table: pd.DataFrame, objective: str = "wmape") -> bytes:
    """How much of the differences between trials each hyperparameter explains.

    Args:
        table: parameter, importance (shares that sum to one), largest first.
        objective: What the trials differ in.
    """
    ordered = table.iloc[::-1]
    figure = new_figure("Hyperparameter search: which hyperparameters matter")
    axes = figure.subplots()
    shares = 100 * ordered["importance"]
    bars = axes.barh(ordered["parameter"], shares, height=0.62, color=BLUE)
    axes.bar_label(bars, [f"{share:.1f} %" for share in shares], padding=6, fontsize=12, color=INK)
    axes.set_xlim(0, 1.15 * float(shares.max()))
    name = objective_label(objective).partition(" (")[0]
    style(axes, xlabel=f"Share of the differences in {name} that it explains (%)", grid="x")
    return to_png(figure)
