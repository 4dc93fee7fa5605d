"""The page that prices a table: template, upload, what is wrong row by row, progress, map and download."""

import hashlib

import numpy as np
import pandas as pd
import streamlit as st

from housing_serving.webapp import california_map
from housing_serving.webapp.api import ApiRefused, ApiUnavailable
from housing_serving.webapp.batch_rows import Batch, TableRefused, problem_rows, read_table, template
from housing_serving.webapp.price_page import BERKELEY, FRESNO, MALIBU
from housing_serving.webapp.session import Visit, waiting
from housing_serving.webapp.texts import Texts
from housing_serving.webapp.values import money, plain

# The batch of this session, and the file and language that it was read from.
BATCH, ORIGIN = "batch", "batch_origin"
STOPPED = "batch_stopped"
# Rows of a table on the page; the download has all.
SHOWN_PROBLEMS, SHOWN_RESULTS = 50, 10


def show(visit: Visit) -> None:
    """The page."""
    texts = visit.texts
    st.title(texts.batch_heading, anchor=False)
    st.markdown(texts.batch_intro)
    example = template([BERKELEY, FRESNO, MALIBU])
    st.download_button(
        texts.template, example, "block_groups.csv", "text/csv", icon=":material/download:", on_click="ignore"
    )
    uploaded = st.file_uploader(texts.upload, type=["csv"])
    if uploaded is not None:
        _remember(uploaded.getvalue(), texts)
    if BATCH not in st.session_state:
        return
    batch: Batch | str = st.session_state[BATCH]
    if isinstance(batch, str):
        st.error(batch, icon=":material/error:")
        return
    _tell_problems(batch, texts)
    _price(visit, batch)
    if batch.answers:
        _results(batch, texts)


def _remember(data: bytes, texts: Texts) -> None:
    """Read the file, unless it is the one that was read before."""
    origin = hashlib.sha256(data).hexdigest(), texts.language_label
    if st.session_state.get(ORIGIN) == origin:
        return
    before = st.session_state.get(BATCH)
    same_file = st.session_state.get(ORIGIN, ("", ""))[0] == origin[0]
    try:
        batch: Batch | str = read_table(data, texts)
        if same_file and isinstance(batch, Batch) and isinstance(before, Batch):
            batch.answers = before.answers
    except TableRefused as error:
        batch = str(error)
    st.session_state[BATCH], st.session_state[ORIGIN] = batch, origin
    st.session_state.pop(STOPPED, None)


def _tell_problems(batch: Batch, texts: Texts) -> None:
    st.success(texts.rows_good.format(count=f"{len(batch.instances):,}"), icon=":material/check_circle:")
    if not batch.bad:
        return
    st.error(texts.rows_bad.format(count=f"{len(batch.bad):,}"), icon=":material/error:")
    rows = problem_rows(batch, texts)
    if len(rows) > SHOWN_PROBLEMS:
        st.markdown(texts.rows_bad_listed.format(count=SHOWN_PROBLEMS))
    st.table(pd.DataFrame(rows[:SHOWN_PROBLEMS]).set_index(texts.row).map(plain))


def _price(visit: Visit, batch: Batch) -> None:
    texts, pending = visit.texts, batch.pending
    if not pending or waiting(visit):
        return
    if done := st.session_state.get(STOPPED):
        st.warning(texts.stopped.format(done=f"{done:,}", count=f"{len(batch.instances):,}"))
    label = texts.price_rows.format(count=f"{len(pending):,}")
    if not st.button(label, type="primary", icon=":material/play_arrow:"):
        return
    total = len(batch.instances)
    progress = st.progress(0.0)
    try:
        for done in batch.price(visit.api):
            progress.progress(done / total, texts.pricing.format(done=f"{done:,}", count=f"{total:,}"))
    except ApiUnavailable:
        st.session_state[STOPPED] = len(batch.answers)
    except ApiRefused as error:
        st.error(plain(texts.api_refused.format(message=error)), icon=":material/error:")
        return
    else:
        st.session_state.pop(STOPPED, None)
    st.rerun()


def _results(batch: Batch, texts: Texts) -> None:
    st.header(texts.results_heading, anchor=False)
    with st.container(horizontal=True):
        st.metric(texts.priced, f"{len(batch.answers):,}", width="content")
        st.metric(texts.median_price, money(batch.median_price), width="content")
        st.metric(texts.versions, ", ".join(batch.versions), width="content")
    if len(batch.versions) > 1:
        st.info(texts.several_versions.format(versions=", ".join(batch.versions)))
    if batch.warned:
        st.warning(texts.with_warnings.format(count=f"{batch.warned:,}"), icon=":material/warning:")
    st.download_button(
        texts.download,
        batch.to_csv(texts),
        "priced_block_groups.csv",
        "text/csv",
        type="primary",
        icon=":material/download:",
        on_click="ignore",
    )
    left, right = st.columns([5, 6], gap="large")
    with left:
        _map(batch, texts)
    with right:
        rows = batch.result(texts)
        st.markdown(texts.results_help.format(count=min(SHOWN_RESULTS, len(rows)), rows=f"{len(rows):,}"))
        shown = pd.DataFrame(rows[:SHOWN_RESULTS])[
            ["longitude", "latitude", "predicted_price", "lower", "upper"]
        ]
        for name in ("predicted_price", "lower", "upper"):
            shown[name] = [money(float(text)) if text else "" for text in shown[name]]
        shown.index = pd.Index(range(1, len(shown) + 1), name=texts.row)
        st.table(shown.map(plain))


def _map(batch: Batch, texts: Texts) -> None:
    priced = [(batch.instances[position], answer) for position, (answer, _) in batch.answers.items()]
    california_map.price_map(
        texts,
        np.array([instance["longitude"] for instance, _ in priced]),
        np.array([instance["latitude"] for instance, _ in priced]),
        np.array([answer.predicted_price for _, answer in priced]),
        "batch_map",
    )
    california_map.legend(texts)
