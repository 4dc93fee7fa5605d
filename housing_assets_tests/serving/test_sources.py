"""Which bundle is served, from a folder and from a real Google Cloud Storage server."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from housing_assets_tests.conftest import GcsServer
from housing_assets_tests.scripted_http import (
    Behaviour,
    ScriptedServer,
    answer,
    break_off,
    corrupt,
    pass_on,
    scripted_server,
)
from housing_assets_tests.serving.bundles import (
    INSTANCE,
    PREPROCESSING,
    bundle_files,
    columns_of,
    write_files,
)
from housing_assets_tests.serving.slow_answers import drip, drip_headers, hang
from housing_serving import deadline
from housing_serving.bundle import sha256_hex
from housing_serving.settings import ServingSettings
from housing_serving.sources import LoadedModel, ModelUnavailable, NotRegistered, configured_sources

VERSIONS = "models/housing_price_model"
MLFLOW = {"mlflow_tracking_uri": "http://mlflow:5000"}
BUCKET = {"gcs_bucket_name": "b"}
# What the slow behaviours would take is a minute.
UNHURRIED_SECONDS = 20.0
GCP = {**BUCKET, "housing_deployment": "gcp"}


def load_model(settings: ServingSettings) -> LoadedModel:
    """The model of the first source."""
    return configured_sources(settings)[0].fetch().open()


def store_version(storage: Path, version: int) -> Path:
    return write_files(storage / VERSIONS / str(version), bundle_files(version=version))


def release(storage: Path, record: bytes) -> None:
    (storage / "releases").mkdir(parents=True)
    (storage / "releases/housing-price-api.json").write_bytes(record)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ["local"]),
        ({"mlflow_tracking_uri": "sqlite:///mlflow.db"}, ["local"]),
        (MLFLOW, ["mlflow", "local"]),
        (BUCKET, ["local"]),
        ({**BUCKET, "gcs_model_path": "x"}, ["gcs", "local"]),
        (GCP, ["gcs"]),
        ({**GCP, **MLFLOW}, ["mlflow", "gcs"]),
        ({**GCP, **MLFLOW, "local_model_path": "/x"}, ["mlflow", "gcs", "local"]),
    ],
)
def test_which_sources_are_configured_in_which_order(values: dict[str, str], expected: list[str]) -> None:
    assert [source.name for source in configured_sources(ServingSettings(**values))] == expected


def test_sources_say_where_they_look(tmp_path: Path) -> None:
    settings = ServingSettings(
        **GCP, mlflow_tracking_uri="https://me:secret@host/x/?key=1", local_model_path="/x"
    )
    assert [source.target for source in configured_sources(settings)] == [
        "https://host/x housing_price_model@production",
        "gs://b",
        "/x",
    ]
    in_bucket = ServingSettings(**BUCKET, gcs_model_path="/a/b/", housing_home=tmp_path)
    assert [source.target for source in configured_sources(in_bucket)] == [
        "gs://b/a/b",
        f"{tmp_path}/storage",
    ]


def served_version(settings: ServingSettings) -> int:
    return load_model(settings).bundle.manifest.model_version


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """The local storage root with versions 2 and 10."""
    root = tmp_path / "home/storage"
    for version in (2, 10):
        store_version(root, version)
    return root


@pytest.fixture
def local(storage: Path) -> ServingSettings:
    return ServingSettings(housing_home=storage.parent)


def test_newest_version_by_number_is_served_without_a_release(local: ServingSettings, storage: Path) -> None:
    loaded = load_model(local)

    assert loaded.bundle.manifest.model_version == 10
    assert (loaded.source, loaded.uri) == ("local", f"{storage}/{VERSIONS}/10")
    assert loaded.bundle.predict(columns_of(INSTANCE)).price.tolist() == [300_000]


def test_unfinished_and_foreign_folders_do_not_count(local: ServingSettings, storage: Path) -> None:
    (store_version(storage, 11) / "bundle.json").unlink()
    for name in ("012", "notes", "12.tmp", "99/nested"):
        write_files(storage / VERSIONS / name, bundle_files(version=99))

    assert served_version(local) == 10


def test_released_version_wins_over_a_newer_one(local: ServingSettings, storage: Path) -> None:
    release(storage, json.dumps({"stable_version": 2, "canary_version": 10}).encode())

    assert served_version(local) == 2


def test_a_released_version_that_is_absent_is_not_replaced_by_another(
    local: ServingSettings, storage: Path
) -> None:
    release(storage, b'{"stable_version": "7"}')

    with pytest.raises(ModelUnavailable, match=rf"{VERSIONS}/7/bundle\.json does not exist"):
        load_model(local)


@pytest.mark.parametrize(
    "record", [b"", b"[]", b"{}", b'{"stable_version": null}', b'{"stable_version": "x"}']
)
def test_an_unreadable_release_record_is_named(local: ServingSettings, storage: Path, record: bytes) -> None:
    release(storage, record)

    with pytest.raises(ModelUnavailable, match=r"housing-price-api\.json states no stable_version"):
        load_model(local)


def test_explicit_path_wins_over_the_release(local: ServingSettings, storage: Path, tmp_path: Path) -> None:
    release(storage, b'{"stable_version": 2}')
    folder = write_files(tmp_path / "own", bundle_files(version=5))

    loaded = load_model(local.model_copy(update={"local_model_path": folder}))

    assert (loaded.bundle.manifest.model_version, loaded.uri) == (5, str(folder))


def test_a_corrupt_bundle_is_reported_with_its_file(local: ServingSettings, storage: Path) -> None:
    (storage / VERSIONS / "10/model.onnx").write_bytes(b"x")

    with pytest.raises(ModelUnavailable, match=r"10/model\.onnx has sha256 .*copy the bundle again"):
        load_model(local)


def test_a_bundle_file_that_is_a_folder_is_reported(local: ServingSettings, storage: Path) -> None:
    (storage / VERSIONS / "10/model.onnx").unlink()
    (storage / VERSIONS / "10/model.onnx").mkdir()

    with pytest.raises(ModelUnavailable, match=r"10/model\.onnx cannot be read"):
        load_model(local)


def test_a_bundle_under_another_number_is_not_served(local: ServingSettings, storage: Path) -> None:
    write_files(storage / VERSIONS / "11", bundle_files(version=10))

    with pytest.raises(
        ModelUnavailable, match=r"11/bundle\.json says it is housing_price_model version 10, not"
    ):
        load_model(local)


def test_a_bundle_of_another_model_is_not_served(local: ServingSettings, storage: Path) -> None:
    write_files(storage / VERSIONS / "11", bundle_files(version=11, model_name="rent_model"))

    with pytest.raises(ModelUnavailable, match=r"11/bundle\.json says it is rent_model version 11, not"):
        load_model(local)


def test_a_model_that_predicts_no_number_is_not_served(local: ServingSettings, storage: Path) -> None:
    stumps = [(7, 4.0, float("nan"), float("nan"))]
    write_files(storage / VERSIONS / "11", bundle_files(version=11, stumps=stumps))

    with pytest.raises(ModelUnavailable, match=r"11 predicts no finite price: export the model again"):
        load_model(local)


def test_a_model_that_fails_while_predicting_is_not_served(local: ServingSettings, storage: Path) -> None:
    # Valid, but it picks a column that no row has.
    width = PREPROCESSING.spec().size
    graph = helper.make_graph(
        [helper.make_node("Gather", ["features", "column"], ["prediction"], axis=1)],
        "picks_a_column",
        [helper.make_tensor_value_info("features", TensorProto.DOUBLE, [None, width])],
        [helper.make_tensor_value_info("prediction", TensorProto.DOUBLE, [None, 1])],
        [numpy_helper.from_array(np.array([width]), "column")],
    )
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    files = {"model.onnx": model}
    listed = {name: sha256_hex(data) for name, data in files.items()}
    write_files(storage / VERSIONS / "11", {**bundle_files(version=11, files=listed), **files})

    with pytest.raises(ModelUnavailable, match=r"11 cannot predict: export the model again"):
        load_model(local)


def test_empty_storage_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotRegistered, match=r"no model version in .*: materialize registered_model"):
        load_model(ServingSettings(housing_home=tmp_path / "nothing"))


def upload(bucket: str, prefix: str, files: Mapping[str, bytes]) -> None:
    from google.cloud import storage as gcs  # noqa: PLC0415

    target = gcs.Client().bucket(bucket)
    for name, data in files.items():
        target.blob(f"{prefix}{name}").upload_from_string(data)


@pytest.fixture
def gcp(gcs_bucket: str) -> ServingSettings:
    """Settings of a cloud deployment whose bucket holds versions 2 and 10."""
    for version in (2, 10):
        upload(gcs_bucket, f"{VERSIONS}/{version}/", bundle_files(version=version, kind="neighbours"))
    return ServingSettings(housing_deployment="gcp", gcs_bucket_name=gcs_bucket)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without the pauses."""
    monkeypatch.setattr(deadline, "LONGEST_PAUSE_SECONDS", 0.0)


