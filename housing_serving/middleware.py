"""What surrounds every request: its id, its log line and metrics, and the last line of defence."""

import logging
import random
import re
import time
from collections.abc import Iterable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from housing_serving.errors import REQUEST_ID, internal_error
from housing_serving.metrics import UNMATCHED
from housing_serving.service import Service

logger = logging.getLogger(__name__)

# `time.perf_counter` when the request arrived.
STARTED = "housing_serving.started"
# What a caller may send as an id: enough for every tracing system, nothing that could forge a log line.
_CALLERS_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Probes and scrapes come every few seconds and say nothing.
_QUIET = ("/health", "/metrics")
# The status that proxies log for a caller who went away; nothing is sent.
CLIENT_CLOSED_REQUEST = 499

# For browsers: an answer is data of its declared type, belongs into no frame and no cache, and loads nothing.
_SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
_NOTHING_ALLOWED = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Surroundings:
    """Gives each request an id, counts and logs it, and turns what nobody caught into the error shape."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service
        self.metrics = service.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = scope[REQUEST_ID] = _request_id(scope["headers"])
        started = scope[STARTED] = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"] = list(message["headers"])
                headers += _SECURITY_HEADERS
                headers.append((b"x-request-id", request_id.encode()))
                if not any(name == b"content-security-policy" for name, _ in headers):
                    headers.append(_NOTHING_ALLOWED)
                if self.service.draining:
                    headers.append((b"connection", b"close"))
            await send(message)

        self.metrics.request_started()
        try:
            await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = CLIENT_CLOSED_REQUEST
        except Exception:
            logger.exception("request failed", extra={"request_id": request_id})
            if status:  # the answer has begun: only the server can still break the connection off
                raise
            await internal_error(scope)(scope, receive, send_with_headers)
        finally:
            seconds = time.perf_counter() - started
            self.metrics.request_finished(scope["method"], _route(scope), status, seconds)
            if not scope["path"].startswith(_QUIET):
                self.service.request_lines.add(
                    request_id=request_id,
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    milliseconds=round(seconds * 1000, 2),
                )


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    callers = next((value.decode("latin-1") for name, value in headers if name == b"x-request-id"), None)
    if callers and _CALLERS_ID.fullmatch(callers):
        return callers
    # Unique, not secret: the system's generator costs a system call.
    return f"{random.getrandbits(128):032x}"


def _route(scope: Scope) -> str:
    # The router leaves the route it chose; a path of the caller's making must not become a label.
    return getattr(scope.get("route"), "path", UNMATCHED)
