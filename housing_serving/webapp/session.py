"""What every page has: the visitor's language, the API, and how it stands."""

from dataclasses import dataclass
from functools import cache
from typing import cast

import streamlit as st
from streamlit.components.v2.types import ComponentRenderer

from housing_serving.webapp.api import PriceApi
from housing_serving.webapp.settings import WebappSettings
from housing_serving.webapp.texts import LANGUAGES, Language, Texts
from housing_serving.webapp.watch import ServiceStatus, ServiceWatch

LANGUAGE = "language"
SEEN = "service_status_seen"
VERSION = "model_version_seen"
NEWS = "news"
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Visit:
    """One run of a page for one visitor."""

    texts: Texts
    api: PriceApi
    status: ServiceStatus


@st.cache_resource(show_spinner=False)
def service() -> tuple[PriceApi, ServiceWatch]:
    """The API of this process's settings and who watches it, shared by all sessions."""
    settings = WebappSettings.load()
    api = PriceApi(settings.api_url, settings.api_key)
    return api, ServiceWatch(api)


def chosen_language() -> Language:
    """What the visitor chose, else what the address asks for, else what the browser prefers."""
    for wish in (st.session_state.get(LANGUAGE), st.query_params.get("lang"), (st.context.locale or "")[:2]):
        if wish in LANGUAGES:
            return cast(Language, wish)
    return "en"


def language_choice(texts: Texts) -> None:
    """The switch between languages; the address keeps the choice."""
    st.session_state.setdefault(LANGUAGE, chosen_language())
    st.segmented_control(
        texts.language_label,
        list(LANGUAGES),
        format_func=lambda code: LANGUAGES[code][0],
        key=LANGUAGE,
        required=True,
        on_change=lambda: st.query_params.update(lang=st.session_state[LANGUAGE]),
        label_visibility="collapsed",
    )


@cache
def _page_language() -> ComponentRenderer:
    return st.components.v2.component(
        "page_language", js="export default ({ data }) => { document.documentElement.lang = data; }"
    )


def tell_language() -> None:
    """Let screen readers know which language they read; Streamlit says that all is English."""
    _page_language()(key="page_language", data=st.session_state[LANGUAGE], height=1)


def note_status(texts: Texts, status: ServiceStatus) -> None:
    """Remember what this run of the page was told, and what is new about it."""
    before: ServiceStatus | None = st.session_state.get(SEEN)
    version = st.session_state.get(VERSION)
    if status.state == "ready":
        if version is not None and version != status.version:
            news = texts.version_changed.format(before=version, after=status.version)
            st.session_state[NEWS] = news
        elif before is not None and before.state in ("unavailable", "no_model"):
            st.session_state[NEWS] = texts.back_again
        st.session_state[VERSION] = status.version
    else:
        st.session_state.pop(NEWS, None)
    st.session_state[SEEN] = status


@st.fragment(run_every=LOOK_SECONDS)
def status_line(texts: Texts, watch: ServiceWatch) -> None:
    """How the service stands; runs the page again when that changes, and never waits for the service."""
    status = watch.status()
    if status != st.session_state.get(SEEN):
        st.rerun()
    match status.state:
        case "ready":
            st.badge(
                texts.ready.format(version=status.version), icon=":material/check_circle:", color="green"
            )
        case "no_model":
            st.badge(texts.no_model, icon=":material/hourglass_empty:", color="orange")
        case "unavailable":
            st.badge(texts.unavailable, icon=":material/cloud_off:", color="red")
        case "unknown":
            st.badge(texts.unknown, icon=":material/hourglass_empty:", color="gray")


def news() -> None:
    """What has changed since the visitor came."""
    # Always there: what is below would otherwise be drawn anew, and lose what is being typed.
    with st.container():
        if text := st.session_state.get(NEWS):
            st.info(text, icon=":material/info:")


def waiting(visit: Visit) -> bool:
    """Whether there is nobody to ask; the page then says so."""
    if visit.status.state == "ready":
        return False
    st.warning(visit.texts.waiting, icon=":material/cloud_off:")
    return True
