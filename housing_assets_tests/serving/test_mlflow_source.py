"""The registry as a model source: a real tracking server, and a scripted one for what that never does."""

import base64
import gzip
import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from housing_assets_tests.scripted_http import (
    Behaviour,
    ScriptedServer,
    answer,
    break_off,
    pass_on,
    scripted_server,
)
from housing_assets_tests.serving.bundles import INSTANCE, bundle_files, columns_of, write_files
from housing_assets_tests.serving.registry_server import RegistryServer
from housing_assets_tests.serving.slow_answers import drip, drip_endless, drip_headers, hang
from housing_assets_tests.serving.test_sources import load_model, upload
from housing_serving import deadline
from housing_serving.bundle import sha256_hex
from housing_serving.settings import ServingSettings
from housing_serving.sources import ModelUnavailable, NotRegistered

# What the slow behaviours would take is a minute.
UNHURRIED_SECONDS = 20.0
NOT_MLFLOW = "check that MLFLOW_TRACKING_URI is the address of an MLflow server itself"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without the pauses."""
    monkeypatch.setattr(deadline, "LONGEST_PAUSE_SECONDS", 0.0)


@pytest.fixture
def model_name(registry_server: RegistryServer) -> str:
    return registry_server.new_model()


@pytest.fixture
def settings(registry_server: RegistryServer, model_name: str) -> ServingSettings:
    return ServingSettings(mlflow_tracking_uri=registry_server.url, mlflow_model_name=model_name)


def tags_of(folder: Path | str, files: Mapping[str, bytes]) -> dict[str, str]:
    """The tags that a registration writes."""
    return {"bundle_uri": f"{folder}/bundle.json", "bundle_sha256": sha256_hex(files["bundle.json"])}


def test_the_version_behind_the_alias_is_served_from_its_bucket(
    settings: ServingSettings, model_name: str, registry_server: RegistryServer, gcs_bucket: str
) -> None:
    for version in (1, 2):
        files = bundle_files(version=version, model_name=model_name)
        folder = f"models/{model_name}/{version}"
        upload(gcs_bucket, f"{folder}/", files)
        alias = "production" if version == 1 else "staging"
        registry_server.new_version(model_name, alias=alias, **tags_of(f"gs://{gcs_bucket}/{folder}", files))

    loaded = load_model(settings)

    assert loaded.bundle.manifest.model_version == 1
    assert (loaded.source, loaded.uri) == ("mlflow", f"gs://{gcs_bucket}/models/{model_name}/1")
    assert loaded.bundle.predict(columns_of(INSTANCE)).price.tolist() == [300_000]

    other_alias = settings.model_copy(update={"mlflow_model_alias": "staging"})
    assert load_model(other_alias).bundle.manifest.model_version == 2


def test_a_bundle_in_a_folder_and_an_address_that_ends_with_a_slash(
    settings: ServingSettings, model_name: str, registry_server: RegistryServer, tmp_path: Path
) -> None:
    files = bundle_files(version=1, model_name=model_name)
    folder = write_files(tmp_path / "stored", files)
    registry_server.new_version(model_name, **tags_of(folder, files))

    loaded = load_model(settings.model_copy(update={"mlflow_tracking_uri": f"{registry_server.url}/"}))

    assert (loaded.source, loaded.uri) == ("mlflow", str(folder))


def test_no_model_and_no_alias_mean_that_nothing_is_registered_yet(
    settings: ServingSettings, model_name: str, registry_server: RegistryServer
) -> None:
    registry_server.new_version(model_name, alias="staging")
    expected = rf"^{registry_server.url} {model_name}@production does not exist: give a registered version"
    with pytest.raises(NotRegistered, match=expected):
        load_model(settings)

    with pytest.raises(NotRegistered, match="absent_model@production does not exist"):
        load_model(settings.model_copy(update={"mlflow_model_name": "absent_model"}))


@pytest.mark.parametrize("alias", ["not/valid", "v1"])
def test_an_alias_that_mlflow_refuses_is_never_another_one(
    settings: ServingSettings, model_name: str, registry_server: RegistryServer, alias: str
) -> None:
    registry_server.new_version(model_name)
    with pytest.raises(ModelUnavailable):
        load_model(settings.model_copy(update={"mlflow_model_alias": alias}))


@pytest.mark.parametrize(
    "address",
    [
        *("models/1/bundle.json", "/models/1/model.onnx", "https://host/models/1/bundle.json"),
        *("gs://bundle.json", "gs:///x/bundle.json", "/models/1/"),
    ],
)
def test_only_the_address_of_a_manifest_is_followed(
    settings: ServingSettings, model_name: str, registry_server: RegistryServer, address: str
) -> None:
    registry_server.new_version(model_name, bundle_uri=address, bundle_sha256="0" * 64)
    with pytest.raises(
        ModelUnavailable, match=r"version 1, whose bundle_uri is not the address of a bundle\.json"
    ):
        load_model(settings)


def test_a_version_without_a_bundle_is_named(
    settings: ServingSettings, model_name: str, registry_server: RegistryServer
) -> None:
    registry_server.new_version(model_name, bundle_uri="/x/bundle.json")
    with pytest.raises(ModelUnavailable, match="is version 1, which has no bundle_uri and bundle_sha256"):
        load_model(settings)


@pytest.mark.parametrize("name", ["bundle.json", "model.onnx", "imputer.npz"])
def test_one_wrong_byte_in_any_file_is_found(
    settings: ServingSettings, model_name: str, registry_server: RegistryServer, tmp_path: Path, name: str
) -> None:
    files = bundle_files(version=1, model_name=model_name, kind="neighbours")
    registry_server.new_version(model_name, **tags_of(tmp_path / "stored", files))
    damaged = bytearray(files[name])
    # A digit of the interval, in the manifest: still a valid one.
    position = files[name].index(b"120000") if name == "bundle.json" else len(damaged) // 2
    damaged[position] ^= 3
    write_files(tmp_path / "stored", {**files, name: bytes(damaged)})

    with pytest.raises(ModelUnavailable, match=rf"stored/{re.escape(name)} .*sha256"):
        load_model(settings)


@pytest.mark.parametrize("changes", [{"version": 2}, {"model_name": "rent_model"}])
def test_a_bundle_that_says_it_is_another_version_or_model_is_not_served(
    settings: ServingSettings,
    model_name: str,
    registry_server: RegistryServer,
    tmp_path: Path,
    changes: dict[str, object],
) -> None:
    files = bundle_files(**({"version": 1, "model_name": model_name} | changes))  # type: ignore[arg-type]
    folder = write_files(tmp_path / "stored", files)
    registry_server.new_version(model_name, **tags_of(folder, files))

    with pytest.raises(ModelUnavailable, match=r"bundle\.json says it is .*, not the one that was asked for"):
        load_model(settings)


@pytest.fixture
def registered(
    settings: ServingSettings, model_name: str, registry_server: RegistryServer, tmp_path: Path
) -> ServingSettings:
    """Settings that name a registered version 1, whose bundle is a folder."""
    files = bundle_files(version=1, model_name=model_name)
    folder = write_files(tmp_path / "stored", files)
    registry_server.new_version(model_name, **tags_of(folder, files))
    return settings


@pytest.fixture
def proxy(registered: ServingSettings) -> Iterator[ScriptedServer]:
    """A server that misbehaves as scripted in front of the real one."""
    with scripted_server(registered.mlflow_tracking_uri) as server:
        yield server


def test_passing_failures_of_the_server_are_retried(
    registered: ServingSettings, proxy: ScriptedServer
) -> None:
    behind_proxy = registered.model_copy(update={"mlflow_tracking_uri": proxy.url})
    for passing in ([answer(503), answer(429)], [break_off, answer(500)]):
        proxy.script = list(passing)
        assert load_model(behind_proxy).bundle.manifest.model_version == 1
        assert not proxy.script


def at(server: ScriptedServer, **values: str) -> ServingSettings:
    return ServingSettings(mlflow_tracking_uri=server.url, **values)


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server without anything behind it."""
    with scripted_server() as server:
        yield server


