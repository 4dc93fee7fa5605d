"""What surrounds every request: its id, its log line, the limit on its body, the last line of defence."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from housing_serving.errors import REQUEST_ID, PayloadTooLarge, error_response, internal_error

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Request-ID"
# What a caller may send as an id: enough for every tracing system, nothing that could forge a log line.
_CALLERS_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestLog:
    """Gives each request an id, logs it, and turns what nobody caught into the error shape."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = scope[REQUEST_ID] = _request_id(Headers(scope=scope).get(REQUEST_ID_HEADER))
        started, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            logger.exception("request failed", extra={"request_id": request_id})
            if status:  # the answer has begun: only the server can still break the connection off
                raise
            await internal_error(scope)(scope, receive, send_with_id)
        finally:
            logger.log(
                # Probes come every few seconds and say nothing.
                logging.DEBUG if scope["path"].startswith("/health") else logging.INFO,
                "request",
                extra={
                    "request_id": request_id,
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "milliseconds": round((time.perf_counter() - started) * 1000, 2),
                },
            )


class BodyLimit:
    """Refuses a request body above a limit, by its declared length or while it arrives."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self.limit:
            refusal = PayloadTooLarge(self.limit)
            response = error_response(scope, refusal.status_code, refusal.code, refusal.detail)
            await response(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise PayloadTooLarge(self.limit)
            return message

        await self.app(scope, receive_limited, send)


def _request_id(callers: str | None) -> str:
    return callers if callers and _CALLERS_ID.fullmatch(callers) else uuid.uuid4().hex