@pytest.fixture
def proxy(gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A server that misbehaves as scripted in front of the storage server."""
    with scripted_server(gcs_server.endpoint) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


def test_newest_version_in_a_bucket_predicts_like_the_local_one(gcp: ServingSettings) -> None:
    loaded = load_model(gcp)

    assert loaded.bundle.manifest.model_version == 10
    assert (loaded.source, loaded.uri) == ("gcs", f"gs://{gcp.gcs_bucket_name}/{VERSIONS}/10")
    null_bedrooms = {**INSTANCE, "total_bedrooms": None}
    assert loaded.bundle.predict(columns_of(INSTANCE, null_bedrooms)).price.tolist() == [300_000, 300_000]


def test_release_record_in_a_bucket(gcp: ServingSettings) -> None:
    upload(str(gcp.gcs_bucket_name), "releases/", {"housing-price-api.json": b'{"stable_version": 2}'})

    assert served_version(gcp) == 2


def test_bundle_prefix_in_a_bucket_wins_and_needs_no_cloud_deployment(gcs_bucket: str) -> None:
    upload(gcs_bucket, "handed/over/", bundle_files(version=6))
    settings = ServingSettings(gcs_bucket_name=gcs_bucket, gcs_model_path="/handed/over/")

    loaded = load_model(settings)

    assert (loaded.bundle.manifest.model_version, loaded.uri) == (6, f"gs://{gcs_bucket}/handed/over")


def test_absent_prefix_and_bucket_are_named(gcs_bucket: str) -> None:
    settings = ServingSettings(gcs_bucket_name=gcs_bucket, gcs_model_path="absent")
    with pytest.raises(ModelUnavailable, match=rf"gs://{gcs_bucket}/absent/bundle\.json does not exist"):
        load_model(settings)

    settings = ServingSettings(housing_deployment="gcp", gcs_bucket_name="no-such-bucket")
    with pytest.raises(ModelUnavailable, match="bucket no-such-bucket does not exist: create it"):
        load_model(settings)


def test_passing_failures_of_the_storage_are_retried(gcp: ServingSettings, proxy: ScriptedServer) -> None:
    proxy.script = [answer(503), answer(429), answer(404), break_off]

    assert served_version(gcp) == 10
    assert not proxy.script


def test_storage_that_keeps_failing_is_reported(gcp: ServingSettings, proxy: ScriptedServer) -> None:
    proxy.afterwards = answer(503)

    with pytest.raises(ModelUnavailable, match="the storage keeps failing"):
        load_model(gcp)
    assert len(proxy.requests) == 3


def test_refused_credentials_are_reported(gcp: ServingSettings, proxy: ScriptedServer) -> None:
    proxy.afterwards = answer(401)

    with pytest.raises(ModelUnavailable, match="check the network and the Google credentials"):
        load_model(gcp)


def test_forbidden_bucket_names_the_role(gcp: ServingSettings, proxy: ScriptedServer) -> None:
    proxy.afterwards = answer(403)

    with pytest.raises(ModelUnavailable, match=r"is forbidden: grant .*roles/storage\.objectViewer"):
        load_model(gcp)


def test_bytes_changed_on_the_way_are_never_served(gcp: ServingSettings, proxy: ScriptedServer) -> None:
    proxy.afterwards = corrupt

    with pytest.raises(ModelUnavailable):
        load_model(gcp)


def test_unreachable_storage_is_reported(gcp: ServingSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")

    with pytest.raises(ModelUnavailable, match="cannot be reached: check the network"):
        load_model(gcp)


@pytest.mark.parametrize("behaviour", [drip, drip_headers, hang])
@pytest.mark.parametrize("answered_before", [0, 3])
def test_storage_that_drips_or_hangs_is_given_up_in_time(
    gcp: ServingSettings, proxy: ScriptedServer, behaviour: Behaviour, answered_before: int
) -> None:
    impatient = gcp.model_copy(update={"housing_source_timeout_seconds": 1.0})
    proxy.script = [pass_on] * answered_before
    proxy.afterwards = behaviour

    started = time.monotonic()
    with pytest.raises(ModelUnavailable, match=r"^gs://\S+ did not name and deliver a model within 1 s$"):
        load_model(impatient)
    assert time.monotonic() - started < UNHURRIED_SECONDS
