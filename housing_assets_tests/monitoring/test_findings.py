"""The report that alerts and retraining read: strict, stable, readable by people."""

import json
from datetime import UTC, date, datetime

import pytest
from pydantic import ValidationError

from housing_assets.monitoring.findings import Finding, Report, report_name

FINDING = Finding(
    cause="drift:median_income",
    severity="critical",
    subject="median_income",
    value=0.41,
    threshold=0.2,
    text="median_income moved: its PSI is 0.41.",
    action="Compare the callers' incomes with the training data's.",
    retrain=True,
)


def report(*findings: Finding) -> Report:
    return Report(
        day=date(2026, 11, 22),
        kind="drift",
        model_versions=["3", "4"],
        rows=1200,
        findings=list(findings),
        created_at=datetime(2026, 11, 23, 1, 0, tzinfo=UTC),
    )


def test_a_report_comes_back_from_json_as_it_was() -> None:
    stored = report(FINDING)
    assert Report.from_json(stored.to_json()) == stored
    assert json.loads(stored.to_json())["findings"][0]["cause"] == "drift:median_income"


def test_a_report_lies_where_its_readers_look() -> None:
    assert report_name("drift", date(2026, 1, 2)) == "monitoring/reports/drift/2026-01-02.json"
    assert report_name("performance", date(2026, 1, 2)) == "monitoring/reports/performance/2026-01-02.json"


def test_one_cause_is_found_once_a_day() -> None:
    with pytest.raises(ValidationError, match=r"these repeat: drift:median_income"):
        report(FINDING, FINDING)


def test_a_report_finds_only_what_its_kind_looks_for() -> None:
    foreign = FINDING.model_copy(update={"cause": "performance:mape"})
    with pytest.raises(ValidationError, match="a drift report cannot find performance:mape"):
        report(foreign)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cause", "median_income"),
        ("severity", "fatal"),
        ("subject", ""),
        ("value", float("nan")),
        ("threshold", "0.2"),
        ("text", ""),
        ("action", ""),
        ("retrain", "yes"),
        ("from_labels", "yes"),
    ],
)
def test_a_finding_that_says_nothing_usable_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        Finding(**{**FINDING.model_dump(), field: value})


def test_an_unknown_field_in_stored_json_is_refused() -> None:
    content = {**json.loads(report().to_json()), "mood": "bad"}
    with pytest.raises(ValidationError, match="mood"):
        Report.from_json(json.dumps(content).encode())
