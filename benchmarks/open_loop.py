"""Latency at a fixed rate: requests start when they are due, whether or not earlier ones are answered.

Arrivals are random, as those of independent callers are, and a latency runs from the moment a request was
due. So a server, or this generator, that falls behind shows in the figures instead of lowering the rate.
"""

import gc
import select
import socket
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from benchmarks.measuring import MeasurementRefused
from benchmarks.processes import HOST
from housing_serving.features import FloatArray

CONNECTIONS = 64
# Without any answer for this long, the server hangs.
SILENCE_SECONDS = 10.0
RECEIVE_BYTES = 65_536


class _Connection:
    """A kept-alive connection with at most one request in flight."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._received = b""

    def ask(self, request: bytes, due: float) -> None:
        self.due, self._received = due, b""
        self.socket.sendall(request)

    def is_answered(self) -> bool:
        """Take in what has arrived.

        Raises:
            MeasurementRefused: it is not the beginning of a success.
        """
        data = self.socket.recv(RECEIVE_BYTES)
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not data or (end and not head.startswith(b"HTTP/1.1 200 ")):
            raise MeasurementRefused(f"a request failed: {head[:60].decode() or 'connection closed'}")
        return bool(end) and len(body) >= _content_length(head)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise MeasurementRefused("an answer without its length")


def latencies(
    port: int, path: str, bodies: Sequence[bytes], *, rate: float, seconds: float, seed: int
) -> FloatArray:
    """Seconds from when each request was due to the end of its answer.

    Args:
        port: Of the server on this machine.
        path: Where to post to.
        bodies: Asked for in turn.
        rate: Requests per second, on average.
        seconds: For how long requests start.
        seed: Of their random arrivals.

    Raises:
        MeasurementRefused: an answer was no success, or the server fell silent.
    """
    requests = [_request(path, body) for body in bodies]
    gaps = np.random.default_rng(seed).exponential(1 / rate, round(rate * seconds))
    connections = [_Connection(port) for _ in range(CONNECTIONS)]
    gc.disable()  # a collection here would show as the server's latency
    try:
        return _measured(connections, requests, np.cumsum(gaps).tolist())
    finally:
        gc.enable()
        for connection in connections:
            connection.socket.close()


def _measured(connections: list[_Connection], requests: Sequence[bytes], due: list[float]) -> FloatArray:
    free, busy = deque(connections), {}
    found: list[float] = []
    started = heard = time.perf_counter()
    sent = 0
    while len(found) < len(due):
        now = time.perf_counter()
        while sent < len(due) and due[sent] <= now - started and free:
            connection = free.popleft()
            connection.ask(requests[sent % len(requests)], due[sent])
            busy[connection.socket] = connection
            sent += 1
        # Never sleeps: to wake this process on another processor would be the server's work, which it is not
        # where callers are on other machines, and would take as long as some answers do.
        ready, _, _ = select.select(list(busy), [], [], 0)
        if ready or not busy:
            heard = now
        elif now - heard > SILENCE_SECONDS:
            raise MeasurementRefused(f"no answer for {SILENCE_SECONDS:.0f} s")
        for one in ready:
            connection = busy[one]
            if connection.is_answered():
                found.append(time.perf_counter() - started - connection.due)
                free.append(busy.pop(one))
    return np.array(found)


def _request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
