"""Storage: one contract on a folder and on GCS, whole objects whatever happens, errors that name it."""

import multiprocessing
import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from housing_assets.storage import (
    BucketForbidden,
    BucketMissing,
    ChecksumMismatch,
    CredentialsMissing,
    LocalStore,
    ObjectConflict,
    ObjectMissing,
    ObjectNameInvalid,
    ObjectStore,
    StorageError,
    StorageReadFailed,
    StorageRefused,
    StorageUnavailable,
    StorageWriteFailed,
    StoredObject,
    open_store,
)
from housing_assets_tests.conftest import GcsServer
from housing_assets_tests.scripted_http import (
    ScriptedServer,
    answer,
    corrupt,
    hang,
    lose_answer,
    scripted_server,
)

RACERS = 8
KILLS = 20
# Large enough that a kill often lands inside a write.
OBJECT_BYTES = 2_000_000
# Processes forked from a small single-threaded server: quick to start, whatever threads other tests left.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["housing_assets.storage.gcs", "pytest"])


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "bucket":
        return f"gs://{request.getfixturevalue('gcs_bucket')}"
    return str(tmp_path / "storage")


@pytest.fixture
def store(root: str) -> ObjectStore:
    return open_store(root)


@pytest.fixture
def faulty_gcs(gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    with scripted_server(gcs_server.endpoint) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


@pytest.fixture
def faulty_store(gcs_server: GcsServer, faulty_gcs: ScriptedServer) -> ObjectStore:
    assert faulty_gcs.url
    return open_store(f"gs://{gcs_server.new_bucket()}", deadline=3)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# One contract


def test_what_is_written_is_read_back(store: ObjectStore, root: str) -> None:
    stored = store.write("data/01-raw/2026-11-22/housing.parquet", b"rows")
    uri = f"{root}/data/01-raw/2026-11-22/housing.parquet"
    digest = "bc51e9e65d79e1c90ba544ab2eae1044ccdf8c1af7a559ba375cba4276f7d99e"
    assert stored == StoredObject(uri, 4, digest, stored.generation)
    assert store.uri("data/01-raw/2026-11-22/housing.parquet") == uri
    assert store.read("data/01-raw/2026-11-22/housing.parquet") == b"rows"
    assert store.root == root


def test_a_large_file_is_stored_and_read_as_a_file(store: ObjectStore, root: str, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(20_000_000)
    source = tmp_path / "large"
    source.write_bytes(content)
    with source.open("rb") as file:
        file.seek(7)  # wherever it was left, all of it is stored
        stored = store.write_file("monitoring/large.parquet", file)
    assert stored == StoredObject(
        f"{root}/monitoring/large.parquet", len(content), sha256(content).hexdigest(), stored.generation
    )
    with store.open("monitoring/large.parquet") as file:
        store.write("monitoring/large.parquet", b"later")
        file.seek(-5, os.SEEK_END)
        assert file.read() == content[-5:]
        file.seek(0)
        assert file.read() == content
    assert store.read("monitoring/large.parquet") == b"later"


def test_a_missing_object_cannot_be_opened(store: ObjectStore) -> None:
    store.write("data/other", b"")
    with pytest.raises(ObjectMissing, match="data/absent"):
        store.open("data/absent")


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    assert store.write("empty.json", b"").size == 0
    assert store.read("empty.json") == b""
    assert store.exists("empty.json")


def test_overwriting_replaces_and_raises_the_generation(store: ObjectStore) -> None:
    first = store.write("a.json", b"1")
    second = store.write("a.json", b"22")
    assert store.read("a.json") == b"22"
    assert (store.info("a.json").size, store.info("a.json").generation) == (2, second.generation)
    assert second.generation is not None
    assert first.generation is not None
    assert second.generation > first.generation


def test_a_missing_object_is_named_and_is_a_file_not_found(store: ObjectStore, root: str) -> None:
    store.write("other.json", b"1")
    assert not store.exists("a/b.json")
    for call in (store.read, store.info):
        with pytest.raises(ObjectMissing, match=f"no object at {root}/a/b.json") as caught:
            call("a/b.json")
        assert isinstance(caught.value, FileNotFoundError)
        assert isinstance(caught.value, StorageError)


def test_listing_is_by_name_prefix_and_sorted(store: ObjectStore) -> None:
    for name in ("models/m/2/bundle.json", "models/m/10/bundle.json", "models/mm/1/x", "data/x"):
        store.write(name, b"")
    assert store.list("models/m/") == ["models/m/10/bundle.json", "models/m/2/bundle.json"]
    assert store.list("models/m") == [*store.list("models/m/"), "models/mm/1/x"]
    assert len(store.list()) == 4
    assert store.list("nothing/here/") == []


def test_deleting_twice_leaves_nothing(store: ObjectStore) -> None:
    store.write("a/b.json", b"1")
    store.delete("a/b.json")
    store.delete("a/b.json")
    store.delete("no/such/folder.json")
    assert not store.exists("a/b.json")
    assert store.list() == []


def test_the_expected_checksum_is_compared(store: ObjectStore, root: str) -> None:
    stored = store.write("a.bin", b"1")
    assert store.read("a.bin", expected_sha256=stored.sha256.upper()) == b"1"
    with pytest.raises(ChecksumMismatch, match=f"{root}/a.bin: sha256 is {stored.sha256}, expected 0000"):
        store.read("a.bin", expected_sha256="0000")


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "a/../b", "a//b", ".hidden", "a/.b.tmp", "a\\b", "a\nb", "a/"]
)
def test_names_that_could_leave_the_root_are_refused(store: ObjectStore, name: str) -> None:
    for call in (store.read, store.exists, store.delete, store.info, store.uri):
        with pytest.raises(ObjectNameInvalid, match="use relative names"):
            call(name)
    with pytest.raises(ObjectNameInvalid):
        store.write(name, b"")
    with pytest.raises(ObjectNameInvalid):
        store.list("../")


