"""The page that prices one block group: chosen on a map, described in a form, explained and compared."""

from collections.abc import Mapping
from functools import partial
from statistics import median
from typing import Any, Final

import pandas as pd
import streamlit as st

from housing_serving.features import CATEGORICAL_FEATURE, CATEGORIES, RAW_FEATURES
from housing_serving.schemas import NearbyBlockGroup, Prediction
from housing_serving.webapp import california_map, charts
from housing_serving.webapp.api import ApiRefused, ApiUnavailable
from housing_serving.webapp.places import known_places
from housing_serving.webapp.session import Visit, waiting
from housing_serving.webapp.texts import Texts
from housing_serving.webapp.values import (
    Problem,
    category_name,
    money,
    name_of,
    plain,
    problems_of,
    value_text,
    warning_text,
)

MAP = "price_map"
# What was entered, for as long as the session lives: widgets forget while another page is shown.
ENTERED = "block_group"

BERKELEY: Final[Mapping[str, Any]] = {
    "longitude": -122.23,
    "latitude": 37.88,
    "housing_median_age": 41.0,
    "total_rooms": 880.0,
    "total_bedrooms": 129.0,
    "population": 322.0,
    "households": 126.0,
    "median_income": 8.33,
    "ocean_proximity": "NEAR BAY",
}
FRESNO: Final[Mapping[str, Any]] = {
    "longitude": -119.77,
    "latitude": 36.74,
    "housing_median_age": 28.0,
    "total_rooms": 2300.0,
    "total_bedrooms": None,
    "population": 1200.0,
    "households": 420.0,
    "median_income": 3.1,
    "ocean_proximity": "INLAND",
}
MALIBU: Final[Mapping[str, Any]] = {
    "longitude": -118.80,
    "latitude": 34.02,
    "housing_median_age": 23.0,
    "total_rooms": 2600.0,
    "total_bedrooms": 470.0,
    "population": 900.0,
    "households": 400.0,
    "median_income": 9.5,
    "ocean_proximity": "NEAR OCEAN",
}
# What one click on plus or minus changes, and how a value is shown.
STEPS: Final[Mapping[str, tuple[float, str]]] = {
    "longitude": (0.01, "%.2f"),
    "latitude": (0.01, "%.2f"),
    "housing_median_age": (1.0, "%.0f"),
    "total_rooms": (50.0, "%.0f"),
    "total_bedrooms": (10.0, "%.0f"),
    "population": (50.0, "%.0f"),
    "households": (10.0, "%.0f"),
    "median_income": (0.1, "%.2f"),
}


def show(visit: Visit) -> None:
    """The page."""
    texts = visit.texts
    for field, value in st.session_state.get(ENTERED, BERKELEY).items():
        st.session_state.setdefault(_key(field), value)
    values = {field: st.session_state[_key(field)] for field in RAW_FEATURES}
    st.session_state[ENTERED] = values
    problems = problems_of(values, texts)
    st.title(texts.price_heading, anchor=False)
    st.markdown(texts.price_intro)
    nearby = _nearby(visit, problems, values)
    left, right = st.columns([5, 6], gap="large")
    with left:
        _choose_place(texts, values, nearby or [])
    with right:
        # A place of its own: fields that move would lose what is being typed.
        with st.container():
            prediction = _price(visit, problems, values)
        _form(texts, values, problems)
    if prediction is not None:
        left, right = st.columns([5, 6], gap="large")
        with left:
            _compare(texts, nearby, prediction.predicted_price)
        with right:
            _explain(visit, values)


def _key(field: str) -> str:
    return f"field_{field}"


def _fill(values: Mapping[str, Any]) -> None:
    for field, value in values.items():
        st.session_state[_key(field)] = value


def _picked() -> None:
    place = st.session_state[MAP].picked
    longitude, latitude = float(place["longitude"]), float(place["latitude"])
    typical = known_places().typical_near(longitude, latitude)
    _fill({**typical, "longitude": longitude, "latitude": latitude})


def _choose_place(texts: Texts, values: Mapping[str, Any], nearby: list[NearbyBlockGroup]) -> None:
    dots = california_map.dots(
        [one.longitude for one in nearby],
        [one.latitude for one in nearby],
        [one.median_house_value for one in nearby],
    )
    marker = (
        (values["longitude"], values["latitude"])
        if None not in (values["longitude"], values["latitude"])
        else None
    )
    california_map.picking_map(texts, marker, dots, _picked, MAP)
    california_map.legend(texts)
    st.caption(f"{texts.map_help} {texts.known_prices}")
    st.markdown(f"**{texts.examples}**")
    names = {texts.example_berkeley: BERKELEY, texts.example_fresno: FRESNO, texts.example_malibu: MALIBU}
    with st.container(horizontal=True):
        for name, example in names.items():
            st.button(name, on_click=partial(_fill, example))


def _nearby(
    visit: Visit, problems: list[Problem], values: Mapping[str, Any]
) -> list[NearbyBlockGroup] | None:
    """The block groups around; None where that is not known."""
    if visit.status.state != "ready" or {problem.field for problem in problems} & {"longitude", "latitude"}:
        return None
    try:
        return visit.api.nearest(values["longitude"], values["latitude"]).block_groups
    except (ApiRefused, ApiUnavailable):
        # Said where the comparison would stand.
        return None


