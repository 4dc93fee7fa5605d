"""Who may call and how often: keys, rate limits, origins, and what every kind of answer carries."""

import hmac
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import requests
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr, ValidationError
from starlette.routing import Route

from housing_assets_tests.serving.bundles import INSTANCE
from housing_assets_tests.serving.running_service import RunningService, running_service
from housing_serving import docs_page, routes
from housing_serving.app import create_app
from housing_serving.bundle import Bundle
from housing_serving.rate_limit import RateLimit
from housing_serving.settings import ServingSettings

PREDICT = "/api/v1/predict"
BODY = {"instances": [INSTANCE]}
KEY = "first-0123456789abcdef"
OTHER_KEY = "other-fedcba9876543210"
KEYS = f" {KEY} ,{OTHER_KEY},"
ORIGIN = "https://app.example.org"
WITHOUT_KEY = {
    *("/", "/health", "/health/ready", "/openapi.json", "/docs"),
    *("/docs/start.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/favicon.png"),
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "STRANGE")

Start = Callable[..., TestClient]


@pytest.fixture
def start(bundle_folder: Path) -> Iterator[Start]:
    """Starts the service with these settings."""
    started: list[TestClient] = []

    def start(client: tuple[str, int] = ("192.0.2.1", 50_000), **settings: Any) -> TestClient:
        app = create_app(ServingSettings(local_model_path=bundle_folder, **settings))
        started.append(TestClient(app, client=client))
        started[-1].__enter__()
        return started[-1]

    yield start
    for client in started:
        client.__exit__(None, None, None)


def app_of(client: TestClient) -> FastAPI:
    assert isinstance(client.app, FastAPI)
    return client.app


@pytest.fixture
def guarded(start: Start) -> TestClient:
    """A service that asks for keys."""
    return start(housing_api_keys=SecretStr(KEYS))


def test_nothing_is_installed_unless_it_is_set(start: Start) -> None:
    client = start()

    assert len(app_of(client).user_middleware) == 1
    answer = client.post(PREDICT, json=BODY, headers={"Origin": ORIGIN})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith(("ratelimit", "access-control"))]


def test_an_unused_rate_limit_is_not_even_loaded() -> None:
    program = "import sys, housing_serving.app; sys.exit('limits' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# ---- keys


def every_path() -> list[str]:
    """The path of every route, and of some that are none."""
    routers = (routes.direct, routes.router, docs_page.router)
    found = {route.path for router in routers for route in router.routes if isinstance(route, Route)}
    found -= {"/docs/{name}"}
    return sorted(
        found
        | WITHOUT_KEY
        | {
            "/nothing",
            "/health/",
            "/health/deep/",
            "//",
            "/Docs",
            "/metrics/",
            "/openapi.json/",
        }
    )


def test_the_matrix_covers_every_router(guarded: TestClient) -> None:
    # The three routers and the OpenAPI document.
    assert len(app_of(guarded).routes) == 4
    assert len(set(every_path()) & WITHOUT_KEY) == len(WITHOUT_KEY)


@pytest.mark.parametrize("path", every_path())
def test_each_path_and_method_is_refused_without_a_key_and_answered_with_it(
    guarded: TestClient, path: str
) -> None:
    public = path in WITHOUT_KEY or path.startswith("/docs/")
    for method in METHODS:
        body = BODY if (method, path) == ("POST", PREDICT) else None
        without, wrong, right = (
            guarded.request(method, httpx.URL(f"http://testserver{path}"), json=body, headers=headers)
            for headers in ({}, {"X-API-Key": "x" * 32}, {"X-API-Key": KEY})
        )

        assert right.status_code != 401
        if public:
            assert without.status_code == wrong.status_code == right.status_code, method
            continue
        for refused in (without, wrong):
            assert refused.status_code == 401, method
            assert refused.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                assert refused.json()["error"]["code"] == "unauthorized"
                assert refused.json()["request_id"] == refused.headers["x-request-id"]


