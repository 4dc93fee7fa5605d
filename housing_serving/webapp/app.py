"""The script that Streamlit runs for every visitor: frame, language, status, and the page asked for.

It is run again at every change of a value; what stays is in `st.session_state`.
"""

from functools import partial
from pathlib import Path

import streamlit as st

from housing_serving.webapp import batch_page, model_page, price_page
from housing_serving.webapp.session import (
    Visit,
    chosen_language,
    language_choice,
    news,
    note_status,
    service,
    status_line,
    tell_language,
)
from housing_serving.webapp.texts import LANGUAGES

# One of Streamlit's icons would be fetched from the internet.
ICON = Path(__file__).with_name("favicon.svg")
# What is looked at every second would fade every second where the machine is busy.
STEADY = "<style>.st-key-status [data-stale] { opacity: 1 !important; }</style>"


def main() -> None:
    """One run of the page."""
    texts = LANGUAGES[chosen_language()][1]
    st.set_page_config(page_title=texts.title, page_icon=ICON.read_text("utf-8"), layout="wide")
    api, watch = service()
    visit = Visit(texts, api, watch.status())
    pages = [
        st.Page(
            partial(price_page.show, visit),
            title=texts.price_page,
            icon=":material/map:",
            default=True,
        ),
        st.Page(
            partial(batch_page.show, visit), title=texts.batch_page, icon=":material/table:", url_path="batch"
        ),
        st.Page(
            partial(model_page.show, visit),
            title=texts.model_page,
            icon=":material/model_training:",
            url_path="model",
        ),
    ]
    st.html(STEADY)
    page = st.navigation(pages, position="top")
    note_status(texts, visit.status)
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        with st.container(key="status", width="content"):
            status_line(texts, watch)
        language_choice(texts)
    news()
    page.run()
    tell_language()


main()
