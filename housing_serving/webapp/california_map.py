"""The map of California: drawn here, without tiles from anywhere, so that it works without internet.

Streamlit's own maps load their ground from the internet, and none of its charts tells which spot was clicked.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from streamlit.components.v2.types import ComponentRenderer

from housing_serving.features import LIMITS
from housing_serving.neighbours import LONGITUDE_SCALE
from housing_serving.webapp.outline import CITIES, OUTLINE
from housing_serving.webapp.places import known_places
from housing_serving.webapp.texts import Texts

# Of the drawing, in its own units.
WEST, EAST, SOUTH, NORTH = -124.75, -113.85, 32.35, 42.15
SCALE = 60.0
# From cheap to dear: told apart by people who see few colours, and on a light ground as on a dark one.
PALETTE = ("#4575b4", "#5f9fb8", "#c2a63c", "#e07b39", "#c8384e")
# Dollars between one colour and the next.
STEPS = (100_000.0, 175_000.0, 250_000.0, 350_000.0)

FloatArray = NDArray[np.float64]
Dots = list[tuple[str, str]]


@cache
def renderer() -> ComponentRenderer:
    """The component; it is registered once in a process."""
    own = files(__package__)
    return st.components.v2.component(
        "california_map",
        html='<div class="map"></div>',
        css=own.joinpath("california_map.css").read_text("utf-8"),
        js=own.joinpath("california_map.js").read_text("utf-8"),
    )


def picking_map(
    texts: Texts, marker: tuple[float, float] | None, nearby: Dots, on_picked: Callable[[], None], key: str
) -> None:
    """A map to choose a place on, by pointer or keyboard; `on_picked` is called before the page runs again.

    Args:
        texts: In the visitor's language.
        marker: Longitude and latitude of what is chosen now, if anything is.
        nearby: From `dots`, drawn larger.
        on_picked: What to do then; the place is `st.session_state[key].picked`.
        key: Of the component.
    """
    data = {**_ground(texts), "marker": marker, "nearby": nearby, "dots": _known_dots(), "clickable": True}
    renderer()(key=key, data=data, on_picked_change=on_picked)


def price_map(texts: Texts, longitude: FloatArray, latitude: FloatArray, price: FloatArray, key: str) -> None:
    """A map of prices, to look at."""
    coloured = dots(longitude, latitude, price)
    data = {**_ground(texts), "marker": None, "nearby": [], "dots": coloured, "clickable": False}
    renderer()(key=key, data=data)


def dots(longitude: Sequence[float] | FloatArray, latitude: Iterable[float], price: Iterable[float]) -> Dots:
    """One drawing a colour: lines of no length, which round ends make dots of."""
    colours = np.searchsorted(STEPS, np.asarray(list(price)), side="right")
    places = np.column_stack(
        [
            (np.asarray(longitude) - WEST) * LONGITUDE_SCALE * SCALE,
            (NORTH - np.asarray(list(latitude))) * SCALE,
        ]
    )
    drawn = []
    for number, colour in enumerate(PALETTE):
        members = places[colours == number]
        if len(members):
            drawn.append((colour, "".join(f"M{x:.1f} {y:.1f}h0" for x, y in members)))
    return drawn


@cache
def _known_dots() -> Dots:
    known = known_places()
    return dots(known.longitude, known.latitude.tolist(), known.price.tolist())


def _ground(texts: Texts) -> Mapping[str, Any]:
    points = [
        f"{(east - WEST) * LONGITUDE_SCALE * SCALE:.1f} {(NORTH - north) * SCALE:.1f}"
        for east, north in OUTLINE
    ]
    return {
        "outline": f"M{'L'.join(points)}Z",
        "cities": CITIES,
        "frame": {
            "west": WEST,
            "north": NORTH,
            "scale": SCALE,
            "squeeze": LONGITUDE_SCALE,
            "width": (EAST - WEST) * LONGITUDE_SCALE * SCALE,
            "height": (NORTH - SOUTH) * SCALE,
        },
        "limits": {name: LIMITS[name] for name in ("longitude", "latitude")},
        "texts": {
            "label": texts.map_label,
            "role": texts.map_role,
            "west": texts.west,
            "zoomIn": texts.zoom_in,
            "zoomOut": texts.zoom_out,
        },
    }


def legend(texts: Texts) -> None:
    """What the colours mean."""
    bounds = [f"&lt; ${STEPS[0]:,.0f}", *(f"${low:,.0f}+" for low in STEPS)]
    entry = "display:inline-flex;align-items:center;gap:.35rem;margin-right:.9rem;white-space:nowrap"
    dot = "width:.75rem;height:.75rem;border-radius:50%"
    parts = "".join(
        f'<span style="{entry}"><span style="{dot};background:{colour}"></span>{text}</span>'
        for colour, text in zip(PALETTE, bounds, strict=True)
    )
    st.html(f'<p style="font-size:.875rem;margin:0">{texts.legend}: {parts}</p>')
