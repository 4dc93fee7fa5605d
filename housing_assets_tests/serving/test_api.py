"""The HTTP interface over a hand-made bundle: answers, limits, and one shape for every error."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from housing_assets_tests.serving.bundles import INSTANCE, bundle_files, write_files
from housing_serving.app import create_app
from housing_serving.batching import MAX_ROWS, MAX_ROWS_WITH_NEIGHBOURS
from housing_serving.bundle import Bundle, FeatureRange
from housing_serving.features import CATEGORIES, LIMITS
from housing_serving.log_format import RequestLines
from housing_serving.middleware import Surroundings
from housing_serving.request_body import MAX_BODY_BYTES
from housing_serving.service import Service
from housing_serving.settings import ServingSettings

JSON = dict[str, Any]
PREDICT = "/api/v1/predict"


def priced(client: TestClient, *instances: object) -> JSON:
    response = client.post(PREDICT, json={"instances": instances})
    assert response.status_code == 200, response.text
    answer: JSON = response.json()
    return answer


def refused(client: TestClient, body: object, status: int = 422) -> JSON:
    response = client.post(PREDICT, json=body)
    assert response.status_code == status, response.text
    return error_of(response.json())


def error_of(body: JSON) -> JSON:
    """The error of a response in the one shape."""
    assert set(body) == {"error", "request_id"}
    assert set(body["error"]) == {"code", "message", "details"}
    error: JSON = body["error"]
    return error


def test_price_interval_and_version(client: TestClient) -> None:
    assert priced(client, INSTANCE) == {
        "predictions": [
            {
                "predicted_price": 300_000.0,
                "confidence_interval": {"lower": 180_000.0, "upper": 380_000.0, "level": 0.9},
                "warnings": [],
            }
        ],
        "model_version": "3",
    }


def test_answers_come_in_the_order_of_the_instances(client: TestClient) -> None:
    poor = {**INSTANCE, "median_income": 2}

    answer = priced(client, INSTANCE, poor, INSTANCE)

    assert [row["predicted_price"] for row in answer["predictions"]] == [300_000, 100_000, 300_000]


@pytest.mark.parametrize("bedrooms", [129, None])
@pytest.mark.parametrize("rows", [MAX_ROWS_WITH_NEIGHBOURS + 1, MAX_ROWS, MAX_ROWS + 1, 1000])
def test_batches_price_each_row_like_a_single_request(
    client: TestClient, rows: int, bedrooms: int | None
) -> None:
    block = {**INSTANCE, "total_bedrooms": bedrooms}
    single = priced(client, block)["predictions"]

    assert priced(client, *[block] * rows)["predictions"] == single * rows


def test_null_or_absent_bedrooms_are_imputed(client: TestClient) -> None:
    # Three bedrooms a household above 500 rooms, so the price takes the step above two.
    null = {**INSTANCE, "total_bedrooms": None}
    absent = {name: value for name, value in INSTANCE.items() if name != "total_bedrooms"}

    answer = priced(client, null, absent)

    assert [row["predicted_price"] for row in answer["predictions"]] == [301_000, 301_000]


@pytest.mark.parametrize("category", ["inland", "Inland", " INLAND "])
def test_category_is_case_insensitive(client: TestClient, category: str) -> None:
    answer = priced(client, {**INSTANCE, "ocean_proximity": category})

    assert answer["predictions"][0]["predicted_price"] == 250_000


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_inclusive_and_nothing_beyond_is_accepted(client: TestClient, name: str) -> None:
    low, high = LIMITS[name]
    priced(client, {**INSTANCE, name: low}, {**INSTANCE, name: high})

    for value, problem in ((low - 0.01, "greater_than_equal"), (high + 0.01, "less_than_equal")):
        error = refused(client, {"instances": [INSTANCE, {**INSTANCE, name: value}]})
        assert [(detail["field"], detail["type"]) for detail in error["details"]] == [
            (f"instances.1.{name}", problem)
        ]


@pytest.mark.parametrize("value", ["8.3", True, None, [], {}])
def test_numbers_must_be_numbers(client: TestClient, value: object) -> None:
    error = refused(client, {"instances": [{**INSTANCE, "median_income": value}]})

    assert [detail["field"] for detail in error["details"]] == ["instances.0.median_income"]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 400])
def test_numbers_that_json_or_doubles_do_not_know_are_refused(client: TestClient, text: str) -> None:
    body = json.dumps({"instances": [{**INSTANCE, "total_bedrooms": 12321}]}).replace("12321", text)

    response = client.post(PREDICT, content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == 422
    assert [detail["field"] for detail in error_of(response.json())["details"]] == [
        "instances.0.total_bedrooms"
    ]


@pytest.mark.parametrize("category", ["ATLANTIS", "\u0131nland", "", None, 3])
def test_unknown_category_names_the_choices(client: TestClient, category: object) -> None:
    error = refused(client, {"instances": [{**INSTANCE, "ocean_proximity": category}]})

    assert error["details"] == [
        {
            "field": "instances.0.ocean_proximity",
            "message": "Input should be one of <1H OCEAN, INLAND, ISLAND, NEAR BAY, NEAR OCEAN",
            "type": "unknown_category",
        }
    ]


def test_every_wrong_field_is_reported_at_once(client: TestClient) -> None:
    wrong = {**INSTANCE, "longitude": 0, "surprise": 1}
    del wrong["households"]

    error = refused(client, {"instances": [wrong], "extra": True})

    assert (error["code"], error["message"]) == ("invalid_request", "4 fields are invalid.")
    assert {(detail["field"], detail["type"]) for detail in error["details"]} == {
        ("instances.0.longitude", "less_than_equal"),
        ("instances.0.surprise", "extra_forbidden"),
        ("instances.0.households", "missing"),
        ("extra", "extra_forbidden"),
    }


@pytest.mark.parametrize(
    ("body", "field", "problem"),
    [
        ({"instances": []}, "instances", "too_short"),
        ({"instances": [INSTANCE] * 1001}, "instances", "too_long"),
        ({}, "instances", "missing"),
        ({"instances": INSTANCE}, "instances", "list_type"),
        ([INSTANCE], "body", "model_type"),
    ],
)
def test_malformed_batches_are_refused(client: TestClient, body: object, field: str, problem: str) -> None:
    error = refused(client, body)

    assert [(detail["field"], detail["type"]) for detail in error["details"]] == [(field, problem)]
    assert error["message"] == "1 field is invalid."


def test_a_thousand_wrong_instances_list_the_first_hundred_problems(client: TestClient) -> None:
    error = refused(client, {"instances": [{**INSTANCE, "population": 0, "households": 0}] * 1000})

    assert error["message"] == "2000 fields are invalid; the first 100 are listed."
    assert len(error["details"]) == 100


@pytest.mark.parametrize(
    ("content", "kind", "problem"),
    [
        (b'{"instances": [', "application/json", "json_invalid"),
        (b"", "application/json", "json_invalid"),
        (b"null", "application/json", "model_type"),
        (b"\xff\xfe{", "application/json; charset=utf-8", "json_invalid"),
    ],
)
def test_bodies_that_are_not_json_are_refused(
    client: TestClient, content: bytes, kind: str, problem: str
) -> None:
    response = client.post(PREDICT, content=content, headers={"Content-Type": kind})

    assert response.status_code == 422
    details = error_of(response.json())["details"]
    assert [(detail["field"], detail["type"]) for detail in details] == [("body", problem)]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_refused(client: TestClient, kind: str) -> None:
    content = json.dumps({"instances": [INSTANCE]})

    response = client.post(PREDICT, content=content, headers={"Content-Type": kind})

    assert response.status_code == 415
    assert error_of(response.json())["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    ("repeated", "name"),
    [
        ('"median_income": 2, "median_income": 8', "median_income"),
        ('"median_income": 2, "median\\u005fincome": 8', "median_income"),
        ('"median_income": {"a": ":"}, "median_income": 8', "median_income"),
    ],
)
def test_a_key_that_comes_twice_is_refused(client: TestClient, repeated: str, name: str) -> None:
    body = json.dumps({"instances": [INSTANCE]}).replace('"median_income": 8.3252', repeated)

    response = client.post(PREDICT, content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == 422
    assert error_of(response.json())["details"] == [
        {
            "field": "body",
            "message": f"The key {name} comes twice in one object",
            "type": "repeated_key",
        }
    ]


def test_what_training_never_saw_is_answered_with_a_warning(tmp_path: Path) -> None:
    ranges = [FeatureRange(name=name, minimum=low, maximum=high) for name, (low, high) in LIMITS.items()]
    income = FeatureRange(name="median_income", minimum=1.0, maximum=15.0)
    files = bundle_files(features=(*ranges[:-1], income), categories=CATEGORIES[:2])
    folder = write_files(tmp_path / "narrow", files)
    rich, poor, usual = (
        {**INSTANCE, "median_income": value, "ocean_proximity": "INLAND"} for value in (20, 0.5, 8)
    )
    with TestClient(create_app(ServingSettings(local_model_path=folder))) as client:
        answers = priced(client, usual, {**rich, "ocean_proximity": "ISLAND"}, poor)["predictions"]

    assert [answer["predicted_price"] for answer in answers] == [250_000, 300_000, 50_000]
    assert [answer["warnings"] for answer in answers] == [
        [],
        [
            {
                "field": "median_income",
                "code": "above_training_range",
                "message": "20 is above 15, the highest in training.",
            },
            {
                "field": "ocean_proximity",
                "code": "unseen_category",
                "message": "No training row was ISLAND.",
            },
        ],
        [
            {
                "field": "median_income",
                "code": "below_training_range",
                "message": "0.5 is below 1, the lowest in training.",
            }
        ],
    ]


def test_the_largest_batch_fits_and_a_larger_body_is_refused(client: TestClient) -> None:
    largest = json.dumps({"instances": [INSTANCE] * 1000}, indent=4)
    assert len(largest) < MAX_BODY_BYTES

    too_large = b" " * (MAX_BODY_BYTES + 1)
    response = client.post(PREDICT, content=too_large, headers={"Content-Type": "application/json"})

    assert response.status_code == 413
    assert error_of(response.json()) == {
        "code": "payload_too_large",
        "message": "The request body is larger than 1048576 bytes; send fewer instances at once.",
        "details": [],
    }


def test_a_body_without_a_length_is_refused_while_it_arrives(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 65_536

    response = client.post(PREDICT, content=endless(), headers={"Content-Type": "application/json"})

    assert response.status_code == 413
    assert error_of(response.json())["code"] == "payload_too_large"


def test_body_of_exactly_the_limit_is_read(client: TestClient) -> None:
    body = json.dumps({"instances": [INSTANCE]}).encode().ljust(MAX_BODY_BYTES)

    response = client.post(PREDICT, content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/nowhere", "/api/v1/nowhere", "/api/v2/predict"])
def test_unknown_path_has_the_same_shape(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 404
    assert error_of(response.json()) == {"code": "not_found", "message": "Not Found.", "details": []}


def test_wrong_method_has_the_same_shape_and_names_the_right_one(client: TestClient) -> None:
    response = client.get(PREDICT)

    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert error_of(response.json())["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", PREDICT), ("POST", "/api/v1/explain"), ("GET", "/api/v1/model/info"), ("GET", "/health/ready")],
)
def test_without_a_model_503_says_when_to_come_back(
    client_without_model: TestClient, method: str, path: str
) -> None:
    response = client_without_model.request(method, path, json={})

    assert response.status_code == 503
    assert response.headers["retry-after"] == "60"
    assert error_of(response.json()) == {
        "code": "model_not_ready",
        "message": "No model is loaded yet; the service keeps looking for one.",
        "details": [{"field": "local", "message": "The source is empty.", "type": "source_empty"}],
    }


def test_liveness_does_not_depend_on_a_model(client: TestClient, client_without_model: TestClient) -> None:
    assert client.get("/health").json() == {"status": "healthy", "model_loaded": True, "version": "0.1.0"}
    assert client_without_model.get("/health").json() == {
        "status": "degraded",
        "model_loaded": False,
        "version": "0.1.0",
    }


def test_readiness_names_the_version(client: TestClient) -> None:
    assert client.get("/health/ready").json() == {"status": "ready", "model_version": "3"}


def test_model_info_is_the_manifest_and_its_origin(client: TestClient, bundle_folder: Path) -> None:
    info = client.get("/api/v1/model/info").json()

    assert info["features"][0] == {
        "name": "longitude",
        "minimum": -124.5,
        "maximum": -114.0,
        "nullable": False,
    }
    assert [feature["name"] for feature in info["features"] if feature["nullable"]] == ["total_bedrooms"]
    del info["features"]
    assert info == {
        "status": "ready",
        "model_loaded": True,
        "model_name": "housing_price_model",
        "model_version": "3",
        "algorithm": "RandomForest",
        "target": "median_house_value",
        "snapshot": "2025-01-05",
        "data_hash": "d" * 64,
        "git_commit": "ebe5dd9",
        "created_at": "2025-01-05T02:00:00Z",
        "metrics": {"mae": 31_800.5, "r2": 0.83},
        "categories": ["<1H OCEAN", "INLAND", "ISLAND", "NEAR BAY", "NEAR OCEAN"],
        "imputation": "ratio_boosting",
        "interval_level": 0.9,
        "libraries": {"numpy": "2.4.0"},
        "source": "local",
        "uri": str(bundle_folder),
    }


def test_root_says_where_to_look_next(client: TestClient) -> None:
    assert client.get("/").json() == {
        "name": "housing-price-api",
        "version": "0.1.0",
        "description": "Prices of Californian census block groups, with an interval for each.",
        "docs_url": "/docs",
        "health_url": "/health",
    }
    assert client.get("/docs").status_code == 200


def test_a_defect_is_answered_without_its_text_and_logged_with_it(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(Bundle, "predict", fail)

    response = client.post(PREDICT, json={"instances": [INSTANCE]}, headers={"X-Request-ID": "call-1"})

    assert response.status_code == 500
    assert response.json()["request_id"] == response.headers["x-request-id"] == "call-1"
    assert error_of(response.json())["code"] == "internal_error"
    assert "secret" not in response.text
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [(line.message, vars(line)["request_id"]) for line in logged] == [("request failed", "call-1")]
    assert "secret detail" in str(logged[0].exc_info)


def test_an_answer_that_breaks_half_way_is_broken_off(caplog: pytest.LogCaptureFixture) -> None:
    async def half_an_answer(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("secret detail")

    with pytest.raises(RuntimeError, match="secret detail"):
        TestClient(Surroundings(half_an_answer, Service(ServingSettings()))).get("/")
    assert "request failed" in caplog.messages


def test_each_request_has_an_id_and_a_log_line(
    bundle_folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, RequestLines.LOGGER)
    with TestClient(create_app(ServingSettings(local_model_path=bundle_folder))) as client:
        kept = client.get("/", headers={"X-Request-ID": "trace_1.2-3"}).headers["x-request-id"]
        forged = client.get("/nowhere", headers={"X-Request-ID": "a b" * 40}).headers["x-request-id"]
        client.get("/health")

    assert kept == "trace_1.2-3"
    assert len(forged) == 32
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["method"], line["path"], line["status"], line["request_id"]) for line in lines] == [
        ("GET", "/", 200, kept),
        ("GET", "/nowhere", 404, forged),
    ]


def test_the_model_is_found_later_and_a_standing_problem_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "later"
    settings = ServingSettings(local_model_path=folder, housing_model_poll_seconds=0.01)
    with TestClient(create_app(settings)) as client:
        looks = 0
        while client.get("/health/ready").status_code == 503:
            looks += 1
            if looks == 20:
                # A half-copied bundle first: the manifest comes last.
                files = bundle_files(version=4)
                write_files(folder, {"model.onnx": files["model.onnx"]})
                (folder / "bundle.json").write_bytes(files["bundle.json"])
            assert looks < 5000
        assert client.get("/health/ready").json()["model_version"] == "4"

    reasons = [vars(record)["reason"] for record in caplog.records if record.message == "no model"]
    assert reasons == [
        f"{folder}/bundle.json does not exist: check the path, or export or copy the bundle again"
    ]


def test_openapi_declares_every_error_and_carries_examples(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()

    statuses = {
        f"{method} {path}": sorted(operation["responses"])
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    }
    assert statuses == {
        "post /api/v1/predict": ["200", "408", "413", "415", "422", "500", "503"],
        "post /api/v1/explain": ["200", "408", "409", "413", "415", "422", "500", "503"],
        "get /api/v1/model/info": ["200", "500", "503"],
        "get /api/v1/model/releases": ["200", "500"],
        "get /api/v1/model/evaluation": ["200", "404", "500", "503"],
        "get /api/v1/model/monitoring": ["200", "500", "503"],
        "get /api/v1/block-groups/nearest": ["200", "409", "422", "500", "503"],
        "get /health": ["200", "500"],
        "get /health/ready": ["200", "500", "503"],
        "get /health/deep": ["200", "500", "503"],
        "get /metrics": ["200", "500"],
        "get /": ["200", "500"],
    }
    errors = {
        response["content"]["application/json"]["schema"]["$ref"]
        for operations in schema["paths"].values()
        for operation in operations.values()
        for status, response in operation["responses"].items()
        if status != "200"
    }
    assert errors == {"#/components/schemas/ErrorResponse"}
    instance = schema["components"]["schemas"]["HousingInstance"]
    assert instance["example"] == INSTANCE
    assert instance["additionalProperties"] is False
    assert instance["properties"]["longitude"].items() >= {"minimum": -124.5, "maximum": -114.0}.items()
    assert instance["properties"]["ocean_proximity"]["enum"][1] == "INLAND"
    assert "HTTPValidationError" not in schema["components"]["schemas"]