@pytest.mark.parametrize("root", ["gs://", "gs://bucket/folder"])
def test_a_root_is_a_bucket_not_a_folder_in_it(root: str) -> None:
    with pytest.raises(ObjectNameInvalid, match="expected gs://<bucket>, check GCS_BUCKET_NAME"):
        open_store(root)


# Preconditions


def test_if_absent_writes_once(store: ObjectStore, root: str) -> None:
    store.write("claim.json", b"mine", if_absent=True)
    with pytest.raises(ObjectConflict, match=f"{root}/claim.json exists already"):
        store.write("claim.json", b"yours", if_absent=True)
    assert store.read("claim.json") == b"mine"


def test_if_generation_writes_only_over_what_was_seen(store: ObjectStore, root: str) -> None:
    seen = store.write("release.json", b"1").generation
    store.write("release.json", b"2", if_generation=seen)
    with pytest.raises(ObjectConflict, match=rf"{root}/release.json has generation \d+, expected {seen}"):
        store.write("release.json", b"3", if_generation=seen)
    assert store.read("release.json") == b"2"
    with pytest.raises(ObjectConflict, match=r"absent\.json has generation None, expected 7"):
        store.write("absent.json", b"", if_generation=7)


def test_two_preconditions_at_once_are_a_programming_error(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="if_absent or if_generation, not both"):
        store.write("a", b"", if_absent=True, if_generation=1)


def test_a_large_object_is_refused_before_it_is_uploaded(store: ObjectStore) -> None:
    large = bytes(9 * 1024 * 1024)
    first = store.write("model.onnx", large, if_absent=True)
    with pytest.raises(ObjectConflict, match="exists already"):
        store.write("model.onnx", large + b"1", if_absent=True)
    with pytest.raises(ObjectConflict, match="expected 5"):
        store.write("model.onnx", large + b"1", if_generation=5)
    store.write("model.onnx", large + b"22", if_generation=first.generation)
    assert store.info("model.onnx").size == len(large) + 2


def _open(root: str, endpoint: str | None) -> ObjectStore:
    """The store in another process, which has its own environment."""
    if endpoint is not None:
        os.environ["STORAGE_EMULATOR_HOST"] = endpoint
    return open_store(root)


def _claim(root: str, endpoint: str | None, racer: int, barrier: object, results: object) -> None:
    store = _open(root, endpoint)
    barrier.wait(30)  # type: ignore[attr-defined]
    try:
        store.write("races/claim.json", b"racer %d" % racer, if_absent=True)
    except ObjectConflict:
        return
    results.put(racer)  # type: ignore[attr-defined]


def test_eight_racing_processes_have_one_winner(root: str) -> None:
    barrier, results = PROCESSES.Barrier(RACERS), PROCESSES.Queue()
    shared = (root, os.environ.get("STORAGE_EMULATOR_HOST"))
    racers = [
        PROCESSES.Process(target=_claim, args=(*shared, number, barrier, results)) for number in range(RACERS)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0] * RACERS
    winner = results.get(timeout=5)
    assert results.empty()
    assert open_store(root).read("races/claim.json") == b"racer %d" % winner


