"""A named HTTP fake: misbehaves as scripted, then passes requests on to the real server behind it.

For what a well-behaved server never does: refuse, break off, drip, corrupt, lose an answer.
"""

import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

Behaviour = Callable[["ScriptedHandler", bytes], None]
Reply = tuple[int, list[tuple[str, str]], bytes]


class ScriptedServer(ThreadingHTTPServer):
    """Plays the behaviours of `script` once each, then `afterwards` for ever."""

    daemon_threads = True

    def __init__(self, upstream: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), ScriptedHandler)
        self.upstream = upstream
        self.script: list[Behaviour] = []
        self.afterwards: Behaviour = answer(404) if upstream is None else pass_on
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def next_behaviour(self) -> Behaviour:
        return self.script.pop(0) if self.script else self.afterwards


class ScriptedHandler(BaseHTTPRequestHandler):
    """One request, handed to the next behaviour of the script."""

    server: ScriptedServer

    def _play(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(f"{self.command} {self.path}")
        self.server.next_behaviour()(self, body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _play

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""

    def upstream_reply(self, body: bytes) -> Reply:
        connection = http.client.HTTPConnection(urlsplit(str(self.server.upstream)).netloc, timeout=10)
        headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, response.getheaders(), data

    def reply(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response(status)
        for key, value in headers:
            if key.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def answer(status: int, data: bytes = b"", **headers: str) -> Behaviour:
    """Answer with a status and a body."""
    return lambda handler, _: handler.reply(status, list(headers.items()), data)


def pass_on(handler: ScriptedHandler, body: bytes) -> None:
    """Let the server behind answer."""
    handler.reply(*handler.upstream_reply(body))


def lose_answer(handler: ScriptedHandler, body: bytes) -> None:
    """Let the server behind do its work, then pretend that it did not."""
    handler.upstream_reply(body)
    handler.reply(503, [], b"")


def corrupt(handler: ScriptedHandler, body: bytes) -> None:
    """Flip the last byte of the real answer."""
    status, headers, data = handler.upstream_reply(body)
    handler.reply(status, headers, data[:-1] + bytes([data[-1] ^ 1]))


def break_off(handler: ScriptedHandler, _: bytes) -> None:
    """Announce 1000 bytes, send 3 and close."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"abc")
    handler.close_connection = True


def fall_silent(handler: ScriptedHandler, _: bytes) -> None:
    """Announce 1000 bytes, send 3 and nothing more."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"abc")
    handler.wfile.flush()
    time.sleep(1.5)


def drip(handler: ScriptedHandler, _: bytes) -> None:
    """Send a byte every 20 ms for a while, without ever announcing a length."""
    handler.send_response(200)
    handler.end_headers()
    try:
        for _number in range(100):
            handler.wfile.write(b"x")
            time.sleep(0.02)
    except OSError:
        handler.close_connection = True


def hang(handler: ScriptedHandler, _: bytes) -> None:
    """Accept the request and say nothing."""
    time.sleep(1.5)
    handler.close_connection = True


@contextmanager
def scripted_server(upstream: str | None = None) -> Iterator[ScriptedServer]:
    """A running scripted server on a free port."""
    server = ScriptedServer(upstream)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
