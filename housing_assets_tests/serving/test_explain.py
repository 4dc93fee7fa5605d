"""Explanations over HTTP: worked out by hand, adding up, refused as predictions are, and in nobody's way."""

import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from housing_assets_tests.serving.bundles import (
    INSTANCE,
    PREPROCESSING,
    PRICE_STUMPS,
    bundle_files,
    columns_of,
    explanation_arrays,
    npz,
    random_columns,
    random_stumps,
    write_files,
)
from housing_assets_tests.serving.raw_http import ONE, RawAnswer, error_code, exchange, request_head
from housing_assets_tests.serving.running_service import RunningService, running_service
from housing_assets_tests.serving.test_adversarial import (
    CONTENT_TYPES,
    NUMBERS,
    REPEATED,
    STRUCTURES,
    TEXTS,
    Headers,
    with_value,
)
from housing_assets_tests.serving.test_bundle import opened, with_file
from housing_serving import explaining
from housing_serving.app import create_app
from housing_serving.bundle import Bundle, BundleCorrupt, NotExplainable
from housing_serving.explanation import Explanation, NotAdditive, explain_rows
from housing_serving.model_slot import CanaryModel, ModelSlot
from housing_serving.settings import ServingSettings
from housing_serving.sources import LoadedModel

JSON = dict[str, Any]
PREDICT = "/api/v1/predict"
EXPLAIN = "/api/v1/explain"
WIDTH = PREPROCESSING.spec().size
WAIT_SECONDS = 30.0


def explained(client: TestClient, *instances: object) -> JSON:
    response = client.post(EXPLAIN, json={"instances": instances})
    assert response.status_code == 200, response.text
    answer: JSON = response.json()
    return answer


def serving(folder: Path, files: Mapping[str, bytes]) -> TestClient:
    return TestClient(create_app(ServingSettings(local_model_path=write_files(folder / "1", files))))


def slot_of(client: TestClient) -> ModelSlot:
    slot: ModelSlot = client.app.state.service.slot  # type: ignore[attr-defined]
    return slot


def sizes(answer: JSON) -> dict[str, float]:
    """The contributions of the first instance by feature."""
    return {each["feature"]: each["contribution"] for each in answer["explanations"][0]["contributions"]}


def test_each_input_says_how_far_it_moves_the_price(client: TestClient) -> None:
    # Half of the training rows are on either side of each step: 200,000, -25,000 and 500 on average.
    (found,) = explained(client, INSTANCE)["explanations"]

    assert (found["predicted_price"], found["base_value"]) == (300_000, 175_500)
    assert found["contributions"][:3] == [
        {"feature": "median_income", "value": 8.3252, "contribution": 100_000},
        {"feature": "ocean_proximity", "value": "NEAR BAY", "contribution": 25_000},
        {"feature": "bedrooms_per_household", "value": None, "contribution": -500},
    ]
    assert {(each["feature"], each["value"]) for each in found["contributions"][3:]} == {
        ("location", None),
        ("housing_median_age", 41),
        ("total_rooms", 880),
        ("total_bedrooms", 129),
        ("population", 322),
        ("households", 126),
        ("rooms_per_household", None),
        ("population_per_household", None),
        ("bedrooms_per_room", None),
    }
    assert {each["contribution"] for each in found["contributions"][3:]} == {0}


def test_unknown_bedrooms_are_explained_as_they_were_estimated(client: TestClient) -> None:
    answer = explained(client, {**INSTANCE, "total_bedrooms": None})

    assert answer["explanations"][0]["predicted_price"] == 301_000
    assert sizes(answer)["bedrooms_per_household"] == 500
    values = {each["feature"]: each["value"] for each in answer["explanations"][0]["contributions"]}
    assert values["total_bedrooms"] is None


