"""The service under stress: stopped while it works, stalling clients, very many connections, long batches."""

import http.client
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from housing_assets_tests.serving.bundles import INSTANCE
from housing_assets_tests.serving.raw_http import (
    ONE,
    PATIENCE_SECONDS,
    PREDICT,
    PRICE_OF_ONE,
    address_of,
    connect,
    error_code,
    exchange,
    prediction_request,
    read_answer,
    request_head,
)
from housing_assets_tests.serving.test_process import free_port, log_lines, service, wait_for

JSON_HEADERS = {"Content-Type": "application/json"}


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def body_of(rows: int) -> bytes:
    """Instances whose prices alternate: every second one is inland, 50,000 below the other."""
    instances = [dict(INSTANCE) | ({"ocean_proximity": "INLAND"} if row % 2 else {}) for row in range(rows)]
    return json.dumps({"instances": instances}).encode()


def prices_of(rows: int) -> list[float]:
    return [PRICE_OF_ONE - 50_000 * (row % 2) for row in range(rows)]


class Client(threading.Thread):
    """Posts batches of one size, one after the other on one connection, until it is told that it closes."""

    def __init__(self, url: str, rows: int) -> None:
        super().__init__(daemon=True)
        host, port = address_of(url)
        self.connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_SECONDS)
        self.rows = rows
        self.seconds: list[float] = []
        self.problem: str | None = None
        self.told = False
        self.over = threading.Event()

    def run(self) -> None:
        body, expected = body_of(self.rows), prices_of(self.rows)
        try:
            while not (self.told or self.over.is_set()):
                started = time.monotonic()
                self.connection.request("POST", PREDICT, body, JSON_HEADERS)
                answer = self.connection.getresponse()
                predictions = json.loads(answer.read())["predictions"]
                self.seconds.append(time.monotonic() - started)
                assert answer.status == 200
                assert [each["predicted_price"] for each in predictions] == expected
                self.told = answer.getheader("connection") == "close"
        except Exception as error:
            self.problem = f"answer {len(self.seconds) + 1} of {self.rows} rows: {error!r}"
        finally:
            self.connection.close()


@contextmanager
def clients(url: str, sizes: Sequence[int]) -> Iterator[list[Client]]:
    """Clients at work, each with an answer at least."""
    working = [Client(url, rows) for rows in sizes]
    try:
        for client in working:
            client.start()
        wait_until(lambda: all(client.seconds or client.problem for client in working), "a first answer each")
        yield working
    finally:
        for client in working:
            client.over.set()
        for client in working:
            client.join(PATIENCE_SECONDS)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_under_load_loses_no_request(bundle_folder: Path, tmp_path: Path, workers: str) -> None:
    settings = {
        "LOCAL_MODEL_PATH": str(bundle_folder),
        "HOUSING_HOME": str(tmp_path / "home"),
        "WEB_CONCURRENCY": workers,
        "HOUSING_DRAIN_SECONDS": "2",
    }
    with service(tmp_path, **settings) as (url, process):
        wait_for(f"{url}/health/ready", 200, process)
        with clients(url, [1, 1, 1, 2, 3, 10, 100, 1000, 1000]) as working:
            process.send_signal(signal.SIGTERM)
            # What a load balancer sees; until then it may open new connections.
            wait_until(lambda: exchange(url, request_head("GET", "/health/ready")).status == 503, "ending")
            for client in working:
                client.join(PATIENCE_SECONDS)
            assert [client.problem for client in working] == [None] * len(working)
            assert all(client.told for client in working)
        assert process.wait(timeout=PATIENCE_SECONDS) in (0, -signal.SIGTERM)

    files = (tmp_path / "home/storage/monitoring/predictions").rglob("*.parquet")
    logged = sum(pq.read_metadata(file).num_rows for file in files)  # type: ignore[no-untyped-call]
    assert logged == sum(client.rows * len(client.seconds) for client in working)


def test_a_long_batch_in_flight_finishes(bundle_folder: Path, tmp_path: Path) -> None:
    """Also one of which only the last byte is missing when the end begins."""
    settings = {"LOCAL_MODEL_PATH": str(bundle_folder), "HOUSING_DRAIN_SECONDS": "0"}
    request = prediction_request(body_of(1000))
    with service(tmp_path, **settings) as (url, process):
        wait_for(f"{url}/health/ready", 200, process)
        with connect(url) as whole, connect(url) as cut_off:
            cut_off.sendall(request[:-1])
            whole.sendall(request)
            # Its answer is on the way once the one before it on the same event loop is complete.
            exchange(url, request_head("GET", "/health"))
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses(url), "no new connections")
            cut_off.sendall(request[-1:])
            for connection in (whole, cut_off):
                answer = read_answer(connection)
                assert [each["predicted_price"] for each in answer.json["predictions"]] == prices_of(1000)
        assert process.wait(timeout=PATIENCE_SECONDS) in (0, -signal.SIGTERM)


def refuses(url: str) -> bool:
    try:
        connect(url).close()
    except ConnectionRefusedError:
        return True
    return False


# The service with shorter patience, so that a test need not wait for it.
IMPATIENT = """
from housing_serving import __main__, connections, request_body
__main__.KEEP_ALIVE_SECONDS = 3
request_body.BODY_SECONDS = 1.0
connections.REQUEST_SECONDS = 2.0
connections.SEND_SECONDS = 1.0
__main__.main()
"""


