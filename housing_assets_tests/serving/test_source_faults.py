"""What callers of the running service see while its model sources fail, and when they come back.

Every source holds another version with another price, so that an answer says where it came from.
"""

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from housing_assets_tests import conftest
from housing_assets_tests.conftest import GcsServer
from housing_assets_tests.scripted_http import Behaviour, ScriptedHandler, answer, scripted_server
from housing_assets_tests.serving.bundles import INSTANCE, bundle_files, write_files
from housing_assets_tests.serving.registry_server import RegistryServer
from housing_assets_tests.serving.slow_answers import drip_headers
from housing_assets_tests.serving.test_mlflow_source import tags_of
from housing_assets_tests.serving.test_process import log_lines, service, status_of, wait_for
from housing_assets_tests.serving.test_sources import upload
from housing_serving.manifest import FORMAT_VERSION

LONG_SECONDS = 60.0
LOCAL_VERSION = 7
# Three failures, then a rest of six intervals.
QUICK = {"HOUSING_MODEL_POLL_SECONDS": "0.1"}


def files_of(version: int, **changes: Any) -> dict[str, bytes]:
    """A bundle whose price names its version: 1000 dollars each."""
    stumps = [(7, 4.0, 0.0, 1000.0 * version)]
    return bundle_files(version=version, stumps=stumps, kind="neighbours", **changes)


def answered_version(url: str) -> int | None:
    """The version that prices now; None when the service says that it has none."""
    response = requests.post(f"{url}/api/v1/predict", json={"instances": [INSTANCE]}, timeout=30)
    body = response.json()
    if response.status_code == 503:
        assert body["error"]["code"] == "model_not_ready"
        assert body["error"]["message"]
        assert int(response.headers["Retry-After"]) >= 1
        return None
    assert response.status_code == 200
    version = int(body["model_version"])
    assert body["predictions"][0]["predicted_price"] == 1000.0 * version
    return version


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + LONG_SECONDS
    while not condition():
        assert process.poll() is None, "the service ended"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_version(url: str, version: int, process: "subprocess.Popen[str]", before: int | None) -> None:
    """Wait for a version; until then every answer comes from the one before."""

    def reached() -> bool:
        found = answered_version(url)
        assert found in (version, before)
        return found == version

    wait_until(reached, process)


def reasons(folder: Path) -> list[str]:
    return [str(line["reason"]) for line in log_lines(folder) if line["message"] == "no model"]


def loaded_from(folder: Path) -> list[tuple[str, int]]:
    lines = [line for line in log_lines(folder) if line["message"] == "model loaded"]
    return [(line["source"], line["model_version"]) for line in lines]


@pytest.fixture
def local(tmp_path: Path) -> str:
    """The folder of the local source's bundle."""
    return str(write_files(tmp_path / "local", files_of(LOCAL_VERSION)))


@pytest.fixture
def registered(registry_server: RegistryServer, tmp_path: Path) -> dict[str, str]:
    """Variables that name a registered version 1, whose bundle is the folder `registered`."""
    name = registry_server.new_model()
    files = files_of(1, model_name=name)
    registry_server.new_version(name, **tags_of(write_files(tmp_path / "registered", files), files))
    return {"MLFLOW_TRACKING_URI": registry_server.url, "MLFLOW_MODEL_NAME": name, **QUICK}


def test_the_local_model_serves_while_mlflow_is_down(
    registered: dict[str, str], registry_server: RegistryServer, local: str, tmp_path: Path
) -> None:
    registry_server.stop()
    try:
        with service(tmp_path, LOCAL_MODEL_PATH=local, **registered) as (url, process):
            wait_for(f"{url}/health/ready", 200, process)
            assert answered_version(url) == LOCAL_VERSION
            wait_until(lambda: len(reasons(tmp_path)) > 0, process)

            registry_server.start()
            wait_for_version(url, 1, process, before=LOCAL_VERSION)
    finally:
        registry_server.start()
    place = f"{registry_server.url} {registered['MLFLOW_MODEL_NAME']}@production"
    assert reasons(tmp_path)[0] == (
        f"{place} cannot be reached: check MLFLOW_TRACKING_URI and that the server runs"
    )
    assert loaded_from(tmp_path) == [("local", LOCAL_VERSION), ("mlflow", 1)]


@contextmanager
def stalling() -> Iterator[tuple[Behaviour, threading.Event, threading.Event]]:
    """A behaviour that stalls until released; events tell that it was reached, and release it."""
    reached, released = threading.Event(), threading.Event()

    def stall(handler: ScriptedHandler, _: bytes) -> None:
        reached.set()
        released.wait(LONG_SECONDS)
        handler.close_connection = True

    try:
        yield stall, reached, released
    finally:
        released.set()


