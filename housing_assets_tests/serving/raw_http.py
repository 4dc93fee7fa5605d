"""Requests as bytes on a socket, for what no HTTP client would send."""

import http.client
import io
import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from housing_assets_tests.serving.bundles import INSTANCE
from housing_serving.error_body import ErrorResponse

PREDICT = "/api/v1/predict"
# A hang must fail the test, not the build.
PATIENCE_SECONDS = 30.0
ONE = json.dumps({"instances": [dict(INSTANCE)]}).encode()
PRICE_OF_ONE = 300_000


@dataclass(frozen=True)
class RawAnswer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


def address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def connect(url: str) -> socket.socket:
    return socket.create_connection(address_of(url), timeout=PATIENCE_SECONDS)


def request_head(method: str = "POST", target: str = PREDICT, **headers: str | int) -> bytes:
    """The request line and the headers, `content_type="…"` as `content-type: …`."""
    lines = [f"{method} {target} HTTP/1.1", "host: service"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def prediction_request(body: bytes, **headers: str | int) -> bytes:
    """A complete request with a JSON body."""
    complete = {"content_type": "application/json", "content_length": len(body)} | headers
    return request_head(**complete) + body


def read_answer(connection: socket.socket, method: str = "POST") -> RawAnswer:
    """The next answer, and nothing of one that follows it.

    Raises:
        ConnectionError: the server closed the connection before the answer was complete.
    """
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += _received(connection, 1)
    status_line, _, lines = head.partition(b"\r\n")
    headers = http.client.parse_headers(io.BytesIO(lines))
    length = 0 if method == "HEAD" else int(headers["content-length"])
    return RawAnswer(int(status_line.split()[1]), headers, _received(connection, length))


def _received(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionError(f"closed after {len(data)} of {count} bytes")
        data += piece
    return bytes(data)


def exchange(url: str, request: bytes) -> RawAnswer:
    """The answer to one request on a connection of its own."""
    with connect(url) as connection:
        connection.sendall(request)
        return read_answer(connection)


def error_code(answer: RawAnswer) -> str:
    """The code of an error, which must have the one shape."""
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json) - {"request_id"} == {"error"}
    error = ErrorResponse.model_validate_json(answer.body)
    assert error.request_id == answer.headers.get("x-request-id")
    assert "Traceback" not in error.error.message
    return error.error.code