@contextmanager
def impatient_service(folder: Path, bundle: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A real process that differs from the service in its time limits alone."""
    port = free_port()
    with (folder / "service.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", IMPATIENT],
            env=os.environ | {"PORT": str(port), "LOCAL_MODEL_PATH": str(bundle)},
            cwd=folder,
            stdout=log,
            stderr=log,
            text=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/health/ready", 200, process)
            yield url, process
        finally:
            process.kill()
            process.wait()


def assert_answers(url: str) -> None:
    answer = exchange(url, prediction_request(ONE))
    assert answer.json["predictions"][0]["predicted_price"] == PRICE_OF_ONE


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection that has nothing left to read."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_clients_that_stall(bundle_folder: Path, tmp_path: Path) -> None:
    with impatient_service(tmp_path, bundle_folder) as (url, process), ExitStack() as open_connections:
        descriptors = psutil.Process(process.pid).num_fds()

        def stalled(sent: bytes) -> socket.socket:
            connection = open_connections.enter_context(connect(url))
            connection.sendall(sent)
            return connection

        chunked = request_head(content_type="application/json", transfer_encoding="chunked")
        in_body = [stalled(prediction_request(ONE)[:-10]), stalled(chunked + b"5\r\n{")]
        silent = [stalled(b""), stalled(b"POST"), stalled(request_head()[:-1])]
        # Refused at once; what is left of its body never comes.
        refused = stalled(request_head(content_type="text/plain", content_length=1000))
        # Megabytes of answers that nobody reads.
        stalled(request_head("GET", "/openapi.json") * 500)

        assert_answers(url)
        for connection in in_body:
            answer = read_answer(connection)
            assert (answer.status, error_code(answer)) == (408, "body_too_slow")
            assert answer.closes
            assert_answers(url)
        assert read_answer(refused).status == 415
        for connection in (*in_body, *silent, refused):
            wait_until(lambda connection=connection: is_closed(connection), "closed")  # type: ignore[misc]
            assert_answers(url)
        wait_until(lambda: psutil.Process(process.pid).num_fds() <= descriptors, "descriptors are given back")
    assert [line for line in log_lines(tmp_path) if line["severity"] == "ERROR"] == []


def test_a_client_that_leaves_in_the_middle_of_its_body(bundle_folder: Path, tmp_path: Path) -> None:
    with service(tmp_path, LOCAL_MODEL_PATH=str(bundle_folder)) as (url, process):
        wait_for(f"{url}/health/ready", 200, process)
        with connect(url) as connection:
            connection.sendall(prediction_request(ONE)[:-10])
            # Answered after the first part was read by the same event loop.
            assert_answers(url)
        wait_until(lambda: statuses(tmp_path).count(499) == 1, "the request is logged")
        assert_answers(url)
        process.terminate()
        process.wait(timeout=PATIENCE_SECONDS)
    assert set(statuses(tmp_path)) == {200, 499}
    assert {line["severity"] for line in log_lines(tmp_path)} == {"INFO"}


def statuses(folder: Path) -> list[int]:
    return [line["status"] for line in log_lines(folder) if line["message"] == "request"]


CONNECTIONS = 10_000


@contextmanager
def many_descriptors(needed: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"a process may have {hard} open files, {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_connections(bundle_folder: Path, tmp_path: Path) -> None:
    starts = [b"", b"POST /api/v1/pre", prediction_request(ONE)[:-10], request_head("GET", "/health")]
    with (
        many_descriptors(CONNECTIONS + 500),
        service(tmp_path, LOCAL_MODEL_PATH=str(bundle_folder)) as (url, process),
    ):
        wait_for(f"{url}/health/ready", 200, process)
        running = psutil.Process(process.pid)
        descriptors = running.num_fds()
        with ExitStack() as open_connections:
            for number in range(CONNECTIONS):
                # Several own addresses, for an address has fewer ports than this.
                source = (f"127.0.0.{2 + number % 8}", 0)
                connection = socket.create_connection(address_of(url), PATIENCE_SECONDS, source)
                open_connections.enter_context(connection)
                connection.sendall(starts[number % len(starts)])
            wait_until(lambda: running.num_fds() >= CONNECTIONS, "all are accepted")
            seconds = []
            for _ in range(20):
                started = time.monotonic()
                assert_answers(url)
                seconds.append(time.monotonic() - started)
            assert statistics.median(seconds) < 0.5
        wait_until(lambda: running.num_fds() <= descriptors + 5, "descriptors are given back")
        assert_answers(url)
    assert [line for line in log_lines(tmp_path) if line["severity"] == "ERROR"] == []


def test_health_answers_while_every_connection_has_a_long_batch(bundle_folder: Path, tmp_path: Path) -> None:
    health: list[float] = []
    with service(tmp_path, LOCAL_MODEL_PATH=str(bundle_folder)) as (url, process):
        wait_for(f"{url}/health/ready", 200, process)
        with clients(url, [1000] * 16) as working:
            for _ in range(40):
                started = time.monotonic()
                assert exchange(url, request_head("GET", "/health")).status == 200
                health.append(time.monotonic() - started)
        assert [client.problem for client in working] == [None] * len(working)

    batch = statistics.median(seconds for client in working for seconds in client.seconds)
    # Waiting for its turn behind the batches it would take as long as one of them.
    assert statistics.median(health) < batch / 3, (health, batch)