def test_what_is_answered_with_a_key_is_a_price(guarded: TestClient) -> None:
    answer = guarded.post(PREDICT, json=BODY, headers={"X-API-Key": KEY})

    assert answer.json()["predictions"][0]["predicted_price"] == 300_000


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY},
        {"x-api-key": OTHER_KEY},
        {"X-API-Key": f" {KEY} "},
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {OTHER_KEY}"},
        {"X-API-Key": "wrong", "Authorization": f"Bearer {KEY}"},
        {"X-API-Key": KEY, "Authorization": "Bearer wrong"},
    ],
)
def test_ways_to_send_a_key(guarded: TestClient, headers: dict[str, str]) -> None:
    assert guarded.get("/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "0"},
        {"X-API-Key": KEY.upper()},
        {"X-API-Key": KEYS},
        {"X-API-Key": f"{KEY},{OTHER_KEY}"},
        {"X-API-Key": "clé-0123456789abcdef".encode()},
        {"X-API-Key": b"\xff\xfe" * 20},
        {"Authorization": KEY},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": b"Bearer \xc3\xa9\xff"},
        {"Api-Key": KEY},
        {"Cookie": f"X-API-Key={KEY}"},
    ],
)
def test_what_is_no_key(guarded: TestClient, headers: dict[str, str | bytes]) -> None:
    answer = guarded.get(f"/metrics?X-API-Key={KEY}", headers=headers)

    assert answer.status_code == 401
    assert KEY not in answer.text


@pytest.mark.parametrize("presented", [KEY, OTHER_KEY, "wrong", ""])
def test_every_key_is_compared_in_constant_time(
    guarded: TestClient, monkeypatch: pytest.MonkeyPatch, presented: str
) -> None:
    compared: list[tuple[object, object]] = []
    compare = hmac.compare_digest

    def noting(one: bytes, two: bytes) -> bool:
        compared.append((one, two))
        return compare(one, two)

    monkeypatch.setattr(hmac, "compare_digest", noting)
    guarded.get("/metrics", headers={"X-API-Key": presented})

    # Neither the first match nor the shape of what was sent ends it early.
    assert compared == [(presented.encode(), KEY.encode()), (presented.encode(), OTHER_KEY.encode())]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("short", "key 1 is shorter than 16 characters"),
        (f"{KEY},fifteen-letters", "key 2 is shorter than 16 characters"),
        ("your-api-key-goes-here", "key 1 is a placeholder"),
        ("<put your key here>", "key 1 is a placeholder"),
        ("CHANGEME-changeme-changeme", "key 1 is a placeholder"),
        ("xxxxxxxxxxxxxxxxxxxxxxxx", "key 1 is a placeholder"),
        ("two words 0123456789", "key 1 has characters other than ASCII"),
        ("schlüssel-0123456789", "key 1 has characters other than ASCII"),
        (" , ", "holds no key"),
    ],
)
def test_keys_that_protect_nothing_are_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, keys: str, problem: str
) -> None:
    monkeypatch.setenv("HOUSING_API_KEYS", keys)

    with pytest.raises(ValidationError) as raised:
        ServingSettings.load()

    assert problem in str(raised.value)
    assert "housing_api_keys" in str(raised.value)
    assert KEY not in str(raised.value)
    assert "fifteen" not in str(raised.value)


# ---- rate limit


