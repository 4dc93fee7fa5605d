"""What the service tells of a model beside its prices: releases, scores, monitoring, block groups nearby."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from housing_assets.ml.promotion import Check, Decision, PromotionRules, Segment
from housing_assets.monitoring.findings import Finding, Report, report_name
from housing_assets_tests.serving.bundles import (
    PREPROCESSING,
    bundle_files,
    explanation_arrays,
    npz,
    stump_model,
    write_files,
)
from housing_serving.app import create_app
from housing_serving.features import LIMITS
from housing_serving.neighbours import TRAITS, Neighbourhood
from housing_serving.releases import RELEASE_RECORD, ReleaseRecord, change
from housing_serving.settings import ServingSettings

JSON = dict[str, Any]
RELEASES = "/api/v1/model/releases"
EVALUATION = "/api/v1/model/evaluation"
MONITORING = "/api/v1/model/monitoring"
NEAREST = "/api/v1/block-groups/nearest"
# Three in Oakland, one in Los Angeles.
KNOWN = Neighbourhood(
    np.array([37.80, 37.81, 37.83, 34.05]),
    np.array([-122.27, -122.26, -122.24, -118.24]),
    np.array([110_000.0, 120_000.0, 130_000.0, 140_000.0]),
    np.arange(20.0).reshape(len(TRAITS), 4),
)


def neighbourly_bundle(version: int = 3) -> dict[str, bytes]:
    """A bundle that knows those block groups, fills bedrooms in by a model, and explains."""
    preprocessing = PREPROCESSING.model_copy(update={"neighbours": True})
    width, stumps = preprocessing.spec(KNOWN).size, [(7, 4.0, 100_000.0, 300_000.0)]
    arrays = {name: getattr(KNOWN, name) for name in ("latitude", "longitude", "price", "traits")}
    files = {
        "model.onnx": stump_model(width, stumps),
        "block_groups.npz": npz(arrays),
        "explanation.npz": npz(explanation_arrays(width, stumps)),
    }
    return bundle_files(kind="compiled", version=version, preprocessing=preprocessing, files_instead=files)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A storage root with version 3."""
    root = tmp_path / "home" / "storage"
    write_files(root / "models" / "housing_price_model" / "3", neighbourly_bundle())
    return root


@pytest.fixture
def rooted(root: Path) -> Iterator[TestClient]:
    """A service on that root."""
    with TestClient(create_app(ServingSettings(housing_home=root.parent))) as started:
        yield started


