"""The examples of README and the documentation, run against a service, and facts stated beside them."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from housing_assets_tests.documented import ADDRESS, ROOT, blocks
from housing_assets_tests.serving.running_service import RunningService, running_service
from housing_assets_tests.system_programs import require
from housing_serving.app import create_app
from housing_serving.features import NUMERIC_FEATURES
from housing_serving.settings import ServingSettings

API_PAGE = ROOT / "docs" / "api.md"
# What runs each language, as a program read from standard input.
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "bash": ("bash", "-euo", "pipefail"),
    "python": (sys.executable, "-"),
    "javascript": ("node", "--input-type=module"),
}
# The small bundle: 300,000, and 1,000 more because unknown bedrooms are estimated above two a household.
PRICE = re.compile(r"\b301000(\.0)?\b")
TIMEOUT_SECONDS = 60


def examples() -> list[tuple[str, str, str]]:
    """Page, language and text of every block that calls the service."""
    return [
        (block.page, block.language, block.text)
        for block in blocks(*PROGRAMS)
        if ADDRESS in block.text and not block.needs_account
    ]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service without keys, as the examples assume."""
    with running_service(tmp_path_factory.mktemp("examples")) as started:
        yield started


def run(service: RunningService, language: str, text: str) -> "subprocess.CompletedProcess[str]":
    require("curl" if language == "bash" else PROGRAMS[language][0])
    return subprocess.run(
        PROGRAMS[language],
        input=text.replace(ADDRESS, service.url),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def test_the_api_page_has_an_example_in_each_language() -> None:
    assert {language for page, language, _ in examples() if page == "docs/api.md"} == set(PROGRAMS)


@pytest.mark.parametrize(
    ("page", "language", "text"),
    [pytest.param(*example, id=f"{example[0]}-{number}") for number, example in enumerate(examples())],
)
def test_examples_work_as_they_stand(service: RunningService, page: str, language: str, text: str) -> None:
    done = run(service, language, text)

    assert done.returncode == 0, done.stderr
    if "/predict" in text:
        assert PRICE.search(done.stdout), done.stdout
    else:
        assert '"model_version":"3"' in done.stdout


@pytest.mark.parametrize(("language", "wrong"), [("python", "422"), ("javascript", "invalid_request")])
def test_examples_fail_when_the_service_refuses(service: RunningService, language: str, wrong: str) -> None:
    (text,) = (text for page, kind, text in examples() if (page, kind) == ("docs/api.md", language))

    done = run(service, language, text.replace("37.88", "-37.88"))

    assert done.returncode != 0
    assert wrong in done.stderr
    assert done.stdout == ""


def test_the_page_names_every_route_and_error_code() -> None:
    text = API_PAGE.read_text()
    protected = ServingSettings(
        housing_api_keys=SecretStr("k3y-0123456789abcdef"), housing_rate_limit="1/hour"
    )
    document = create_app(protected).openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            # What may follow the path is the query.
            assert re.search(rf"`{method.upper()} {re.escape(path)}[`?]", text), path
            for status, response in operation["responses"].items():
                for code in response["content"].get("application/json", {}).get("examples", {}):
                    assert f"| {status} | `{code}` |" in text


def test_the_page_names_every_metric_and_no_other(client: TestClient) -> None:
    families = set(re.findall(r"^# HELP (housing_\w+) ", client.get("/metrics").text, re.MULTILINE))
    families -= {f"housing_feature_{name}" for name in NUMERIC_FEATURES}

    assert set(re.findall(r"`(housing_\w+)`", API_PAGE.read_text())) == families