def test_the_local_model_serves_while_mlflow_hangs(
    registered: dict[str, str], local: str, tmp_path: Path
) -> None:
    # More than the test lasts: whoever waits for the registry to give up fails it.
    patient = {"HOUSING_SOURCE_TIMEOUT_SECONDS": "3600"}
    with scripted_server(registered["MLFLOW_TRACKING_URI"]) as server, stalling() as (stall, _, released):
        server.script = [stall]
        variables = registered | patient | {"MLFLOW_TRACKING_URI": server.url, "LOCAL_MODEL_PATH": local}
        with service(tmp_path, **variables) as (url, process):
            wait_for(f"{url}/health/ready", 200, process)
            assert answered_version(url) == LOCAL_VERSION
            assert (len(server.requests), server.script) == (1, [])

            released.set()
            wait_for_version(url, 1, process, before=LOCAL_VERSION)
    assert loaded_from(tmp_path) == [("local", LOCAL_VERSION), ("mlflow", 1)]


def test_a_drip_is_cut_off_and_the_registry_asked_again(
    registered: dict[str, str], local: str, tmp_path: Path
) -> None:
    with scripted_server(registered["MLFLOW_TRACKING_URI"]) as server:
        server.script = [drip_headers]
        variables = registered | {"MLFLOW_TRACKING_URI": server.url, "LOCAL_MODEL_PATH": local}
        with service(tmp_path, **variables, HOUSING_SOURCE_TIMEOUT_SECONDS="2") as (url, process):
            wait_for(f"{url}/health/ready", 200, process)
            wait_for_version(url, 1, process, before=LOCAL_VERSION)
    assert [reason.split("production ")[1] for reason in reasons(tmp_path)] == [
        "did not name and deliver a model within 2 s"
    ]


def test_stopping_does_not_wait_for_a_registry_that_hangs(registered: dict[str, str], tmp_path: Path) -> None:
    with scripted_server() as server, stalling() as (stall, reached, _):
        server.afterwards = stall
        variables = registered | {"MLFLOW_TRACKING_URI": server.url, "HOUSING_SOURCE_TIMEOUT_SECONDS": "3600"}
        with service(tmp_path, HOUSING_HOME=str(tmp_path / "home"), **variables) as (url, process):
            wait_for(f"{url}/health", 200, process)
            assert reached.wait(LONG_SECONDS)
            assert status_of(f"{url}/health/ready") == 503
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=LONG_SECONDS) in (0, -signal.SIGTERM)


def test_the_local_model_serves_while_mlflow_answers_garbage(
    registered: dict[str, str], local: str, tmp_path: Path
) -> None:
    another_model = b'{"model_version": {"name": "other", "version": "1"}}'
    with scripted_server(registered["MLFLOW_TRACKING_URI"]) as server:
        server.script = [
            answer(200, b"<html>Please sign in</html>"),
            answer(302, Location="/login"),
            answer(200, another_model),
            answer(200, another_model),
        ]
        variables = registered | {"MLFLOW_TRACKING_URI": server.url, "LOCAL_MODEL_PATH": local}
        with service(tmp_path, **variables) as (url, process):
            wait_for(f"{url}/health/ready", 200, process)
            wait_for_version(url, 1, process, before=LOCAL_VERSION)
    assert [reason.split("production: ")[1].split(":")[0] for reason in reasons(tmp_path)] == [
        "the answer names no model version",
        "the server answers with status 302",
        "the answer is about another model",
    ]
    assert loaded_from(tmp_path) == [("local", LOCAL_VERSION), ("mlflow", 1)]


@pytest.fixture
def own_gcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsServer]:
    """A storage server of this test alone, which starts again on the port it had."""
    port = conftest.free_port()
    monkeypatch.setattr(conftest, "free_port", lambda: port)
    (tmp_path / "gcs").mkdir()
    server = GcsServer(tmp_path / "gcs")
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
    try:
        yield server
    finally:
        server.stop()


def cloud(own_gcs: GcsServer, files: Mapping[str, bytes], version: int = 2) -> dict[str, str]:
    """Variables of a cloud deployment with one version in its bucket."""
    bucket = own_gcs.new_bucket()
    upload(bucket, f"models/housing_price_model/{version}/", files)
    return {"HOUSING_DEPLOYMENT": "gcp", "GCS_BUCKET_NAME": bucket, **QUICK}


