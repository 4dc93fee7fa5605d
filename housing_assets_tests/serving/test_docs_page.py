"""The documentation page in a real browser without any network, and the document behind it.

With `HOUSING_UPDATE_IMAGES=1` the picture becomes that of the documentation.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from fastapi.testclient import TestClient
from jsonschema_rs import Draft202012Validator
from playwright.sync_api import Page, expect, sync_playwright
from pydantic import SecretStr

from housing_assets_tests.serving.bundles import INSTANCE
from housing_assets_tests.serving.running_service import RunningService, running_service
from housing_assets_tests.system_programs import require
from housing_serving import schemas
from housing_serving.app import create_app
from housing_serving.error_body import ErrorResponse
from housing_serving.settings import ServingSettings

JSON = dict[str, Any]
OPERATIONS = (
    "POST /api/v1/predict",
    "POST /api/v1/explain",
    "GET /api/v1/model/info",
    "GET /api/v1/model/releases",
    "GET /api/v1/model/evaluation",
    "GET /api/v1/model/monitoring",
    "GET /api/v1/block-groups/nearest",
    "GET /health",
    "GET /health/ready",
    "GET /health/deep",
    "GET /metrics",
    "GET /",
)
KEY = "k3y-0123456789abcdef"
TIMEOUT_MILLISECONDS = 60_000
LARGEST_PICTURE_BYTES = 400_000
# Left alone, Chromium asks its vendor for updates; no name but the loopback address resolves here.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that asks for keys."""
    with running_service(tmp_path_factory.mktemp("docs"), HOUSING_API_KEYS=KEY) as started:
        yield started


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Where pictures go."""
    if os.environ.get("HOUSING_UPDATE_IMAGES") == "1":
        return Path(__file__).parents[2] / "docs" / "images"
    return tmp_path


@pytest.fixture
def problems() -> list[str]:
    """What a page should not do: errors on its console, requests to others, answers that are none."""
    return []


@pytest.fixture
def page(service: RunningService, problems: list[str]) -> Iterator[Page]:
    """The documentation page in a headless Chromium."""
    program = require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(base_url=service.url, viewport={"width": 1280, "height": 1160})
        page.set_default_timeout(TIMEOUT_MILLISECONDS)
        expect.set_options(timeout=TIMEOUT_MILLISECONDS)

        def note_request(url: str) -> None:
            if not url.startswith((f"{service.url}/", "data:", "blob:")):
                problems.append(f"a request to {url}")

        page.on("request", lambda request: note_request(request.url))
        page.on("requestfailed", lambda request: problems.append(f"no answer from {request.url}"))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda message: problems.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.goto("/docs")
        yield page
        browser.close()


def take_picture(page: Page, path: Path) -> None:
    """Save what the page shows."""
    page.wait_for_load_state("networkidle")
    page.screenshot(path=path, animations="disabled")
    assert 20_000 < path.stat().st_size < LARGEST_PICTURE_BYTES


def authorize(page: Page) -> None:
    """Give the page an API key, as a person does."""
    page.get_by_role("button", name="Authorize").click()
    dialog = page.locator(".dialog-ux")
    dialog.get_by_label("Value").first.fill(KEY)
    dialog.get_by_role("button", name="Apply credentials").first.click()
    dialog.locator(".close-modal").click()


def test_every_operation_is_shown(page: Page, problems: list[str], images: Path) -> None:
    expect(page.get_by_role("heading", name="House price API")).to_be_visible()
    expect(page.locator(".opblock")).to_have_count(len(OPERATIONS))
    shown = [
        f"{block.locator('.opblock-summary-method').inner_text()} "
        + block.locator(".opblock-summary-path").inner_text().replace("\u200b", "")
        for block in page.locator(".opblock").all()
    ]
    assert shown == list(OPERATIONS)
    take_picture(page, images / "api-docs.png")
    assert problems == []


def test_a_price_is_asked_for_and_shown(page: Page, problems: list[str], service: RunningService) -> None:
    authorize(page)
    predict = page.locator("#operations-prediction-predict")
    predict.locator(".opblock-summary-control").click()
    predict.get_by_role("button", name="Try it out").click()
    predict.get_by_role("button", name="Execute").click()

    answer = predict.locator(".live-responses-table")
    expect(answer.locator(".response-col_status").nth(1)).to_contain_text("200")
    expect(answer.locator(".response-col_description").nth(1)).to_contain_text('"predicted_price": 300000')
    assert problems == []
    assert KEY not in service.log.read_text()


@pytest.fixture
def client(bundle_folder: Path) -> Iterator[TestClient]:
    """A service in this process with every protection on."""
    settings = ServingSettings(
        local_model_path=bundle_folder, housing_api_keys=SecretStr(KEY), housing_rate_limit="1000/minute"
    )
    with TestClient(create_app(settings), headers={"X-API-Key": KEY}) as started:
        yield started


def test_the_page_allows_itself_nothing_but_this_service(client: TestClient) -> None:
    page = client.get("/docs")

    policy = page.headers.get_list("content-security-policy")
    assert len(policy) == 1
    assert "default-src 'none'; script-src 'self';" in policy[0]
    assert "<script>" not in page.text
    assert "://" not in page.text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) == 4
    for address in addresses:
        # Some kind of file that is what it says: browsers are told not to guess.
        asset = client.get(f"/{address}")
        assert (asset.status_code, len(asset.content) > 100) == (200, True)
        kind = {"js": "text/javascript", "css": "text/css", "png": "image/png"}[address.rpartition(".")[2]]
        assert asset.headers["content-type"].partition(";")[0] == kind


@pytest.mark.parametrize("name", ["redoc.standalone.js", "..%2fcore.py", "%2e%2e/core.py", "nothing"])
def test_no_other_file_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/docs/{name}").status_code == 404


def test_there_is_no_other_documentation_page(client: TestClient) -> None:
    assert client.get("/redoc").status_code == 404


def operations(document: JSON) -> Iterator[tuple[str, str, JSON]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_response_has_an_example_that_fits_its_schema(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    seen = set()
    for path, _, operation in operations(document):
        for status, response in operation["responses"].items():
            assert "X-Request-ID" in response["headers"], (path, status)
            for kind, media in response["content"].items():
                values = [example["value"] for example in media.get("examples", {}).values()]
                values += [media["example"]] if "example" in media else []
                assert values, (path, status)
                seen.add(status)
                schema = media["schema"] | {"components": document["components"]}
                for value in values:
                    Draft202012Validator(schema).validate(value)
                if kind == "application/json" and status != "200":
                    assert {ErrorResponse.model_validate(value).error.code for value in values} == set(
                        media["examples"]
                    )
    assert seen == {"200", "401", "404", "408", "409", "413", "415", "422", "429", "500", "503"}


@pytest.mark.parametrize("path", ["/api/v1/predict", "/api/v1/explain"])
def test_every_example_request_is_answered(client: TestClient, path: str) -> None:
    document = client.get("/openapi.json").json()
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]

    answers = {name: client.post(path, json=example["value"]) for name, example in body["examples"].items()}

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 200)
    assert body["examples"]["one"]["value"] == {"instances": [INSTANCE]}
    assert list(body["examples"]["one"]["value"]["instances"][0]) == list(
        schemas.HousingInstance.model_fields
    )


def test_example_errors_are_what_is_really_answered(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    responses = document["paths"]["/api/v1/predict"]["post"]["responses"]

    def documented(status: int) -> list[JSON]:
        examples = responses[str(status)]["content"]["application/json"]["examples"].values()
        return [example["value"]["error"] for example in examples]

    east = client.post("/api/v1/predict", json={"instances": [{**INSTANCE, "longitude": 0}]})
    text = client.post("/api/v1/predict", content="text")
    large = client.post(
        "/api/v1/predict", content=b" " * 1_100_000, headers={"Content-Type": "application/json"}
    )
    stranger = client.post("/api/v1/predict", headers={"X-API-Key": ""})

    for answer, status in ((east, 422), (text, 415), (large, 413), (stranger, 401)):
        assert answer.status_code == status
        assert answer.json()["error"] in documented(status)


def test_protections_are_documented_where_they_apply(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    assert document["components"]["securitySchemes"] == {
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": ANY},
        "BearerToken": {"type": "http", "scheme": "bearer", "description": ANY},
    }
    either: list[JSON] = [{"ApiKey": []}, {"BearerToken": []}]
    found = {
        f"{method} {path}": (
            operation.get("security"),
            "401" in operation["responses"],
            "429" in operation["responses"],
        )
        for path, method, operation in operations(document)
    }
    assert found == {
        "post /api/v1/predict": (either, True, True),
        "post /api/v1/explain": (either, True, True),
        "get /api/v1/model/info": (either, True, True),
        "get /api/v1/model/releases": (either, True, True),
        "get /api/v1/model/evaluation": (either, True, True),
        "get /api/v1/model/monitoring": (either, True, True),
        "get /api/v1/block-groups/nearest": (either, True, True),
        "get /health": (None, False, False),
        "get /health/ready": (None, False, False),
        "get /health/deep": (either, True, False),
        "get /metrics": (either, True, False),
        "get /": (None, False, True),
    }
    predict = document["paths"]["/api/v1/predict"]["post"]["responses"]
    assert "WWW-Authenticate" in predict["401"]["headers"]
    assert {"Retry-After", "RateLimit-Limit"} <= set(predict["429"]["headers"])
    assert {"RateLimit-Remaining", "RateLimit-Reset"} <= set(predict["200"]["headers"])


def test_without_protections_none_is_documented(bundle_folder: Path) -> None:
    document = create_app(ServingSettings(local_model_path=bundle_folder)).openapi()

    assert "securitySchemes" not in document["components"]
    for _, _, operation in operations(document):
        assert "security" not in operation
        assert not {"401", "429"} & set(operation["responses"])


def test_what_the_document_says_about_itself(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    assert document["info"]["title"] == "House price API"
    assert document["info"]["license"]["identifier"] == "Apache-2.0"
    used = {tag for _, _, operation in operations(document) for tag in operation["tags"]}
    assert used == {tag["name"] for tag in document["tags"]}
    assert all(operation["summary"] and operation["description"] for _, _, operation in operations(document))
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert names == [
        *("predict", "explain", "model_info", "model_releases", "model_evaluation", "model_monitoring"),
        *("nearest_block_groups", "health", "ready", "deep", "metrics", "service_info"),
    ]
