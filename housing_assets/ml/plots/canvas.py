"""What all figures share: size, type, colours, and the way to PNG bytes.

Figures are plain objects drawn with Agg: no pyplot, so no global state, no display and no leak between
threads. matplotlib is imported when the first figure is drawn.
"""

import io
from typing import Any

# Pixels at this resolution: 1200 x 700.
INCHES = (12.0, 7.0)
DPI = 100
# From the palette of Okabe and Ito, which colour-blind people can tell apart.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#9A9A9A"
INK = "#222222"
# Diverging, and readable by colour-blind people.
DIVERGING = "RdBu_r"
# Trials of a search: their scores are not on the same rows and folds as those of completed ones.
STOPPED_EARLY = "stopped early (on fewer rows or folds)"

LABELS = {
    "longitude": "Longitude (°)",
    "latitude": "Latitude (°)",
    "housing_median_age": "Median house age (years)",
    "total_rooms": "Rooms",
    "total_bedrooms": "Bedrooms",
    "population": "Population",
    "households": "Households",
    "median_income": "Median income ($10,000)",
    "median_house_value": "Median house value ($)",
    "predicted_price": "Predicted price ($)",
    "ocean_proximity": "Ocean proximity",
    "rooms_per_household": "Rooms per household",
    "population_per_household": "People per household",
    "bedrooms_per_household": "Bedrooms per household",
    "bedrooms_per_room": "Bedrooms per room",
    "location": "Location",
    "place": "Longitude and latitude",
    "all_counts": "All four counts together",
    "median": "Median",
    "mean": "Mean",
    "knn": "Nearest neighbours",
    "iterative_forest": "Iterative forest",
    "ratio_boosting": "Boosted bedrooms per household",
    "RandomForest": "Random forest",
    "GradientBoosting": "Gradient boosting",
    "DecisionTree": "Decision tree",
}
OBJECTIVES = {"wmape": "wMAPE (%)", "mape": "MAPE (%)", "mae": "MAE ($)", "rmse": "RMSE ($)"}


def label(name: str) -> str:
    """A column or method as people call it."""
    return LABELS.get(name, name)


def objective_label(metric: str) -> str:
    """A metric that models are compared by, with its unit."""
    return OBJECTIVES.get(metric, metric)


def new_figure(title: str) -> Any:  # noqa: ANN401  (matplotlib ships no types)
    """An empty figure of the common size with a title."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow to import)
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    figure = Figure(figsize=INCHES, dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12))
    figure.suptitle(title, fontsize=16, fontweight="bold", color=INK)
    return figure


def style(axes: Any, *, xlabel: str = "", ylabel: str = "", grid: str = "") -> None:  # noqa: ANN401
    """Labels, quiet frame, and grid lines behind the data (`x`, `y` or `both`)."""
    axes.set_xlabel(xlabel, fontsize=12, color=INK)
    axes.set_ylabel(ylabel, fontsize=12, color=INK)
    axes.tick_params(labelsize=11, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(visible=True, axis=grid, color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)


def dollars(value: float) -> str:
    """An amount in thousands, as in $100k."""
    return f"{'-' if value < 0 else ''}${abs(value) / 1000:,.0f}k"


def in_thousands(axis: Any) -> None:  # noqa: ANN401
    """Write an axis of dollars as $100k."""
    axis.set_major_formatter(lambda value, _: dollars(value))


def to_png(figure: Any) -> bytes:  # noqa: ANN401
    """The figure as PNG; the same drawing gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