def test_requests_beyond_the_limit_are_refused_with_when_to_come_back(start: Start) -> None:
    client = start(housing_rate_limit="3/hour")

    answers = [client.post(PREDICT, json=BODY) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0", "0"]
    for answer in answers:
        assert answer.headers["ratelimit-limit"] == "3"
        assert 3500 < int(answer.headers["ratelimit-reset"]) <= 3600
    refused = answers[-1]
    assert refused.json()["error"]["code"] == "too_many_requests"
    assert refused.json()["request_id"] == refused.headers["x-request-id"]
    assert refused.headers["retry-after"] == refused.headers["ratelimit-reset"]
    assert f"try again in {refused.headers['retry-after']} s" in refused.json()["error"]["message"]


def test_the_limit_is_one_for_all_counted_routes_and_none_for_probes_and_scrapes(start: Start) -> None:
    client = start(housing_rate_limit="2/hour")

    counted = [client.get(path).status_code for path in ("/", "/nothing", "/api/v1/model/info", "/docs")]
    exempt = [
        client.get(path)
        for path in ("/health", "/health/ready", "/health/deep", "/metrics")
        for _ in range(5)
    ]

    assert counted == [200, 404, 429, 429]
    assert client.post(PREDICT, json=BODY).status_code == 429
    assert {answer.status_code for answer in exempt} == {200}
    assert not any("ratelimit-limit" in answer.headers for answer in exempt)


def test_each_key_has_its_own_limit_and_wrong_ones_count_against_their_address(start: Start) -> None:
    client = start(housing_rate_limit="2/hour", housing_api_keys=SecretStr(KEYS))

    def statuses(key: str, count: int) -> list[int]:
        return [
            client.get("/api/v1/model/info", headers={"X-API-Key": key}).status_code for _ in range(count)
        ]

    assert statuses("wrong", 2) + statuses("guess", 2) == [401, 401, 429, 429]
    assert statuses(KEY, 3) == [200, 200, 429]
    assert statuses(OTHER_KEY, 3) == [200, 200, 429]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("not:an:address", "not:an:address", True),
        ("not:an:address", "nor:this", False),
    ],
)
def test_which_addresses_are_one_caller(start: Start, first: str, second: str, same: bool) -> None:
    client = start(housing_rate_limit="1/hour", client=(first, 1))
    neighbour = TestClient(client.app, client=(second, 2))

    assert client.get("/").status_code == 200
    assert neighbour.get("/").status_code == (429 if same else 200)