def test_the_answer_names_the_version_and_carries_the_request_s_id(client: TestClient) -> None:
    answer = client.post(EXPLAIN, json={"instances": [INSTANCE]}, headers={"X-Request-ID": "why-1"})

    assert answer.json()["model_version"] == "3"
    assert answer.headers["x-request-id"] == "why-1"
    assert answer.headers["content-type"] == "application/json"


def instances_of(columns: Mapping[str, NDArray[Any]]) -> list[JSON]:
    """Columns as instances; NaN is null."""
    rows = pd.DataFrame(columns)
    found: list[JSON] = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return found


def test_twenty_at_once_add_up_to_what_predict_answers_largest_first(tmp_path: Path) -> None:
    instances = instances_of(random_columns(100))
    with serving(tmp_path, bundle_files(explained=True, stumps=random_stumps())) as client:
        prices = client.post(PREDICT, json={"instances": instances}).json()["predictions"]
        found = [
            each
            for start in range(0, 100, 20)
            for each in explained(client, *instances[start : start + 20])["explanations"]
        ]

    assert [each["predicted_price"] for each in found] == [each["predicted_price"] for each in prices]
    for each in found:
        contributions = [one["contribution"] for one in each["contributions"]]
        assert each["base_value"] + sum(contributions) == pytest.approx(each["predicted_price"], abs=1e-6)
        assert contributions == sorted(contributions, key=abs, reverse=True)
    assert len({each["contributions"][0]["feature"] for each in found}) > 1


# ---- what is refused


@pytest.mark.parametrize(("count", "problem"), [(0, "too_short"), (21, "too_long"), (1001, "too_long")])
def test_one_to_twenty_instances_are_explained(client: TestClient, count: int, problem: str) -> None:
    answer = client.post(EXPLAIN, json={"instances": [INSTANCE] * count})

    assert answer.status_code == 422
    assert [detail["type"] for detail in answer.json()["error"]["details"]] == [problem]


def test_a_bundle_without_explanations_predicts_and_says_that_it_cannot_explain(tmp_path: Path) -> None:
    with serving(tmp_path, bundle_files(version=3)) as client:
        assert client.post(PREDICT, json={"instances": [INSTANCE]}).status_code == 200
        answer = client.post(EXPLAIN, json={"instances": [INSTANCE]})

    assert answer.status_code == 409
    assert answer.json()["error"] == {
        "code": "explanation_unavailable",
        "message": "Model version 3 was exported without what explanations need; it still predicts.",
        "details": [],
    }