def _price(visit: Visit, problems: list[Problem], values: Mapping[str, Any]) -> Prediction | None:
    texts = visit.texts
    if waiting(visit):
        return None
    if problems:
        st.warning(texts.mend_form, icon=":material/edit:")
        return None
    try:
        answer = visit.api.predict([values])
    except ApiUnavailable:
        st.warning(texts.waiting, icon=":material/cloud_off:")
        return None
    except ApiRefused as error:
        st.error(plain(texts.api_refused.format(message=error)))
        return None
    [prediction] = answer.predictions
    interval = prediction.confidence_interval
    with st.container(border=True):
        st.metric(texts.estimate, money(prediction.predicted_price))
        st.altair_chart(charts.interval_chart(prediction, texts), width="stretch")
        sure = texts.interval.format(
            level=f"{interval.level:.0%}", lower=money(interval.lower), upper=money(interval.upper)
        )
        st.markdown(plain(f"**{sure}**"))
        st.caption(texts.answered_by.format(version=answer.model_version))
        if prediction.warnings:
            listed = "".join(f"\n- {warning_text(warning, texts)}" for warning in prediction.warnings)
            st.warning(plain(texts.warning_intro + listed), icon=":material/warning:")
    return prediction


def _form(texts: Texts, values: Mapping[str, Any], problems: list[Problem]) -> None:
    wrong = {problem.field: problem.message for problem in problems}
    st.header(texts.form_heading, anchor=False)
    # Row by row, so that pairs stay together where there is room for one column only.
    for first in range(0, len(RAW_FEATURES), 2):
        for column, field in zip(st.columns(2), RAW_FEATURES[first : first + 2], strict=False):
            with column:
                _field(texts, field)
                if field in wrong:
                    st.error(plain(f"{name_of(field, texts)}: {wrong[field]}"), icon=":material/error:")
    st.markdown(f"**{texts.ratios}**")
    ratios = (
        (texts.rooms_per_household, "total_rooms", "households"),
        (texts.bedrooms_per_room, "total_bedrooms", "total_rooms"),
        (texts.population_per_household, "population", "households"),
    )
    with st.container(horizontal=True):
        for name, part, whole in ratios:
            known = values[part] is not None and bool(values[whole])
            st.metric(
                name, f"{values[part] / values[whole]:.2f}" if known else texts.not_known, width="content"
            )


def _field(texts: Texts, field: str) -> None:
    if field == CATEGORICAL_FEATURE:
        st.selectbox(
            name_of(field, texts),
            CATEGORIES,
            format_func=lambda category: category_name(category, texts),
            key=_key(field),
        )
        return
    step, shown = STEPS[field]
    placeholder = texts.unknown_bedrooms if field == "total_bedrooms" else None
    st.number_input(
        name_of(field, texts), value=None, step=step, format=shown, placeholder=placeholder, key=_key(field)
    )


def _explain(visit: Visit, values: Mapping[str, Any]) -> None:
    texts = visit.texts
    st.header(texts.drivers_heading, anchor=False)
    try:
        explanation = visit.api.explain(values)
    except ApiUnavailable:
        st.warning(texts.waiting, icon=":material/cloud_off:")
        return
    except ApiRefused:
        st.info(texts.no_explanation)
        return
    price, base = money(explanation.predicted_price), money(explanation.base_value)
    st.markdown(plain(texts.drivers_intro.format(base=base, price=price)))
    shown = charts.strongest(explanation.contributions, texts)
    st.altair_chart(charts.contribution_chart(shown, explanation.predicted_price, texts), width="stretch")
    with st.expander(texts.as_table):
        rows = [
            {
                texts.feature: name_of(one.feature, texts),
                texts.value: value_text(one.feature, one.value, texts),
                texts.contribution: plain(money(one.contribution, signed=True)),
            }
            for one in explanation.contributions
        ]
        st.table(pd.DataFrame(rows).set_index(texts.feature))


def _compare(texts: Texts, nearby: list[NearbyBlockGroup] | None, price: float) -> None:
    st.header(texts.nearby_heading, anchor=False)
    if not nearby:
        st.info(texts.no_neighbours)
        return
    middle = median(one.median_house_value for one in nearby)
    share = price / middle - 1
    direction = texts.same if abs(share) < 0.005 else texts.above if share > 0 else texts.below
    summary = texts.nearby_summary.format(
        count=len(nearby), median=money(middle), comparison=direction.format(percent=f"{abs(share):.0%}")
    )
    st.markdown(plain(summary))
    st.altair_chart(charts.nearby_chart(nearby, price, texts), width="stretch")
    with st.expander(texts.as_table):
        rows = [
            {
                texts.distance: f"{one.distance_km:.1f}",
                texts.estimate: plain(money(one.median_house_value)),
                texts.median_income: f"{one.median_income:.2f}",
                texts.rooms_per_household: f"{one.rooms_per_household:.1f}",
            }
            for one in nearby
        ]
        st.table(pd.DataFrame(rows).set_index(texts.distance))
