"""Connections: uvicorn's, with an end to those that it would keep open for ever.

A request that never begins or stops in the middle of its headers, and a client that does not read its
answers, would each hold a connection and its file descriptor for as long as the client likes.
"""

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from housing_serving.batching import RequestsInProgress
from housing_serving.errors import error_response

# From the first byte of a request to its last; a body has less, and gets an answer.
REQUEST_SECONDS = 20.0
# For a client to make room by reading what it was sent.
SEND_SECONDS = 30.0


class _OneWrite:
    """A transport that sends what is written in one turn of the event loop with one system call.

    uvicorn writes the head of an answer and its body one after the other, and a system call is a tenth of
    what a small answer costs.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Keep it until there is more, the answer is complete or the turn is over."""
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)

    def flush(self) -> None:
        """Send what is kept."""
        if self._held:
            held, self._held = self._held, []
            self._transport.write(b"".join(held))

    def close(self) -> None:
        """Send what is kept, and no more."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """End the connection as it is."""
        self._held = []
        self._transport.abort()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (whatever the transport has)
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  (uvicorn's own)
        super().__init__(*args, **kwargs)
        self._request_incomplete = False
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None
        self._answering: RequestResponseCycle | None = None
        RequestsInProgress.tasks = self.tasks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request as long as for any other."""
        self._one_write = _OneWrite(transport, self.loop)
        super().connection_made(self._one_write)  # type: ignore[arg-type]  # as much of one as uvicorn uses
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        # uvicorn tells only the last of several requests in a row, and the one at work would go on writing.
        if self._answering is not None:
            self._answering.disconnected = not self._answering.response_complete
            self._answering.message_event.set()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_receiving_timer()
        self._stop_sending_timer()

    def data_received(self, data: bytes) -> None:
        """Limit the time of a request that is not complete yet; most are, at once."""
        super().data_received(data)
        if self._request_incomplete and self._receiving is None:
            self._receiving = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._request_incomplete = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """A request's last byte."""
        self._request_incomplete = False
        self._stop_receiving_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer's last byte."""
        self._one_write.flush()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Limit the time until the client reads on."""
        super().pause_writing()
        self._sending = self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        self._stop_sending_timer()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, even when the client has not read its last answer."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's words)
        """Refuse what is not HTTP in the shape of every other error."""
        response = error_response({}, HTTPStatus.BAD_REQUEST, "invalid_http", "This is not valid HTTP.")
        headers = [*response.raw_headers, (b"connection", b"close")]
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(STATUS_LINE[400] + b"".join(lines) + b"\r\n" + bytes(response.body))
        self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _stop_receiving_timer(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _stop_sending_timer(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