def test_a_server_that_keeps_failing_is_reported(scripted: ScriptedServer) -> None:
    scripted.afterwards = answer(503)
    with pytest.raises(ModelUnavailable, match="the server keeps failing, see its log"):
        load_model(at(scripted))
    assert len(scripted.requests) == 3


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9", "http://", "http://[", "http://no host", "https://127.0.0.1:9"]
)
def test_a_server_that_cannot_be_reached_is_reported(address: str) -> None:
    with pytest.raises(ModelUnavailable, match="cannot be reached: check MLFLOW_TRACKING_URI"):
        load_model(ServingSettings(mlflow_tracking_uri=address))


def version_answer(**changes: object) -> bytes:
    version = {"name": "housing_price_model", "version": "1", "tags": []} | changes
    return json.dumps({"model_version": version}).encode()


@pytest.mark.parametrize(
    "behaviour",
    [
        answer(200, b"<html>Sign in</html>"),
        answer(200),
        answer(200, b"[]"),
        answer(200, b'{"model_version": null}'),
        answer(200, b"[" * 100_000),
        answer(200, b"\xff\xfe{"),
        answer(200, version_answer(version="one")),
        answer(200, version_answer(version="0")),
        answer(200, version_answer(version="9" * 400)),
        answer(200, version_answer(version=["1"])),
        answer(200, version_answer(tags={"bundle_uri": "x"})),
        answer(200, version_answer(name="rent_model")),
        answer(200, b" " * 1_100_000 + version_answer()),
        answer(200, gzip.compress(b" " * 50_000_000), **{"Content-Encoding": "gzip"}),
        answer(204),
        answer(302, Location="/elsewhere"),
        answer(301, Location="http://127.0.0.1:9/"),
        answer(400, b"Bad Request"),
        answer(404, b"<html>Not found</html>"),
        answer(404, b"[]"),
        answer(404, b"[" * 100_000),
        answer(418),
    ],
)
def test_nonsense_is_reported_and_not_asked_for_again(scripted: ScriptedServer, behaviour: Behaviour) -> None:
    scripted.afterwards = behaviour
    with pytest.raises(ModelUnavailable, match=NOT_MLFLOW) as caught:
        load_model(at(scripted))
    assert len(scripted.requests) == 1
    assert not isinstance(caught.value, NotRegistered)
    assert str(caught.value).startswith(f"{scripted.url} housing_price_model@production: the ")