@pytest.mark.parametrize(
    "damage",
    [{"value": explanation_arrays(WIDTH, random_stumps(3))["value"]}, {"cover": np.zeros(9)}],
    ids=["of another model", "unusable"],
)
def test_explanations_that_cannot_be_right_are_a_defect_of_which_predictions_know_nothing(
    tmp_path: Path, damage: dict[str, NDArray[Any]]
) -> None:
    data = npz(explanation_arrays(WIDTH, PRICE_STUMPS) | damage)
    with serving(tmp_path, with_file(bundle_files(explained=True), "explanation.npz", data)) as client:
        answer = client.post(EXPLAIN, json={"instances": [INSTANCE]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
        assert client.post(PREDICT, json={"instances": [INSTANCE]}).status_code == 200


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """One process for all: each attack finds it as the one before has left it."""
    with running_service(tmp_path_factory.mktemp("explain")) as started:
        yield started


def asked(service: RunningService, body: bytes, **headers: str | int) -> RawAnswer:
    complete = {"content_type": "application/json", "content_length": len(body)} | headers
    return exchange(service.url, request_head(target=EXPLAIN, **complete) + body)


BODIES: dict[str, tuple[bytes, str]] = {
    **{f"number {value[:12]}": (with_value("total_rooms", value), kind) for value, kind in NUMBERS.items()},
    **{f"text {name}": (with_value("ocean_proximity", value), kind) for name, (value, kind) in TEXTS.items()},
    **STRUCTURES,
    **{f"repeated {name}": (body, "repeated_key") for name, body in REPEATED.items()},
    # Too many to be explained, before anything is said about each.
    "1000 empty instances": (STRUCTURES["1000 empty instances"][0], "too_long"),
}


@pytest.mark.parametrize("name", BODIES)
def test_impossible_bodies_are_refused_as_predict_refuses_them(service: RunningService, name: str) -> None:
    body, expected = BODIES[name]
    answer = asked(service, body)

    assert (answer.status, error_code(answer)) == (422, "invalid_request"), answer.body[:500]
    assert answer.json["error"]["details"][0]["type"] == expected
    assert asked(service, ONE).json["explanations"][0]["predicted_price"] == 300_000


@pytest.mark.parametrize("case", CONTENT_TYPES, ids=lambda case: case.name)
def test_content_types_are_those_of_predict(service: RunningService, case: Headers) -> None:
    assert asked(service, ONE, **case.headers).status == case.status


def test_too_large_a_body_is_refused(service: RunningService) -> None:
    answer = asked(service, b" " * 1_100_000)

    assert (answer.status, error_code(answer)) == (413, "payload_too_large")


def test_explanations_count_against_the_rate_limit(bundle_folder: Path) -> None:
    settings = ServingSettings(local_model_path=bundle_folder, housing_rate_limit="2/hour")
    with TestClient(create_app(settings)) as client:
        answers = [client.post(path, json={"instances": [INSTANCE]}) for path in (EXPLAIN, PREDICT, EXPLAIN)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]


# ---- in nobody's way


def test_the_stable_version_explains_while_another_is_tried_out(client: TestClient, tmp_path: Path) -> None:
    doubled = [(feature, threshold, 2 * low, 2 * high) for feature, threshold, low, high in PRICE_STUMPS]
    tried = Bundle.from_files(bundle_files(version=4, stumps=doubled, explained=True), origin="4")
    slot = slot_of(client)
    assert slot.model is not None
    slot.serve(slot.model, CanaryModel(LoadedModel(tried, "local", "4"), 100.0))

    price = client.post(PREDICT, json={"instances": [INSTANCE]})
    answer = client.post(EXPLAIN, json={"instances": [INSTANCE]})

    assert (price.json()["model_version"], price.headers["x-model-track"]) == ("4", "canary")
    assert (answer.json()["model_version"], "x-model-track" in answer.headers) == ("3", False)
    assert answer.json()["explanations"][0]["predicted_price"] == 300_000


def test_nothing_is_unpacked_before_the_first_explanation(client: TestClient) -> None:
    model = slot_of(client).model
    assert model is not None
    client.post(PREDICT, json={"instances": [INSTANCE]})
    assert "explainer" not in vars(model.bundle)

    explained(client, INSTANCE)
    first = vars(model.bundle)["explainer"]
    explained(client, INSTANCE)

    assert vars(model.bundle)["explainer"] is first


def test_other_requests_are_answered_while_one_is_explained(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> Explanation:
        begun.set()
        assert go_on.wait(WAIT_SECONDS)
        return explain_rows(*arguments)

    monkeypatch.setattr(explaining, "explain_rows", slowly)
    with ThreadPoolExecutor(1) as callers:
        answer = callers.submit(explained, client, INSTANCE)
        assert begun.wait(WAIT_SECONDS)
        price = client.post(PREDICT, json={"instances": [INSTANCE]})
        invalid = client.post(EXPLAIN, json={})
        assert not answer.done()
        go_on.set()

        assert sizes(answer.result(WAIT_SECONDS))["median_income"] == 100_000
    assert (price.status_code, invalid.status_code) == (200, 422)


def test_explanations_are_counted_and_are_no_predictions(client: TestClient) -> None:
    explained(client, INSTANCE, INSTANCE)
    client.post(EXPLAIN, json={})

    exposed = client.get("/metrics").text
    assert 'housing_explanations_total{model_version="3"} 2.0' in exposed
    assert 'housing_requests_total{method="POST",route="/api/v1/explain",status="200"} 1.0' in exposed
    assert 'housing_requests_total{method="POST",route="/api/v1/explain",status="422"} 1.0' in exposed
    assert "housing_predictions_total{" not in exposed


# ---- the file


def test_a_bundle_says_whether_it_explains() -> None:
    able, unable = opened(bundle_files(explained=True)), opened(bundle_files())

    assert (able.explainable, unable.explainable) == (True, False)
    with pytest.raises(NotExplainable, match=r"bundle/explanation\.npz is not part of this bundle"):
        explain_rows(unable, columns_of(INSTANCE))


def test_a_file_that_the_manifest_does_not_list_is_not_trusted() -> None:
    stray = {"explanation.npz": npz(explanation_arrays(WIDTH, PRICE_STUMPS))}

    assert not opened({**bundle_files(), **stray}).explainable


def test_explanations_of_another_model_are_found_out() -> None:
    data = npz(explanation_arrays(WIDTH, PRICE_STUMPS[1:]))
    bundle = opened(with_file(bundle_files(explained=True), "explanation.npz", data))

    with pytest.raises(NotAdditive, match=r"differ from prices by up to \d"):
        explain_rows(bundle, columns_of(INSTANCE))


def changed(name: str, at: Sequence[int], to: float) -> dict[str, NDArray[Any]]:
    arrays = explanation_arrays(WIDTH, PRICE_STUMPS)
    arrays[name][list(at)] = to
    return arrays


def without(name: str) -> dict[str, NDArray[Any]]:
    return {key: each for key, each in explanation_arrays(WIDTH, PRICE_STUMPS).items() if key != name}


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **explanation_arrays(WIDTH, PRICE_STUMPS) | {"value": np.array([{}] * 9)})  # type: ignore[arg-type]
    return buffer.getvalue()


WRONG: dict[str, tuple[bytes, str]] = {
    "no file of arrays": (b"PK", "plain numbers"),
    "an array is missing": (npz(without("cover")), "plain numbers"),
    "objects": (pickled(), "plain numbers"),
    "another width": (npz(explanation_arrays(WIDTH + 1, PRICE_STUMPS)), "coefficients has a wrong shape"),
    "a text": (npz(without("value") | {"value": np.array(["1"] * 9)}), "value has a wrong shape or type"),
    "long numbers": (npz(without("left") | {"left": np.full(9, -1)}), "left has a wrong shape or type"),
    "arrays of two lengths": (npz(without("cover") | {"cover": np.ones(8)}), "cover has a wrong shape"),
    "no dimension": (npz(without("left") | {"left": np.int32(1)}), "wrong shape or type"),
    "a value that is no number": (npz(changed("value", [1], np.nan)), "value is not finite"),
    "a loop": (npz(changed("left", [3], 0)), "children do not come behind their parent"),
    "its own child": (npz(changed("left", [0], 0)), "children do not come behind their parent"),
    "one child": (npz(changed("left", [0], -1)), "children do not come behind their parent, in pairs"),
    "two parents": (npz(changed("left", [0], 4)), "two parents"),
    "a child beyond the end": (npz(changed("right", [6], 9)), "a child is absent"),
    "a feature beyond the width": (npz(changed("feature", [0], WIDTH)), "beyond the 19"),
    "a negative feature": (npz(changed("feature", [3], -1)), "beyond the 19"),
    "nobody came": (npz(changed("cover", [1], 0)), "no training row came to some node"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_unusable_file_is_named_with_what_is_wrong(name: str) -> None:
    data, problem = WRONG[name]
    bundle = opened(with_file(bundle_files(explained=True), "explanation.npz", data))

    with pytest.raises(BundleCorrupt, match=rf"bundle/explanation\.npz is unusable \(.*{problem}"):
        explain_rows(bundle, columns_of(INSTANCE))
    assert bundle.predict(columns_of(INSTANCE)).price.tolist() == [300_000]