def test_requests_without_an_address_are_one_caller(start: Start) -> None:
    client = start(housing_rate_limit="1/hour")
    # As behind a Unix socket.
    local = TestClient(client.app, client=cast(Any, None))

    assert [local.get("/").status_code for _ in range(2)] == [200, 429]


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the rate limit."""
    clock = Clock()
    monkeypatch.setattr("housing_serving.rate_limit.time", clock)
    return clock


def test_a_window_ends_and_refused_requests_do_not_prolong_it(clock: Clock) -> None:
    limit = RateLimit("2/minute")
    assert [limit.request("a").allowed for _ in range(20)] == [True, True] + [False] * 18

    clock.now += 59.9
    standing = limit.request("a")
    assert (standing.allowed, standing.limit, standing.remaining) == (False, 2, 0)
    assert standing.reset_seconds == pytest.approx(0.1)

    clock.now += 0.1
    assert [limit.request("a").allowed for _ in range(3)] == [True, True, False]


def test_of_several_limits_the_nearest_is_shown_and_refused_requests_use_up_none(clock: Clock) -> None:
    limit = RateLimit("2/second;5/hour")

    first, second, third = (limit.request("a") for _ in range(3))
    assert (first.limit, first.remaining) == (2, 1)
    assert (second.limit, second.remaining) == (2, 0)
    assert (third.allowed, third.reset_seconds) == (False, 1.0)

    for _ in range(100):
        limit.request("a")
    clock.now += 1
    assert [limit.request("a").allowed for _ in range(3)] == [True, True, False]
    clock.now += 1
    assert [limit.request("a").allowed for _ in range(2)] == [True, False]
    used_up = limit.request("a")
    assert (used_up.limit, used_up.remaining, used_up.reset_seconds) == (5, 0, 3598.0)


def test_many_callers_take_bounded_memory_and_the_quietest_is_forgotten_first(clock: Clock) -> None:
    limit = RateLimit("3/hour", max_windows=1_000)
    limit.request("busy")
    limit.request("quiet")

    for number in range(20_000):
        limit.request(f"caller {number}")
        if number % 500 == 0:
            limit.request("busy")

    assert not limit.request("busy").allowed
    assert limit.request("quiet").remaining == 2
    assert limit._windows.storage.reset() == 1_000


@pytest.mark.parametrize("text", ["100", "often", "0/minute", "10/fortnight", "-1/minute", "1/minute;", " "])
def test_an_unreadable_rate_limit_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HOUSING_RATE_LIMIT", text)

    with pytest.raises(ValidationError, match="housing_rate_limit") as raised:
        ServingSettings.load()

    assert f"holds {text!r}: set it as in 100/minute or 10/second;1000/hour" in str(raised.value)


@pytest.mark.parametrize("text", ["100/minute", "10/second;1000/hour", "5 per minute", "20/5 minutes"])
def test_readable_rate_limits(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HOUSING_RATE_LIMIT", text)

    assert RateLimit(ServingSettings.load().housing_rate_limit or "").request("a").allowed


# ---- web pages of other origins


def preflight(client: TestClient, origin: str, method: str = "POST", headers: str = "") -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        asked["Access-Control-Request-Headers"] = headers
    answer: httpx.Response = client.options(PREDICT, headers=asked)
    return answer


@pytest.fixture
def shared(start: Start) -> TestClient:
    """A service with keys that two origins may use, twice an hour."""
    return start(
        housing_api_keys=SecretStr(KEYS),
        housing_cors_origins=f"{ORIGIN}, http://localhost:3000",
        housing_rate_limit="2/hour",
    )


@pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:3000"])
def test_a_page_of_a_listed_origin_may_ask_and_preflights_need_no_key(
    shared: TestClient, origin: str
) -> None:
    asked = preflight(shared, origin, headers="authorization,content-type,x-api-key,x-request-id")
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == origin
    assert asked.headers["access-control-allow-methods"] == "GET, POST"
    assert "access-control-allow-credentials" not in asked.headers

    priced = shared.post(PREDICT, json=BODY, headers={"Origin": origin, "X-API-Key": KEY})
    assert priced.status_code == 200
    assert priced.headers["access-control-allow-origin"] == origin
    assert "X-Request-ID" in priced.headers["access-control-expose-headers"]
    assert "Origin" in priced.headers["vary"]


@pytest.mark.parametrize(
    ("origin", "method", "headers"),
    [
        ("https://elsewhere.example.org", "POST", ""),
        (f"{ORIGIN}.evil.example", "POST", ""),
        ("http://app.example.org", "POST", ""),
        ("null", "POST", ""),
        (ORIGIN, "DELETE", ""),
        (ORIGIN, "POST", "x-surprise"),
    ],
)
def test_preflights_that_fail_say_so_in_the_one_shape(
    shared: TestClient, origin: str, method: str, headers: str
) -> None:
    refused = preflight(shared, origin, method, headers)

    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    assert refused.json()["error"]["code"] == "cors_refused"
    assert "Origin" in refused.headers["vary"]


def test_a_page_of_another_origin_cannot_read_answers(shared: TestClient) -> None:
    answer = shared.get("/", headers={"Origin": "https://elsewhere.example.org"})

    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


def test_refusals_can_be_read_by_the_page_that_asked(shared: TestClient) -> None:
    answers = [shared.post(PREDICT, json=BODY, headers={"Origin": ORIGIN}) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert {answer.headers["access-control-allow-origin"] for answer in answers} == {ORIGIN}
    assert "Retry-After" in answers[-1].headers["access-control-expose-headers"]


def test_every_origin_is_allowed_only_where_that_is_written(start: Start) -> None:
    client = start(housing_cors_origins="*")

    assert preflight(client, "https://anywhere.example").headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "origins",
    [
        *(
            "app.example.org",
            f"{ORIGIN}/",
            f"{ORIGIN}/page",
            "https://*.example.org",
            "https://App.example.org",
        ),
        *(f"{ORIGIN};http://b.example", "null", ","),
    ],
)
def test_origins_that_no_browser_sends_are_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, origins: str
) -> None:
    monkeypatch.setenv("HOUSING_CORS_ORIGINS", origins)

    with pytest.raises(ValidationError, match="set origins as in https://app"):
        ServingSettings.load()


# ---- what every answer carries


def test_every_kind_of_answer_carries_the_security_headers_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start(
        housing_api_keys=SecretStr(KEYS), housing_cors_origins=ORIGIN, housing_rate_limit="100/hour"
    )
    key = {"X-API-Key": KEY}

    def defect(*_: object) -> None:
        raise RuntimeError

    answers = [
        client.post(PREDICT, json=BODY, headers=key),
        client.get("/docs"),
        client.get("/docs/swagger-ui.css"),
        preflight(client, ORIGIN),
        preflight(client, "https://elsewhere.example"),
        client.post(PREDICT, json=BODY),
        client.get("/nothing", headers=key),
        client.delete(PREDICT, headers=key),
        client.post(PREDICT, content=b" " * 2_000_000, headers=key | {"Content-Type": "application/json"}),
        client.post(PREDICT, content="text", headers=key),
        client.post(PREDICT, json={}, headers=key),
    ]
    monkeypatch.setattr(Bundle, "predict", defect)
    answers.append(client.post(PREDICT, json=BODY, headers=key))
    monkeypatch.setattr(app_of(client).state.service.slot, "model", None)
    answers.append(client.post(PREDICT, json=BODY, headers=key))
    while client.get("/", headers=key).status_code == 200:
        pass
    answers.append(client.get("/", headers=key))

    statuses = [200, 200, 200, 200, 400, 401, 404, 405, 413, 415, 422, 500, 503, 429]
    assert [answer.status_code for answer in answers] == statuses
    for answer in answers:
        for name, value in {
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
        }.items():
            assert answer.headers.get_list(name) == [value], answer.status_code
        assert len(answer.headers.get_list("x-request-id")) == 1
        policies = answer.headers.get_list("content-security-policy")
        assert len(policies) == 1
        assert "default-src 'none'" in policies[0]
        assert "frame-ancestors 'none'" in policies[0]
    for answer in answers[4:]:
        assert set(answer.json()) <= {"error", "request_id"}


# ---- as operators run it


@pytest.fixture(scope="module")
def guarded_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A process with keys and a limit on requests without one."""
    folder = tmp_path_factory.mktemp("guarded")
    with running_service(folder, HOUSING_API_KEYS=KEYS, HOUSING_RATE_LIMIT="5/hour") as started:
        yield started