def test_503_with_a_reason_until_the_bucket_is_back(own_gcs: GcsServer, tmp_path: Path) -> None:
    variables = cloud(own_gcs, files_of(2))
    own_gcs.stop()
    with service(tmp_path, **variables) as (url, process):
        wait_for(f"{url}/health", 200, process)
        assert status_of(f"{url}/health/ready") == 503
        assert answered_version(url) is None
        wait_until(lambda: len(reasons(tmp_path)) > 0, process)

        own_gcs.start()
        wait_for_version(url, 2, process, before=None)

        own_gcs.stop()
        assert answered_version(url) == 2
        assert status_of(f"{url}/health/ready") == 200
    assert "cannot be reached: check the network and the Google credentials" in reasons(tmp_path)[0]


def test_the_local_model_serves_while_the_bucket_is_down(
    own_gcs: GcsServer, local: str, tmp_path: Path
) -> None:
    variables = cloud(own_gcs, files_of(2))
    own_gcs.stop()
    with service(tmp_path, LOCAL_MODEL_PATH=local, **variables) as (url, process):
        wait_for(f"{url}/health/ready", 200, process)
        assert answered_version(url) == LOCAL_VERSION

        own_gcs.start()
        wait_for_version(url, 2, process, before=LOCAL_VERSION)
    assert loaded_from(tmp_path) == [("local", LOCAL_VERSION), ("gcs", 2)]


def test_a_bundle_with_one_wrong_byte_is_never_served(
    registered: dict[str, str], local: str, tmp_path: Path
) -> None:
    folder = tmp_path / "registered"
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    names = ["model.onnx", "imputer.npz", "bundle.json"]
    assert sorted(good) == sorted(names)

    def damage(name: str) -> None:
        position = len(good[name]) // 2
        byte = bytes([good[name][position] ^ 1])
        (folder / name).write_bytes(good[name][:position] + byte + good[name][position + 1 :])

    damage(names[0])
    with service(tmp_path, LOCAL_MODEL_PATH=local, **registered) as (url, process):
        wait_for(f"{url}/health/ready", 200, process)
        for name, next_name in zip(names, [*names[1:], None], strict=True):
            wait_until(lambda name=name: f"/{name} " in (reasons(tmp_path) or [""])[-1], process)
            assert answered_version(url) == LOCAL_VERSION
            if next_name is not None:
                damage(next_name)
                (folder / name).write_bytes(good[name])
        (folder / "bundle.json").write_bytes(good["bundle.json"])
        wait_for_version(url, 1, process, before=LOCAL_VERSION)
    assert all("sha256" in reason for reason in reasons(tmp_path))
    assert loaded_from(tmp_path) == [("local", LOCAL_VERSION), ("mlflow", 1)]


FUTURE = f'"format_version": {FORMAT_VERSION + 1}'


def of_the_future(files: Mapping[str, bytes]) -> dict[str, bytes]:
    manifest = files["bundle.json"].decode().replace(f'"format_version": {FORMAT_VERSION}', FUTURE)
    assert FUTURE in manifest
    return {**files, "bundle.json": manifest.encode()}


def test_a_bundle_of_a_future_format_gives_way_to_the_next_source(
    own_gcs: GcsServer, local: str, tmp_path: Path
) -> None:
    variables = cloud(own_gcs, of_the_future(files_of(2)))
    # An older version of a known format, which nobody asked for.
    upload(variables["GCS_BUCKET_NAME"], "models/housing_price_model/1/", files_of(1))
    with service(tmp_path, LOCAL_MODEL_PATH=local, **variables) as (url, process):
        wait_for(f"{url}/health/ready", 200, process)
        assert answered_version(url) == LOCAL_VERSION

        upload(variables["GCS_BUCKET_NAME"], "models/housing_price_model/2/", files_of(2))
        wait_for_version(url, 2, process, before=LOCAL_VERSION)
    told = f"2/bundle.json has format version {FORMAT_VERSION + 1}, this reader knows {FORMAT_VERSION}"
    assert told in reasons(tmp_path)[0]


@pytest.mark.parametrize("fault", ["future format", "wrong byte"])
def test_503_when_the_only_source_holds_an_unusable_bundle(tmp_path: Path, fault: str) -> None:
    good = files_of(3)
    broken = of_the_future(good)
    if fault == "wrong byte":
        broken = {**good, "model.onnx": good["model.onnx"][:-1] + bytes([good["model.onnx"][-1] ^ 1])}
    folder = write_files(tmp_path / "only", broken)
    with service(tmp_path, LOCAL_MODEL_PATH=str(folder), **QUICK) as (url, process):
        wait_until(lambda: len(reasons(tmp_path)) > 0, process)
        wait_for(f"{url}/health", 200, process)
        assert status_of(f"{url}/health/ready") == 503
        assert answered_version(url) is None

        for name, data in good.items():
            (folder / name).write_bytes(data)
        wait_for_version(url, 3, process, before=None)
