"""The page on the model that answers: what it is, how good, when released, and whether it still fits."""

from collections.abc import Callable
from typing import TypeVar

import pandas as pd
import streamlit as st

from housing_serving.schemas import (
    ModelInfo,
    MonitoringReport,
    PromotionReport,
    ReleaseHistory,
    SegmentErrors,
)
from housing_serving.webapp.api import ApiRefused, ApiUnavailable
from housing_serving.webapp.session import Visit, waiting
from housing_serving.webapp.texts import Texts
from housing_serving.webapp.values import category_name, name_of, number_text, plain

A = TypeVar("A")


def show(visit: Visit) -> None:
    """The page."""
    texts, api = visit.texts, visit.api
    st.title(texts.model_heading, anchor=False)
    st.markdown(texts.model_intro)
    if waiting(visit):
        return
    info = _asked(texts, api.model_info)
    if info is None:
        return
    _identity(texts, info)
    left, right = st.columns(2, gap="large")
    with left:
        st.header(texts.test_scores, anchor=False)
        _scores(texts, info)
    with right:
        st.header(texts.monitoring_heading, anchor=False)
        if (monitoring := _asked(texts, api.monitoring)) is not None:
            _monitoring(texts, monitoring.reports)
        st.header(texts.history_heading, anchor=False)
        if (history := _asked(texts, api.releases)) is not None:
            _history(texts, history)
    st.header(texts.judged_heading, anchor=False)
    if (report := _asked(texts, api.evaluation)) is not None:
        _judged(texts, report)
    with st.expander(texts.details):
        _details(texts, info)


def _asked(texts: Texts, question: Callable[[], A]) -> A | None:
    """The answer, or None after saying why there is none."""
    try:
        return question()
    except ApiUnavailable as error:
        st.warning(plain(texts.not_available.format(problem=error)), icon=":material/cloud_off:")
    except ApiRefused as error:
        known = texts.not_recorded if error.error.code == "not_recorded" else None
        st.info(known or plain(texts.api_refused.format(message=error)))
    return None


def _identity(texts: Texts, info: ModelInfo) -> None:
    with st.container(horizontal=True):
        st.metric(texts.version, info.model_version, width="content")
        st.metric(texts.algorithm, info.algorithm, width="content")
        st.metric(texts.snapshot, info.snapshot, width="content")
        st.metric(texts.created, f"{info.created_at:%Y-%m-%d %H:%M} UTC", width="content")


def _scores(texts: Texts, info: ModelInfo) -> None:
    rows = [
        (str(getattr(texts, f"{name}_name", name)), f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}")
        for name, value in info.metrics.items()
    ]
    st.table(pd.DataFrame(rows, columns=[texts.measure, texts.value]).set_index(texts.measure))


def _history(texts: Texts, history: ReleaseHistory) -> None:
    if history.stable_version is None:
        st.info(texts.no_history)
        return
    st.markdown(texts.serving_now.format(version=history.stable_version))
    if history.canary_version is not None:
        percent = f"{history.canary_percent:g} %"
        st.markdown(texts.on_trial.format(version=history.canary_version, percent=percent))
    actions = {
        "canary": texts.action_canary,
        "promote": texts.action_promote,
        "abort": texts.action_abort,
        "rollback": texts.action_rollback,
    }
    rows = [
        {
            texts.when: f"{change.at:%Y-%m-%d %H:%M}",
            texts.what: actions[change.action].format(version=change.version),
            texts.who: plain(change.by),
            texts.why: plain(change.reason),
        }
        for change in history.changes
    ]
    st.table(pd.DataFrame(rows).set_index(texts.when))


def _monitoring(texts: Texts, reports: list[MonitoringReport]) -> None:
    if not reports:
        st.info(texts.no_monitoring)
    for report in reports:
        st.markdown(f"**{texts.drift if report.kind == 'drift' else texts.performance}**")
        if not report.findings:
            well = texts.all_well.format(day=report.day, rows=f"{report.rows:,}")
            st.success(well, icon=":material/check_circle:")
            continue
        count = len(report.findings)
        st.warning(texts.findings.format(day=report.day, count=count, rows=f"{report.rows:,}"))
        severities = {"warning": texts.severity_warning, "critical": texts.severity_critical}
        for finding in report.findings:
            st.markdown(f"- {severities[finding.severity]}: {plain(finding.text)} {plain(finding.action)}")


def _judged(texts: Texts, report: PromotionReport) -> None:
    said = texts.judged_yes if report.promote else texts.judged_no
    reason = report.reason.rstrip(".")
    st.markdown(
        plain(said.format(version=report.candidate_version, rows=f"{report.test_rows:,}", reason=reason))
    )
    st.markdown(f"**{texts.segments}**")
    segments = [_segment(texts, segment, report.champion_version) for segment in report.segments]
    st.table(pd.DataFrame(segments).set_index(texts.segment))
    with st.expander(texts.checks):
        checks = [
            {
                texts.check: plain(check.name),
                "": texts.passed if check.passed else texts.failed,
                texts.found: _number(check.found, ",.4g"),
                texts.limit: _number(check.limit, ",.4g"),
            }
            for check in report.checks
        ]
        st.table(pd.DataFrame(checks).set_index(texts.check))


def _segment(texts: Texts, segment: SegmentErrors, champion: int | None) -> dict[str, str]:
    row = {
        texts.segment: plain(category_name(segment.name, texts)),
        texts.rows: f"{segment.rows:,}",
        texts.mae: _number(segment.mae, ",.0f"),
        texts.wmape: _number(segment.wmape, ".1f"),
    }
    return row if champion is None else {**row, texts.champion_mae: _number(segment.champion_mae, ",.0f")}


def _number(value: float | None, shown: str) -> str:
    return "" if value is None else format(value, shown)


def _details(texts: Texts, info: ModelInfo) -> None:
    st.markdown(f"{texts.origin}: `{info.uri}` ({info.source})")
    rows = [
        {
            texts.trained_on: name_of(feature.name, texts),
            texts.minimum: number_text(feature.minimum),
            texts.maximum: number_text(feature.maximum),
        }
        for feature in info.features
    ]
    st.table(pd.DataFrame(rows).set_index(texts.trained_on).map(plain))
