"""The drawings of the price page."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from housing_serving.schemas import Contribution, NearbyBlockGroup, Prediction
from housing_serving.webapp.texts import Texts
from housing_serving.webapp.values import money, name_of

# Told apart by people who see few colours, on a light ground as on a dark one.
UP, DOWN, NEUTRAL = "#d9722e", "#3d86c6", "#8296a0"
# Inputs that are shown one by one; the others are put together.
MOST_BARS = 7
# No price axis is shorter: small differences should look small.
LEAST_AXIS = 550_000.0


Chart = alt.LayerChart | alt.FacetChart


def _price_axis(most: float) -> alt.X:
    scale = alt.Scale(domain=[0, max(most * 1.05, LEAST_AXIS)])
    return alt.X("price:Q", scale=scale, axis=alt.Axis(format="$,.0f", title=None, grid=False, tickCount=6))


def interval_chart(prediction: Prediction, texts: Texts) -> Chart:
    """The price as a line within its interval."""
    interval = prediction.confidence_interval
    row = {"price": interval.lower, "upper": interval.upper, "middle": prediction.predicted_price}
    base = alt.Chart(pd.DataFrame([row]))
    axis = _price_axis(interval.upper)
    bar = base.mark_bar(height=22, cornerRadius=11, color=UP, opacity=0.4).encode(x=axis, x2="upper:Q")
    price = base.mark_tick(thickness=5, size=38, color=UP).encode(x=alt.X("middle:Q"))
    label = texts.interval_label.format(
        price=money(prediction.predicted_price), lower=money(interval.lower), upper=money(interval.upper)
    )
    return alt.layer(bar, price).properties(height=70, description=label)


def strongest(contributions: Sequence[Contribution], texts: Texts) -> list[tuple[str, float]]:
    """Names and dollars of the largest contributions, and of all others together."""
    shown = [(name_of(one.feature, texts), one.contribution) for one in contributions[:MOST_BARS]]
    if rest := [one.contribution for one in contributions[MOST_BARS:]]:
        shown.append((texts.others, sum(rest)))
    return shown


def contribution_chart(shown: Sequence[tuple[str, float]], price: float, texts: Texts) -> Chart:
    """One bar an input, to the right where it raises the price; colour says no more than the sign."""
    frame = pd.DataFrame(shown, columns=["name", "dollars"])
    frame["effect"] = [texts.raises if dollars > 0 else texts.lowers for dollars in frame["dollars"]]
    frame["text"] = [money(dollars, signed=True) for dollars in frame["dollars"]]
    # Beside the longest bars there is room for the amounts.
    lowest, highest = min(0.0, *frame["dollars"]), max(0.0, *frame["dollars"])
    room = 0.25 * (highest - lowest) or 1.0
    base = alt.Chart(frame).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=190, ticks=False, domain=False)),
        x=alt.X("dollars:Q", scale=alt.Scale(domain=[lowest - room, highest + room]), axis=None),
    )
    colours = alt.Scale(domain=[texts.raises, texts.lowers], range=[UP, DOWN])
    legend = alt.Legend(title=None, orient="top", symbolType="square", columns=1)
    bars = base.mark_bar(height=18, cornerRadius=3).encode(
        color=alt.Color("effect:N", scale=colours, legend=legend),
        tooltip=[alt.Tooltip("name:N", title=texts.feature), alt.Tooltip("text:N", title=texts.contribution)],
    )
    right = base.transform_filter("datum.dollars > 0").mark_text(align="left", dx=5, fontSize=12)
    left = base.transform_filter("datum.dollars <= 0").mark_text(align="right", dx=-5, fontSize=12)
    amounts = [side.encode(text="text:N", color=alt.value(NEUTRAL)) for side in (right, left)]
    return alt.layer(bars, *amounts).properties(
        height=34 * len(frame) + 40, description=texts.drivers_label.format(price=money(price))
    )


def nearby_chart(nearby: Sequence[NearbyBlockGroup], price: float, texts: Texts) -> Chart:
    """The prices of block groups nearby as dots, and this one as a line among them."""
    frame = pd.DataFrame(
        {"price": one.median_house_value, "distance": one.distance_km, "text": money(one.median_house_value)}
        for one in nearby
    )
    axis = _price_axis(max(price, float(frame["price"].max())))
    dots = (
        alt.Chart(frame)
        .mark_circle(size=130, color=DOWN, opacity=0.75)
        .encode(
            x=axis,
            y=alt.Y("distance:Q", scale=alt.Scale(reverse=True, nice=True, zero=True), title=texts.distance),
            tooltip=[
                alt.Tooltip("text:N", title=texts.estimate),
                alt.Tooltip("distance:Q", title=texts.distance, format=".1f"),
            ],
        )
    )
    line = (
        alt.Chart(pd.DataFrame({"price": [price], "name": [texts.this_place]}))
        .mark_rule(strokeWidth=4, color=UP)
        .encode(x=axis)
    )
    label = texts.nearby_label.format(count=len(frame), price=money(price))
    return alt.layer(dots, line).properties(height=230, description=label)
