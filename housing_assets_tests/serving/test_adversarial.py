"""What no honest client sends: refused at once, in the one error shape, by a service that lives on."""

import gzip
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import given, settings
from hypothesis import strategies as st

from housing_assets_tests.serving.bundles import INSTANCE, bundle_files, write_files
from housing_assets_tests.serving.raw_http import (
    ONE,
    PREDICT,
    PRICE_OF_ONE,
    RawAnswer,
    connect,
    error_code,
    exchange,
    prediction_request,
    read_answer,
    request_head,
)
from housing_assets_tests.serving.test_process import log_lines, service, wait_for
from housing_serving.prediction import MAX_KEYS, parse
from housing_serving.settings import ServingSettings

ANSWER_SECONDS = 1.0
HUGE_BYTES = 100 * 1024 * 1024
INSTANCE_JSON = json.dumps(dict(INSTANCE))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One process for all: each attack finds it as the one before has left it."""
    folder = tmp_path_factory.mktemp("adversarial")
    bundle = write_files(folder / "bundle", bundle_files(kind="compiled", version=3))
    with pytest.MonkeyPatch.context() as environment:
        for name in ServingSettings.model_fields:
            environment.delenv(name.upper(), raising=False)
        running = service(folder, LOCAL_MODEL_PATH=str(bundle))
        with running as (address, process):
            wait_for(f"{address}/health/ready", 200, process)
            yield address
            assert process.poll() is None
    failures = [line for line in log_lines(folder) if line["severity"] in ("ERROR", "CRITICAL")]
    assert failures == []


def within_a_second(ask: Callable[[], RawAnswer]) -> RawAnswer:
    """The answer; the best of three counts, because another process may have the processor."""
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        answer = ask()
        seconds.append(time.monotonic() - started)
        if seconds[-1] < ANSWER_SECONDS:
            return answer
    raise AssertionError(f"answers took {seconds} seconds")


def assert_alive(url: str) -> None:
    answer = exchange(url, prediction_request(ONE))
    assert (answer.status, answer.json["predictions"][0]["predicted_price"]) == (200, PRICE_OF_ONE)


def with_value(name: str, value: str) -> bytes:
    """A request whose only instance has this JSON for a value."""
    values = {key: json.dumps(each) for key, each in INSTANCE.items()} | {name: value}
    pairs = ",".join(f'"{key}": {each}' for key, each in values.items())
    return f'{{"instances": [{{{pairs}}}]}}'.encode()


def doubled(dropped: str) -> bytes:
    """`instances` twice; the first, which JSON readers drop, is given."""
    return f'{{"instances": {dropped}, "instances": [{INSTANCE_JSON}]}}'.encode()


NUMBERS = {
    "NaN": "less_than_equal",
    "Infinity": "less_than_equal",
    "-Infinity": "greater_than_equal",
    "1e308": "less_than_equal",
    "-1e308": "greater_than_equal",
    "1e999": "less_than_equal",
    "-1e999": "greater_than_equal",
    "9" * 400: "less_than_equal",
    "9" * 100_000: "json_invalid",
    "-" + "9" * 100_000: "json_invalid",
    "0." + "1" * 5000: "greater_than_equal",
    "-0.0": "greater_than_equal",
    "5e-324": "greater_than_equal",
    "1e-999": "greater_than_equal",
    "true": "float_type",
    '"880"': "float_type",
    "null": "float_type",
    "[880]": "float_type",
    "{}": "float_type",
    "0880": "json_invalid",
    "+880": "json_invalid",
    "0x370": "json_invalid",
    "8_80": "json_invalid",
    "nan": "json_invalid",
    ".5e3": "json_invalid",
}
TEXTS = {
    "unknown": ('"MARS"', "unknown_category"),
    "colon": ('"NEAR: BAY"', "unknown_category"),
    "escaped colon": (r'"NEAR BAY\u003a"', "unknown_category"),
    "colons for keys": ('":::::::::"', "unknown_category"),
    "zero byte": (r'"NEAR BAY\u0000"', "unknown_category"),
    "raw zero byte": ('"NEAR BAY\x00"', "json_invalid"),
    "lone surrogate": (r'"\ud800"', "json_invalid"),
    "lone low surrogate": (r'"\udc00 NEAR BAY"', "json_invalid"),
    "surrogate pair": (r'"\ud83c\udfe0"', "unknown_category"),
    "long": (json.dumps("A" * 900_000), "unknown_category"),
    "number": ("5", "unknown_category"),
    "null": ("null", "unknown_category"),
}
STRUCTURES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "json_invalid"),
    "spaces": (b" " * 100_000, "json_invalid"),
    "zero bytes": (b"\x00" * 1000, "json_invalid"),
    "null": (b"null", "model_type"),
    "a list": (b"[]", "model_type"),
    "no instances": (b"{}", "missing"),
    "empty list": (b'{"instances": []}', "too_short"),
    "a list of lists": (b'{"instances": [[]]}', "model_type"),
    "two documents": (ONE + ONE, "json_invalid"),
    "cut off": (ONE[:-1], "json_invalid"),
    "comment": (ONE + b"// price?", "json_invalid"),
    "trailing comma": (ONE.replace(b"}]", b",}]"), "json_invalid"),
    "single quotes": (ONE.replace(b'"', b"'"), "json_invalid"),
    "arrays, deep": (b"[" * 100_000 + b"]" * 100_000, "json_invalid"),
    "arrays, deep and open": (b"[" * 100_000, "json_invalid"),
    "instances, deep": (b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "json_invalid"),
    "objects, deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_many_keys"),
    "objects, less deep": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "json_invalid"),
    "a colon flood": (b":" * 1_000_000, "too_many_keys"),
    "a long unknown key": (b'{"%s": 1}' % (b"k" * 900_000), "missing"),
    "many unknown keys": (
        b"{" + b",".join(b'"%d":0' % number for number in range(MAX_KEYS)) + b"}",
        "missing",
    ),
    "too many instances": (b'{"instances": [%s]}' % b",".join([b"{}"] * 300_000), "too_long"),
    "500,000 numbers": (b'{"instances": [%s]}' % b",".join([b"0"] * 500_000), "too_long"),
    "1000 empty instances": (b'{"instances": [%s]}' % b",".join([b"{}"] * 1000), "missing"),
    "UTF-8 with a mark": (b"\xef\xbb\xbf" + ONE, "json_invalid"),
    "UTF-16": (ONE.decode().encode("utf-16"), "json_invalid"),
    "UTF-16 without a mark": (ONE.decode().encode("utf-16-le"), "json_invalid"),
    "UTF-32": (ONE.decode().encode("utf-32"), "json_invalid"),
    "Latin-1": (ONE.replace(b"NEAR BAY", "NEAR BÄY".encode("latin-1")), "json_invalid"),
    "surrogate in UTF-8": (ONE.replace(b"NEAR", b"\xed\xa0\x80"), "json_invalid"),
    "overlong UTF-8": (ONE.replace(b"NEAR", b"\xc0\xae"), "json_invalid"),
    "gzip without saying so": (gzip.compress(ONE), "json_invalid"),
}
REPEATED = {
    "outermost": doubled("[]"),
    "the same twice": doubled(f"[{INSTANCE_JSON}]"),
    "of another type": doubled("null"),
    "dropped string": doubled('"a: {b: c}, instances: ["'),
    "dropped object": doubled('{"a": {"b": ":"}}'),
    "dropped numbers": doubled("[NaN, -Infinity, 1e999, 0.1]"),
    "dropped nesting": doubled("[" * 100 + "]" * 100),
    "many keys dropped": doubled(json.dumps(dict.fromkeys(range(MAX_KEYS - 20), 0))),
    "one key often": doubled("{" + ",".join(['"k":0'] * (MAX_KEYS - 20)) + "}"),
    "a long key": doubled('{"%s": 1}' % ("k" * 500_000)),
    "inside": b'{"instances": [%s]}' % INSTANCE_JSON.replace("{", '{"households": 1, ').encode(),
    "escaped": b'{"instances": [%s]}' % INSTANCE_JSON.replace("{", '{"\\u0068ouseholds": 1, ').encode(),
    "escaped, outermost": doubled("[]").replace(b"instances", rb"\u0069nstances", 1),
    "bedrooms, twice null": ONE.replace(b"{", b'{"total_bedrooms": null, ', 2).replace(
        b'{"total_bedrooms": null, ', b"{", 1
    ),
}


def first_problem(url: str, body: bytes) -> dict[str, Any]:
    answer = within_a_second(lambda: exchange(url, prediction_request(body)))
    assert (answer.status, error_code(answer)) == (422, "invalid_request"), answer.body[:500]
    assert len(answer.body) < 50_000
    problem: dict[str, Any] = answer.json["error"]["details"][0]
    return problem


@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: value[:12])
def test_impossible_numbers(url: str, value: str) -> None:
    assert first_problem(url, with_value("total_rooms", value))["type"] == NUMBERS[value]
    assert_alive(url)


@pytest.mark.parametrize("name", TEXTS)
def test_impossible_texts(url: str, name: str) -> None:
    value, expected = TEXTS[name]
    assert first_problem(url, with_value("ocean_proximity", value))["type"] == expected
    assert_alive(url)


@pytest.mark.parametrize("name", STRUCTURES)
def test_impossible_structures(url: str, name: str) -> None:
    body, expected = STRUCTURES[name]
    assert first_problem(url, body)["type"] == expected
    assert_alive(url)


@pytest.mark.parametrize("name", REPEATED)
def test_repeated_keys(url: str, name: str) -> None:
    problem = first_problem(url, REPEATED[name])
    assert (problem["type"], problem["field"]) == ("repeated_key", "body")
    assert len(problem["message"]) < 100
    assert_alive(url)


def test_unusual_numbers_in_range_are_priced(url: str) -> None:
    for name, value in [
        ("median_income", "5e-324"),
        ("median_income", "-0.0"),
        ("housing_median_age", "1e-999"),
        ("total_rooms", "8.80e+2"),
        ("total_rooms", "880." + "0" * 4000),
    ]:
        answer = exchange(url, prediction_request(with_value(name, value)))
        assert answer.status == 200, answer.body


class Headers(NamedTuple):
    name: str
    headers: dict[str, str]
    status: int


CONTENT_TYPES = [
    Headers("charset", {"content_type": "application/json; charset=utf-8"}, 200),
    Headers("upper case", {"content_type": "APPLICATION/JSON;CHARSET=UTF-8"}, 200),
    Headers("no coding", {"content_encoding": "identity"}, 200),
    # The body is UTF-8, whatever the header says: JSON between systems has no other encoding (RFC 8259).
    Headers("wrong charset", {"content_type": "application/json; charset=utf-16"}, 200),
    Headers("empty", {"content_type": ""}, 415),
    Headers("text", {"content_type": "text/plain"}, 415),
    Headers("another JSON", {"content_type": "application/vnd.api+json"}, 415),
    Headers("two", {"content_type": "application/json, text/plain"}, 415),
    Headers("form", {"content_type": "application/x-www-form-urlencoded"}, 415),
    Headers("multipart", {"content_type": "multipart/form-data; boundary=x"}, 415),
    Headers("gzip", {"content_encoding": "gzip"}, 415),
    Headers("not ASCII", {"content_type": "application/j\xe4son"}, 415),
]


@pytest.mark.parametrize("case", CONTENT_TYPES, ids=lambda case: case.name)
def test_content_types(url: str, case: Headers) -> None:
    answer = within_a_second(lambda: exchange(url, prediction_request(ONE, **case.headers)))

    assert answer.status == case.status
    if case.status == 415:
        assert error_code(answer) == "unsupported_media_type"
    assert_alive(url)


def test_no_content_type(url: str) -> None:
    answer = within_a_second(
        lambda: exchange(url, request_head(content_length=len(ONE)) + ONE),
    )
    assert (answer.status, error_code(answer)) == (415, "unsupported_media_type")


def send_until_answered(connection: socket.socket, pieces: Iterator[bytes]) -> int:
    """Send until something comes back or all is sent; returns the bytes that were sent."""
    sent = 0
    for piece in pieces:
        connection.sendall(piece)
        sent += len(piece)
        connection.setblocking(False)
        try:
            if connection.recv(1, socket.MSG_PEEK):
                break
        except BlockingIOError:
            pass
        finally:
            connection.setblocking(True)
    return sent


PIECE = b" " * 65_536


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_hundred_megabytes_are_refused_before_they_are_sent(url: str, chunked: bool) -> None:
    piece = b"%x\r\n%s\r\n" % (len(PIECE), PIECE) if chunked else PIECE
    length = {"transfer_encoding": "chunked"} if chunked else {"content_length": str(HUGE_BYTES)}
    sent = 0

    def ask() -> RawAnswer:
        nonlocal sent
        with connect(url) as connection:
            connection.sendall(request_head(content_type="application/json", **length))
            sent = send_until_answered(connection, (piece for _ in range(HUGE_BYTES // len(PIECE))))
            return read_answer(connection)

    answer = within_a_second(ask)

    assert (answer.status, error_code(answer)) == (413, "payload_too_large")
    assert sent < HUGE_BYTES / 2
    assert_alive(url)


def test_a_client_that_sends_all_of_it_reads_the_refusal_and_goes_on(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(request_head(content_type="application/json", content_length=HUGE_BYTES))
        for _ in range(HUGE_BYTES // len(PIECE)):
            connection.sendall(PIECE)
        assert read_answer(connection).status == 413
        connection.sendall(prediction_request(ONE))
        assert read_answer(connection).status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        prediction_request(ONE, content_length=-1),
        prediction_request(ONE, content_length="many"),
        prediction_request(ONE, content_length="1e3"),
        prediction_request(ONE, content_length="9" * 5000),
        prediction_request(ONE, content_length=str(2**64)),
        prediction_request(ONE).replace(b"\r\n\r\n", b"\r\ncontent-length: 1\r\n\r\n", 1),
        prediction_request(ONE, transfer_encoding="chunked"),
        prediction_request(b"zz\r\n\r\n", transfer_encoding="chunked").replace(b"content-length: 6\r\n", b""),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost service\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: service\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: service\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: service\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: service\r\nx: a\x00b\r\n\r\n",
        b"G\xc3\x84T / HTTP/1.1\r\nhost: service\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nhost: service\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=[
        "negative length", "a word for a length", "length with exponent", "length of 5000 digits",
        "length beyond 64 bits", "two lengths", "length and chunks", "chunk without length", "TLS",
        "no target", "header without colon", "HTTP 9.9", "zero byte in path", "raw byte in path",
        "zero byte in header",
        "method not ASCII", "CONNECT", "HTTP/2",
    ],
)  # fmt: skip
def test_what_is_not_http(url: str, request_bytes: bytes) -> None:
    answer = within_a_second(lambda: exchange(url, request_bytes))

    assert (answer.status, error_code(answer)) == (400, "invalid_http")
    assert answer.closes
    assert_alive(url)


def test_body_longer_than_declared_is_the_next_request_and_no_request(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(prediction_request(ONE))
        assert read_answer(connection).status == 200
        connection.sendall(b"surplus\r\n\r\n")
        answer = read_answer(connection)
        assert (answer.status, error_code(answer)) == (400, "invalid_http")
    assert_alive(url)


def test_body_shorter_than_declared_and_then_closed(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(prediction_request(ONE, content_length=len(ONE) + 1))
        connection.shutdown(socket.SHUT_WR)
        # Nobody can tell what was left out: there is no answer.
        assert connection.recv(1) == b""
    assert_alive(url)


def test_pipelined_requests_are_answered_in_order(url: str) -> None:
    requests = [prediction_request(ONE), prediction_request(b"{}"), request_head("GET", "/health")]
    requests += [request_head("GET", "/nothing"), prediction_request(ONE)] * 20
    with connect(url) as connection:
        connection.sendall(b"".join(requests))
        answers = [read_answer(connection) for _ in requests]
    assert [answer.status for answer in answers] == [200, 422, 200, *([404, 200] * 20)]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


def test_bytes_one_by_one(url: str) -> None:
    with connect(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in prediction_request(ONE):
            connection.sendall(bytes([byte]))
        assert read_answer(connection).json["predictions"][0]["predicted_price"] == PRICE_OF_ONE


@pytest.mark.parametrize(
    "request_bytes",
    [
        request_head("GET", "/health", x_padding="a" * 100_000),
        request_head("GET", "/health", **{f"x_{number}": "a" for number in range(5000)}),
        request_head("GET", f"/{'a' * 100_000}"),
        request_head("GET", f"/health?{'a=1&' * 25_000}"),
        request_head("GET", "/health", x_request_id="a" * 100_000),
        request_head("GET", "/health", cookie="a=b; " * 20_000),
    ],
    ids=["long header", "many headers", "long path", "long query", "long id", "cookies"],
)
def test_large_heads(url: str, request_bytes: bytes) -> None:
    answer = within_a_second(lambda: exchange(url, request_bytes))

    assert answer.status in (200, 400, 404, 414, 431)
    assert len(answer.headers.get("x-request-id", "")) <= 64
    assert_alive(url)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", PREDICT, 405),
        ("PUT", PREDICT, 405),
        ("TRACE", "/health", 405),
        ("OPTIONS", PREDICT, 405),
        ("HEAD", "/health", 405),
        ("POST", f"{PREDICT}/", 404),
        ("POST", PREDICT.upper(), 404),
        ("POST", f"/{PREDICT}", 404),
        ("GET", "/health/", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/health%00", 404),
        ("GET", "/%ff%fe", 404),
        ("GET", "/%0d%0aset-cookie:%20a=b", 404),
    ],
)
def test_other_methods_and_paths(url: str, method: str, target: str, status: int) -> None:
    with connect(url) as connection:
        connection.sendall(request_head(method, target))
        answer = read_answer(connection, method)

    assert answer.status == status
    if method != "HEAD":
        assert error_code(answer) == HTTPStatus(status).phrase.lower().replace(" ", "_")
    if status == 405:
        assert answer.headers["allow"]


def test_attacks_do_not_hold_up_others(url: str) -> None:
    """While the costliest bodies are refused over and over, a health check comes through."""
    bodies = [STRUCTURES[name][0] for name in ("many unknown keys", "too many instances", "500,000 numbers")]
    bodies += [REPEATED["many keys dropped"], REPEATED["one key often"]]
    over = threading.Event()
    refused: list[int] = []

    def attack(body: bytes) -> None:
        while not over.is_set():
            refused.append(exchange(url, prediction_request(body)).status)

    attackers = [threading.Thread(target=attack, args=[body]) for body in bodies]
    for attacker in attackers:
        attacker.start()
    try:
        for _ in range(10):
            within_a_second(lambda: exchange(url, request_head("GET", "/health")))
    finally:
        over.set()
        for attacker in attackers:
            attacker.join()
    assert set(refused) == {422}


class BodyWriter:
    """Writes requests near the edge between valid and not, each a new way for the same JSON."""

    SPACES = ("", "", "", " ", "\n", "\t\r ")
    JUNK = (
        "null",
        "true",
        "0",
        "-1.5e3",
        "NaN",
        '""',
        '":"',
        '"\\":\\u003a"',
        '"a\\\\"',
        "[]",
        '[{":": ":"}]',
    )

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def body(self) -> str:
        """A request of one or two instances."""
        instances = [self.instance() for _ in range(self.random.randint(1, 2))]
        return self.object({"instances": f"[{','.join(instances)}]"})

    def instance(self) -> str:
        """A right instance, with or without bedrooms, but for keys that come again."""
        values = {name: json.dumps(value) for name, value in INSTANCE.items()}
        values["ocean_proximity"] = self.text(self.random.choice(("NEAR BAY", " inland ", "<1h ocean")))
        match self.random.randrange(3):
            case 0:
                del values["total_bedrooms"]
            case 1:
                values["total_bedrooms"] = "null"
        return self.object(values)

    def object(self, values: dict[str, str]) -> str:
        """The values in any order, now and then with a key again that has any value."""
        pairs = [self.pair(name, value) for name, value in values.items()]
        if self.random.random() < 0.2:
            name = self.random.choice(list(values))
            pairs.append(self.pair(name, self.random.choice((values[name], *self.JUNK))))
        self.random.shuffle(pairs)
        return "{" + ",".join(pairs) + "}"

    def pair(self, name: str, value: str) -> str:
        return "".join((self.space(), self.text(name), self.space(), ":", self.space(), value, self.space()))

    def space(self) -> str:
        return self.random.choice(self.SPACES)

    def text(self, text: str) -> str:
        """A string, some of its characters escaped."""
        share = self.random.choice((0.0, 0.1, 1.0))
        escapes = (f"\\u{ord(char):04x}" if self.random.random() < share else char for char in text)
        return f'"{"".join(escapes)}"'


def repeats_a_key(body: bytes) -> bool:
    """Found by a JSON reader that shows every pair."""
    found = False

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        found |= len(dict(pairs)) < len(pairs)
        return dict(pairs)

    json.loads(body, object_pairs_hook=note)
    return found


def test_repeated_keys_are_found_exactly() -> None:
    """Counting colons must agree with reading: no valid request is refused, no repeated key passes."""
    outcomes = {"accepted": 0, "repeated": 0, "invalid": 0}

    @settings(max_examples=5000, derandomize=True, database=None, deadline=None)
    @given(st.integers(0, 2**64))
    def compare(seed: int) -> None:
        body = BodyWriter(seed).body().encode()
        try:
            request = parse(body)
        except RequestValidationError as error:
            # Every value is right but for those of keys that come again.
            assert repeats_a_key(body)
            found = error.errors()[0]["type"] == "repeated_key"
            outcomes["repeated" if found else "invalid"] += 1
        else:
            outcomes["accepted"] += 1
            assert not repeats_a_key(body)
            as_read = json.loads(body)["instances"]
            assert [instance.median_income for instance in request.instances] == [
                instance["median_income"] for instance in as_read
            ]

    compare()
    assert min(outcomes.values()) > 50, outcomes


def test_the_colons_of_the_largest_request_are_few_enough() -> None:
    body = b'{"instances": [%s]}' % b",".join([INSTANCE_JSON.encode()] * 1000)
    assert len(parse(body).instances) == 1000
    assert body.count(b":") < MAX_KEYS / 2


def test_log_of_the_attacks_is_json(tmp_path: Path) -> None:
    """No header or path breaks a log line."""
    with service(tmp_path, HOUSING_HOME=str(tmp_path / "home")) as (address, process):
        wait_for(f"{address}/health", 200, process)
        for target in ("/%0a%7b%22severity%22:%22ERROR%22%7d", "/%1b[31m", "/%e2%80%a8", "/%ff"):
            exchange(address, request_head("GET", target, x_request_id='"\t{'))
        # Lines are written together, the last ones at the end.
        process.terminate()
        process.wait(timeout=30)
    # Not `splitlines`, which knows more ends of lines than a log collector.
    written = (tmp_path / "service.log").read_text().rstrip("\n").split("\n")
    lines = [line for line in map(json.loads, written) if line["message"] == "request"]
    assert len(lines) == 4
    assert {line["severity"] for line in lines} == {"INFO"}