def store(root: Path, name: str, data: bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def answer(client: TestClient, path: str, status: int = 200, **query: object) -> JSON:
    response = client.get(path, params=query)  # type: ignore[arg-type]
    assert response.status_code == status, response.text
    found: JSON = response.json()
    return found


def test_before_the_first_release_there_is_no_history(rooted: TestClient) -> None:
    assert answer(rooted, RELEASES) == {
        "stable_version": None,
        "canary_version": None,
        "canary_percent": 0.0,
        "previous_version": None,
        "changes": [],
    }


def test_the_history_has_the_latest_change_first(root: Path) -> None:
    steps = (change("promote", 2, "ann", "first"), change("promote", 3, "run 7", "better on every check"))
    record = ReleaseRecord(stable_version=3, previous_versions=(2,), history=steps)
    store(root, RELEASE_RECORD, record.to_json())
    with TestClient(create_app(ServingSettings(housing_home=root.parent))) as client:
        # The record is looked at once a model is there, and again every second.
        found = answer(client, RELEASES)
        while not found["changes"]:
            found = answer(client, RELEASES)
    assert (found["stable_version"], found["previous_version"]) == (3, 2)
    assert [(step["action"], step["version"], step["by"]) for step in found["changes"]] == [
        ("promote", 3, "run 7"),
        ("promote", 2, "ann"),
    ]
    assert datetime.fromisoformat(found["changes"][0]["at"]) == steps[1].at


def decision() -> Decision:
    return Decision(
        candidate_version=3,
        champion_version=None,
        snapshot="2025-01-05",
        promote=True,
        reason="there is no version in production",
        checks=(Check("r2", True, 0.83, 0.7, "R2 is 0.83"), Check("finite", True, None, None, "all are")),
        segments=(Segment("INLAND", 40, 17_200.0, float("nan"), None, False, True),),
        test_rows=4117,
        rules=PromotionRules(),
    )


def test_the_report_that_the_pipeline_writes_is_told(rooted: TestClient, root: Path) -> None:
    store(root, "models/housing_price_model/3/promotion.json", decision().to_json().encode())
    found = answer(rooted, EVALUATION)
    assert (found["candidate_version"], found["champion_version"], found["test_rows"]) == (3, None, 4117)
    assert found["checks"][0] == {
        "name": "r2",
        "passed": True,
        "found": 0.83,
        "limit": 0.7,
        "detail": "R2 is 0.83",
    }
    assert found["segments"][0]["mae"] == 17_200.0
    assert found["segments"][0]["wmape"] is None


def test_a_version_without_a_report_says_so(rooted: TestClient, client: TestClient) -> None:
    for asked in (rooted, client):
        error = answer(asked, EVALUATION, 404)["error"]
        assert error["code"] == "not_recorded"
        assert "model version 3" in error["message"]


def test_what_cannot_be_read_is_no_answer_and_stands_in_the_log(
    rooted: TestClient, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store(root, "models/housing_price_model/3/promotion.json", b'{"candidate_version": "three"}')
    response = rooted.get(EVALUATION)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "records_unavailable")
    assert response.headers["retry-after"] == "5"
    assert str(root) not in response.text
    [reason] = [
        vars(record)["reason"] for record in caplog.records if record.message == "records cannot be read"
    ]
    assert "3/promotion.json is no record (candidate_version: Input should be a valid integer" in reason


def report(kind: Any, day: date, *findings: Finding) -> Report:
    return Report(
        day=day,
        kind=kind,
        model_versions=["3"],
        rows=500,
        findings=list(findings),
        created_at=datetime(2025, 2, 1, tzinfo=UTC),
    )


def test_the_newest_report_of_each_kind_is_told(rooted: TestClient, root: Path) -> None:
    finding = Finding(
        cause="drift:median_income",
        severity="warning",
        subject="median_income",
        value=0.31,
        threshold=0.2,
        text="median_income has moved",
        action="train on newer data",
        retrain=True,
    )
    for kind, day, found in (
        ("drift", date(2025, 1, 9), ()),
        ("drift", date(2025, 1, 31), (finding,)),
        ("performance", date(2025, 1, 2), ()),
    ):
        store(root, report_name(kind, day), report(kind, day, *found).to_json())
    store(root, "monitoring/reports/drift/2025-01-31.html", b"<p>for people</p>")
    reports = answer(rooted, MONITORING)["reports"]
    assert [(one["kind"], one["day"]) for one in reports] == [
        ("drift", "2025-01-31"),
        ("performance", "2025-01-02"),
    ]
    assert reports[0]["findings"][0]["subject"] == "median_income"
    assert reports[1]["findings"] == []


def test_without_reports_or_a_storage_root_there_is_nothing_to_tell(
    rooted: TestClient, client: TestClient
) -> None:
    for asked in (rooted, client):
        assert answer(asked, MONITORING) == {"reports": []}


def test_storage_is_read_once_for_many_callers(
    rooted: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answer(rooted, MONITORING) == {"reports": []}
    monkeypatch.setattr("housing_serving.records.FRESH_SECONDS", 3600.0)
    rooted.app.state.service.records._known.clear()  # type: ignore[attr-defined]
    assert answer(rooted, MONITORING) == {"reports": []}
    store(root, report_name("drift", date(2025, 1, 9)), report("drift", date(2025, 1, 9)).to_json())
    assert answer(rooted, MONITORING) == {"reports": []}


def test_the_nearest_block_groups_come_nearest_first(rooted: TestClient) -> None:
    found = answer(rooted, NEAREST, latitude=37.81, longitude=-122.26, limit=2)
    assert found["model_version"] == "3"
    first, second = found["block_groups"]
    assert first == {
        "longitude": -122.26,
        "latitude": 37.81,
        "distance_km": 0.0,
        "median_house_value": 120_000.0,
        **{name: 1.0 + 4 * number for number, name in enumerate(TRAITS)},
    }
    assert second["median_house_value"] == 110_000.0
    assert second["distance_km"] == pytest.approx(111.2 * np.hypot(0.01, 0.8 * 0.01), abs=1e-3)


def test_there_are_no_more_neighbours_than_the_model_knows(rooted: TestClient) -> None:
    assert len(answer(rooted, NEAREST, latitude=37.81, longitude=-122.26, limit=40)["block_groups"]) == 3


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"latitude": LIMITS["latitude"][1] + 1, "longitude": -122}, "latitude"),
        ({"latitude": 37}, "longitude"),
        ({"latitude": "north", "longitude": -122}, "latitude"),
        ({"latitude": "nan", "longitude": -122}, "latitude"),
        ({"latitude": 37, "longitude": -122, "limit": 0}, "limit"),
        ({"latitude": 37, "longitude": -122, "limit": 41}, "limit"),
        ({"latitude": 37, "longitude": -122, "radius": 3}, "radius"),
    ],
)
def test_a_place_that_is_none_is_refused(rooted: TestClient, query: JSON, field: str) -> None:
    error = answer(rooted, NEAREST, 422, **query)["error"]
    assert (error["code"], [detail["field"] for detail in error["details"]]) == ("invalid_request", [field])


def test_a_model_that_knows_no_block_groups_says_so(client: TestClient) -> None:
    error = answer(client, NEAREST, 409, latitude=37.81, longitude=-122.26)["error"]
    assert error["code"] == "neighbours_unavailable"


@pytest.mark.parametrize("path", [EVALUATION, f"{NEAREST}?latitude=1"])
def test_without_a_model_503_comes_first(client_without_model: TestClient, path: str) -> None:
    assert answer(client_without_model, path, 503)["error"]["code"] == "model_not_ready"