def test_eight_racing_threads_lose_no_update(store: ObjectStore) -> None:
    store.write("counter.json", b"0")

    def increment(_: int) -> None:
        while True:
            seen = store.info("counter.json")
            value = int(store.read("counter.json")) + 1
            try:
                store.write("counter.json", b"%d" % value, if_generation=seen.generation)
            except ObjectConflict:
                continue
            return

    with ThreadPoolExecutor(RACERS) as pool:
        list(pool.map(increment, range(2 * RACERS)))
    assert store.read("counter.json") == b"16"


# Crashes


def _rewrite_for_ever(root: str, endpoint: str | None, started: object) -> None:
    store = _open(root, endpoint)
    number = 0
    while True:
        number += 1
        store.write("crash/object.bin", _content(number))
        started.set()  # type: ignore[attr-defined]


def _content(number: int) -> bytes:
    return b"%08d" % number * (OBJECT_BYTES // 8)


def test_twenty_kills_leave_the_old_object_or_the_new_one(root: str) -> None:
    store = open_store(root)
    store.write("crash/object.bin", _content(0))
    shared = (root, os.environ.get("STORAGE_EMULATOR_HOST"))
    chance = random.Random(20)
    for _ in range(KILLS):
        started = PROCESSES.Event()
        writer = PROCESSES.Process(target=_rewrite_for_ever, args=(*shared, started))
        writer.start()
        assert started.wait(30)
        time.sleep(chance.uniform(0, 0.06))
        writer.kill()
        writer.join()
        found = store.read("crash/object.bin")
        assert found == _content(int(found[:8]))
        assert len(found) == OBJECT_BYTES
    store.write("crash/object.bin", b"clean run")
    assert store.read("crash/object.bin") == b"clean run"
    if not root.startswith("gs://"):
        assert files_in(Path(root, "crash")) == ["object.bin"]


def test_leftovers_of_a_killed_writer_go_with_the_next_write_and_are_never_listed(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    leftover = folder / ".model.onnx.4242.0a1b2c3d.tmp"
    leftover.write_bytes(b"half a mod")
    (folder / ".keep.tmp").touch()
    store = LocalStore(tmp_path)
    assert store.list() == []
    store.write("models/bundle.json", b"{}")
    assert files_in(folder) == [".keep.tmp", "bundle.json"]


def test_a_full_disk_is_reported_and_the_old_object_stays(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(
            f"needs a small file system, mounting is not permitted: {mounted.stderr.decode().strip()}"
        )
    try:
        store = LocalStore(tmp_path)
        store.write("a/object.bin", b"old" * 100_000)
        path = tmp_path / "a/object.bin"
        with pytest.raises(StorageWriteFailed, match=f"cannot write {path}: No space left on device"):
            store.write("a/object.bin", b"new" * 300_000)
        assert store.read("a/object.bin") == b"old" * 100_000
        assert files_in(path.parent) == ["object.bin"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# Folders


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("a", b"1")
    with pytest.raises(StorageWriteFailed, match=f"cannot write {tmp_path}/a/b"):
        store.write("a/b", b"2")
    with pytest.raises(ObjectMissing, match=f"{tmp_path}/a/b"):
        store.read("a/b")
    store.delete("a/b")
    store.write("folder/x", b"3")
    with pytest.raises(StorageWriteFailed, match=f"cannot delete {tmp_path}/folder"):
        store.delete("folder")


def test_an_unreadable_file_is_not_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(StorageReadFailed, match=f"cannot read {tmp_path}/loop: Too many levels"):
        LocalStore(tmp_path).read("loop")


def test_a_lock_that_is_never_released_is_reported(tmp_path: Path) -> None:
    holder = LocalStore(tmp_path)
    with (
        holder._locked(tmp_path),
        pytest.raises(StorageUnavailable, match=f"{tmp_path} was locked by another writer for 0.1 s"),
    ):
        LocalStore(tmp_path, lock_timeout=0.1).write("a", b"")


def test_a_claim_holds_where_locks_do_not_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.write("claim", b"theirs")
    # As on a network file system: the other machine's file appears after ours was found to be absent.
    monkeypatch.setattr("housing_assets.storage.local._state", lambda _: None)
    with pytest.raises(ObjectConflict, match=f"{tmp_path}/claim exists already"):
        store.write("claim", b"ours", if_absent=True)
    assert store.read("claim") == b"theirs"


# Buckets


def test_a_missing_bucket_is_named_with_what_to_set(gcs_bucket: str) -> None:
    store = open_store(f"gs://{gcs_bucket}-absent")
    for call in (store.read, store.exists, store.info, store.list, store.delete):
        with pytest.raises(
            BucketMissing,
            match=f"bucket {gcs_bucket}-absent does not exist: create it or set GCS_BUCKET_NAME",
        ):
            call("a.json")
    with pytest.raises(BucketMissing):
        store.write("a.json", b"1")


def test_a_forbidden_bucket_is_named_with_the_role_it_needs(
    faulty_gcs: ScriptedServer, faulty_store: ObjectStore
) -> None:
    faulty_gcs.afterwards = answer(403)
    bucket = faulty_store.root.removeprefix("gs://")
    for call in (faulty_store.read, faulty_store.exists, faulty_store.list):
        with pytest.raises(
            BucketForbidden, match=rf"access to bucket {bucket} is forbidden: .* roles/storage\.objectUser"
        ):
            call("a.json")
    with pytest.raises(BucketForbidden):
        faulty_store.write("a.json", b"1")
    assert len(faulty_gcs.requests) == 4


def test_credentials_that_are_refused_are_named(
    faulty_gcs: ScriptedServer, faulty_store: ObjectStore
) -> None:
    faulty_gcs.afterwards = answer(401)
    with pytest.raises(
        CredentialsMissing, match=f"{faulty_store.root}: the Google Cloud credentials do not work"
    ):
        faulty_store.read("a.json")


def test_a_missing_object_where_listing_is_forbidden(
    faulty_gcs: ScriptedServer, faulty_store: ObjectStore
) -> None:
    faulty_gcs.script = [answer(404), answer(403), answer(404), answer(400)]
    with pytest.raises(BucketForbidden, match=r"roles/storage\.objectUser"):
        faulty_store.read("a.json")
    with pytest.raises(ObjectMissing, match=r"a\.json"):
        faulty_store.read("a.json")


def test_a_server_that_is_down_is_reported_within_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
    store = open_store("gs://bucket", deadline=0.6)
    for call in (lambda: store.write("a.json", b"1"), lambda: store.read("a.json")):
        start = time.monotonic()
        with pytest.raises(
            StorageUnavailable, match=rf"gs://bucket/a\.json: {endpoint} gave no answer in time"
        ):
            call()
        assert time.monotonic() - start < 5


def test_a_server_that_hangs_is_reported(faulty_gcs: ScriptedServer) -> None:
    faulty_gcs.afterwards = hang
    start = time.monotonic()
    with pytest.raises(StorageUnavailable, match=r"gs://bucket/a\.json"):
        open_store("gs://bucket", deadline=0.4).info("a.json")
    assert time.monotonic() - start < 5


def test_a_transient_failure_is_retried(faulty_gcs: ScriptedServer, faulty_store: ObjectStore) -> None:
    faulty_gcs.script = [answer(503)]
    faulty_store.write("a.json", b"1", if_absent=True)
    faulty_gcs.script = [answer(429)]
    assert faulty_store.read("a.json") == b"1"
    assert len(faulty_gcs.requests) == 4


def test_a_refusal_is_not_taken_for_an_outage(faulty_gcs: ScriptedServer, faulty_store: ObjectStore) -> None:
    faulty_gcs.script = [answer(400)]
    with pytest.raises(
        StorageRefused, match=f"{faulty_store.root}/a.json: the server refused the request: 400"
    ):
        faulty_store.read("a.json")
    assert len(faulty_gcs.requests) == 1


def test_a_write_whose_answer_was_lost_is_not_taken_for_a_lost_race(
    faulty_gcs: ScriptedServer, faulty_store: ObjectStore
) -> None:
    faulty_gcs.script = [lose_answer]
    stored = faulty_store.write("claim.json", b"mine", if_absent=True)
    assert stored.generation == faulty_store.info("claim.json").generation
    faulty_gcs.script = [lose_answer]
    faulty_store.write("claim.json", b"again", if_generation=stored.generation)
    assert faulty_store.read("claim.json") == b"again"


def test_bytes_damaged_on_the_way_are_not_returned(
    faulty_gcs: ScriptedServer, faulty_store: ObjectStore
) -> None:
    faulty_store.write("a.json", b"rows")
    faulty_gcs.script = [corrupt]
    with pytest.raises(
        ChecksumMismatch, match=f"{faulty_store.root}/a.json: the bytes transferred do not match"
    ):
        faulty_store.read("a.json")
    assert faulty_store.read("a.json") == b"rows"


def test_missing_credentials_are_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    with pytest.raises(CredentialsMissing, match="gcloud auth application-default login"):
        open_store("gs://bucket")