def test_keys_never_reach_the_log_and_refusals_do(guarded_service: RunningService) -> None:
    url = f"{guarded_service.url}/metrics"
    for headers in (
        {"X-API-Key": KEY},
        {"Authorization": f"Bearer {OTHER_KEY}"},
        {"X-API-Key": "guess-0123456789abcdef"},
        {"X-API-Key": b"\xc3\xa9\xff\x80"},
    ):
        assert requests.get(url, headers=headers, timeout=30).status_code in (200, 401)
    refused = requests.post(f"{guarded_service.url}{PREDICT}", json=BODY, timeout=30)
    assert (refused.status_code, refused.headers["x-frame-options"]) == (401, "DENY")

    # The line is written after the answer.
    deadline = time.monotonic() + 30
    while refused.headers["x-request-id"] not in (text := guarded_service.log.read_text()):
        assert time.monotonic() < deadline
    for secret in (KEY, OTHER_KEY, "guess-0123456789abcdef"):
        assert secret not in text
    lines = [json.loads(line) for line in text.splitlines()]
    (line,) = (line for line in lines if line.get("request_id") == refused.headers["x-request-id"])
    assert (line["path"], line["status"]) == (PREDICT, 401)
    metrics = requests.get(url, headers={"X-API-Key": KEY}, timeout=30).text
    assert 'status="401"' in metrics


@pytest.mark.parametrize(("trusted", "statuses"), [("127.0.0.1", [200, 200]), ("10.0.0.1", [200, 429])])
def test_the_caller_is_whom_a_trusted_proxy_names(tmp_path: Path, trusted: str, statuses: list[int]) -> None:
    with running_service(tmp_path, HOUSING_RATE_LIMIT="1/hour", FORWARDED_ALLOW_IPS=trusted) as started:
        answers = [
            requests.get(started.url, headers={"X-Forwarded-For": address}, timeout=30).status_code
            for address in ("192.0.2.1", "192.0.2.2")
        ]

    assert answers == statuses


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        (
            "HOUSING_API_KEYS",
            "hunter2",
            "key 1 is shorter than 16 characters: set one from `openssl rand -hex 32`",
        ),
        ("HOUSING_RATE_LIMIT", "a lot", "holds 'a lot': set it as in 100/minute or 10/second;1000/hour"),
        ("HOUSING_CORS_ORIGINS", "here", "holds 'here': set origins as in https://app.example.org"),
    ],
)
def test_unusable_settings_end_the_process_with_what_to_set(
    tmp_path: Path, variable: str, value: str, problem: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "housing_serving"],
        env=os.environ | {variable: value},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert f"The service cannot start:\n  {variable} {problem}" in ended.stderr
    assert "hunter2" not in ended.stderr
