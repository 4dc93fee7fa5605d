"""Behaviours of a scripted server that would keep a patient client waiting for a minute."""

import time

from housing_assets_tests.scripted_http import ScriptedHandler

PATIENCE_SECONDS = 60.0


def hang(handler: ScriptedHandler, _: bytes) -> None:
    """Accept the request and say nothing."""
    handler.connection.settimeout(PATIENCE_SECONDS)
    # Returns when the client goes away.
    handler.rfile.read(1)
    handler.close_connection = True


def drip(handler: ScriptedHandler, _: bytes) -> None:
    """Announce much, and send a byte every now and then."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    _drip(handler)


def drip_endless(handler: ScriptedHandler, _: bytes) -> None:
    """Announce no length, so that the end of the connection is the end of the answer."""
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
    _drip(handler)


def drip_headers(handler: ScriptedHandler, _: bytes) -> None:
    """Never come to the end of a header."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Header: ")
    _drip(handler)


def _drip(handler: ScriptedHandler) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    handler.close_connection = True
    try:
        while time.monotonic() < end:
            handler.wfile.write(b"x")
            time.sleep(0.05)
    except OSError:
        return  # the client went away