def endless(handler: object, _: bytes) -> None:
    """Send zeros as fast as they are read."""
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")  # type: ignore[attr-defined]
    try:
        while True:
            handler.wfile.write(bytes(100_000))  # type: ignore[attr-defined]
    except OSError:
        handler.close_connection = True  # type: ignore[attr-defined]


def test_an_endless_answer_is_read_up_to_a_limit(scripted: ScriptedServer) -> None:
    scripted.afterwards = endless
    with pytest.raises(ModelUnavailable, match="the answer is larger than 1048576 bytes"):
        load_model(at(scripted))


@pytest.mark.parametrize("behaviour", [drip, drip_endless, drip_headers, hang])
def test_a_server_that_drips_or_hangs_is_given_up_in_time(
    scripted: ScriptedServer, behaviour: Behaviour
) -> None:
    scripted.afterwards = behaviour
    impatient = at(scripted).model_copy(update={"housing_source_timeout_seconds": 0.5})

    started = time.monotonic()
    with pytest.raises(ModelUnavailable, match=r"did not name and deliver a model within 0\.5 s$"):
        load_model(impatient)
    assert time.monotonic() - started < UNHURRIED_SECONDS


def only_with(authorization: str) -> Behaviour:
    """Refuse every other Authorization header."""
    return lambda handler, body: (
        pass_on(handler, body)
        if handler.headers["Authorization"] == authorization
        else handler.reply(401, [], b"")
    )


BASIC = "Basic " + base64.b64encode("mé:pass:wört".encode()).decode()


@pytest.mark.parametrize(
    ("credentials", "header"),
    [
        ({"mlflow_tracking_username": "mé", "mlflow_tracking_password": "pass:wört"}, BASIC),
        ({"mlflow_tracking_token": "secret-token"}, "Bearer secret-token"),
        ({"mlflow_tracking_username": "me", "mlflow_tracking_token": "secret-token"}, "Bearer secret-token"),
    ],
)
def test_credentials_are_sent(
    registered: ServingSettings, proxy: ScriptedServer, credentials: dict[str, str], header: str
) -> None:
    proxy.afterwards = only_with(header)
    values = {"mlflow_model_name": registered.mlflow_model_name, **credentials}
    assert load_model(at(proxy, **values)).bundle.manifest.model_version == 1


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_reported_and_stay_secret(
    scripted: ScriptedServer, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    scripted.afterwards = answer(status, b"wrong: secret-token")
    settings = at(scripted, mlflow_tracking_token="secret-token").model_copy(
        update={"mlflow_tracking_uri": scripted.url.replace("//", "//someone:secret-word@")}
    )
    with pytest.raises(
        ModelUnavailable, match="the server refuses access: set MLFLOW_TRACKING_USERNAME"
    ) as caught:
        load_model(settings)
    assert len(scripted.requests) == 1
    assert "secret" not in str(caught.value) + caplog.text
