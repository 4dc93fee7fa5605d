"""Tables in parts: the same rows, hashes and errors as in memory, by whoever works on them, killed or not."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from benchmarks.block_groups import block_groups
from housing_assets.datasets import dataset as datasets
from housing_assets.datasets import steps
from housing_assets.datasets.dataset import Dataset, find_dataset, manifest_name, read_part
from housing_assets.engines import Engine, EngineUnavailable, LocalEngine, engine_at
from housing_assets.formats import FormatError
from housing_assets.io_managers import store_value
from housing_assets.ml import cleaning
from housing_assets.ml.cleaning import ID_COLUMN, content_hash
from housing_assets.ml.schemas import PROCESSED_SCHEMA, RAW_SCHEMA, validate
from housing_assets.ml.split import TEST_FRACTION, split
from housing_assets.monitoring_objects import TrainingDataMissing, training_rows
from housing_assets.sources import NotANumber, SourceMissing, list_files
from housing_assets.storage import LocalStore, open_store
from housing_assets_tests.conftest import free_port
from housing_assets_tests.dask_cluster import DaskCluster, KillingEngine, dask_cluster

FILES, FILE_ROWS = 3, 1_000
# Steps that kill a worker: rows on their way to their part, and rows that arrive there.
FATAL = ("_deal", "_unify")
NAMES = {name: f"data/{name}/{name}.parquet" for name in ("raw", "processed", "featured", "train", "test")}


class SameProcess:
    """An engine for what does not depend on who works."""

    def map(self, work: Callable, items: list) -> list:
        return [work(item) for item in items]


@dataclass(frozen=True)
class Worked:
    """All tables of one way through the steps, by name, and what cleaning met."""

    tables: dict[str, Dataset]
    duplicates_dropped: int
    capped_rows: int

    @property
    def hashes(self) -> dict[str, str]:
        return {name: table.content_hash for name, table in self.tables.items()}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 700 rows, so that few rows make many; only where this process decides on them."""
    monkeypatch.setattr(steps, "PART_ROWS", 700)


@pytest.fixture(scope="module")
def frames() -> list[pd.DataFrame]:
    """Source rows as files; a duplicate of the first file's rows is in the last one."""
    made = [block_groups(FILE_ROWS, number) for number in range(FILES)]
    made[-1] = pd.concat([made[-1], made[0].head(50)], ignore_index=True)
    return made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, frames: list[pd.DataFrame]) -> str:
    folder = tmp_path_factory.mktemp("source files")
    for number, frame in enumerate(frames):
        frame.to_csv(folder / f"{number}.csv", index=False)
    return f"{folder}/"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    # As many as it takes to have two left of them.
    with dask_cluster(tmp_path_factory.mktemp("cluster"), workers=2 + len(FATAL)) as cluster:
        yield cluster


def worked(source: str, root: Path, engine: Engine) -> Worked:
    raw, _ = steps.read_files(list_files(source), str(root), NAMES["raw"], engine)
    clean, dropped, capped = steps.process(raw, NAMES["processed"], engine)
    featured = steps.add_row_features(clean, NAMES["featured"], engine)
    train, test, shared = steps.split_sets(featured, (NAMES["train"], NAMES["test"]), TEST_FRACTION, engine)
    assert shared == []
    tables = {"raw": raw, "processed": clean, "featured": featured, "train": train, "test": test}
    return Worked(tables, dropped, capped)


@pytest.fixture(scope="module")
def in_memory(frames: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    raw = pd.concat(frames, ignore_index=True)
    processed = cleaning.process(raw).frame
    featured = cleaning.add_row_features(processed)
    train, test = split(featured)
    return {"raw": raw, "processed": processed, "featured": featured, "train": train, "test": test}


def test_every_table_is_the_one_in_memory_to_the_last_bit(
    source: str, tmp_path: Path, in_memory: dict[str, pd.DataFrame], small_parts: None
) -> None:
    found = worked(source, tmp_path, SameProcess())
    assert len(found.tables["processed"].parts) == 5
    for name, frame in in_memory.items():
        pd.testing.assert_frame_equal(found.tables[name].frame(), frame, check_exact=True)
    assert found.hashes == {name: content_hash(frame) for name, frame in in_memory.items()}
    expected = cleaning.process(in_memory["raw"])
    assert (found.duplicates_dropped, found.capped_rows) == (
        expected.duplicates_dropped,
        expected.capped_rows,
    )
    # One in each file, and fifty that two files share.
    assert found.duplicates_dropped == FILES + 50


def test_parts_are_ranges_of_ids_and_nothing_is_left_of_the_way_there(
    source: str, tmp_path: Path, small_parts: None
) -> None:
    table = worked(source, tmp_path, SameProcess()).tables["processed"]
    ids = [read_part(str(tmp_path), part)[ID_COLUMN] for part in table.parts]
    assert all(one.max() < other.min() for one, other in itertools.pairwise(ids))
    assert open_store(str(tmp_path)).list("scratch") == []


def test_blocks_of_the_hash_go_across_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in (cleaning, datasets):
        monkeypatch.setattr(module, "BLOCK_ROWS", 700)
    frame = cleaning.process(block_groups(2_000)).frame
    pieces = [frame.iloc[:100], frame.iloc[100:1_500], frame.iloc[1_500:]]
    parts = [
        datasets.write_part(str(tmp_path), "x", number, piece.reset_index(drop=True))
        for number, piece in enumerate(pieces)
    ]
    table = steps.stored_table(str(tmp_path), parts, SameProcess())
    assert [sum(stop - start for _, start, stop in block) for block in table.blocks()] == [700, 700, 598]
    assert table.content_hash == content_hash(frame)
    assert content_hash(frame) != content_hash(frame.iloc[::-1])


def test_processors_of_this_machine_and_a_cluster_make_the_same_tables(
    source: str, tmp_path: Path, cluster: DaskCluster, small_parts: None
) -> None:
    hashes = [
        worked(source, tmp_path / name, engine).hashes
        for name, engine in {
            "one": SameProcess(),
            "local": LocalEngine(),
            "cluster": engine_at(cluster.address),
        }.items()
    ]
    assert hashes[0] == hashes[1] == hashes[2]


def test_workers_that_are_killed_cost_no_row(
    source: str, tmp_path: Path, in_memory: dict[str, pd.DataFrame], cluster: DaskCluster, small_parts: None
) -> None:
    victims = tmp_path / "victims"
    victims.mkdir()
    before = sum(process.poll() is None for process in cluster.workers)
    found = worked(source, tmp_path / "root", KillingEngine(cluster, victims, FATAL))
    assert {path.name for path in victims.iterdir()} == set(FATAL)
    assert sum(process.poll() is None for process in cluster.workers) == before - len(FATAL)
    assert found.hashes == {name: content_hash(frame) for name, frame in in_memory.items()}
    assert len(found.tables["processed"]) == len(in_memory["processed"])


def test_contradicting_rows_of_different_files_are_named_as_in_memory(
    tmp_path: Path, frames: list[pd.DataFrame], small_parts: None
) -> None:
    wrong = [frames[0], frames[1].copy()]
    wrong[1] = pd.concat([wrong[1], frames[0].iloc[[7, 9]].assign(median_income=1.0)], ignore_index=True)
    (tmp_path / "source").mkdir()
    for number, frame in enumerate(wrong):
        frame.to_parquet(tmp_path / "source" / f"{number}.parquet", index=False)
    with pytest.raises(ValueError) as in_memory:
        cleaning.process(pd.concat(wrong, ignore_index=True))
    assert "rows 8, 2001; rows 10, 2002" in str(in_memory.value)
    with pytest.raises(ValueError) as in_parts:
        worked(f"{tmp_path}/source/", tmp_path / "root", SameProcess())
    assert str(in_parts.value) == str(in_memory.value)
    assert open_store(str(tmp_path / "root")).list("scratch") == []


def test_failing_rows_are_numbered_through_all_parts(
    tmp_path: Path, frames: list[pd.DataFrame], small_parts: None
) -> None:
    wrong = frames[0].copy()
    wrong.loc[[3, 900], "median_income"] = -1.0
    wrong.to_csv(tmp_path / "rows.csv", index=False)
    raw, _ = steps.read_files([str(tmp_path / "rows.csv")], str(tmp_path), NAMES["raw"], SameProcess())
    assert len(raw.parts) == 2
    found = steps.validate_parts(raw, RAW_SCHEMA, LocalEngine())
    expected = validate(wrong, RAW_SCHEMA)
    assert not found.passed
    pd.testing.assert_frame_equal(found.failures, expected.failures)
    assert "row 4 (-1.0), row 901 (-1.0)" in found.summary
    clean = steps.process(raw, NAMES["processed"], SameProcess())[0]
    assert steps.validate_parts(clean, PROCESSED_SCHEMA, SameProcess()).failures["row"].notna().all()


def test_a_file_that_is_no_table_is_named_wherever_it_is_read(
    tmp_path: Path, frames: list[pd.DataFrame], cluster: DaskCluster
) -> None:
    frames[0].to_csv(tmp_path / "good.csv", index=False)
    frames[1].astype({"population": object}).replace(
        {"population": {frames[1].loc[2, "population"]: "many"}}
    ).to_csv(tmp_path / "wrong.csv", index=False)
    with pytest.raises(
        NotANumber, match=r"wrong\.csv: text where a number belongs: column population, row 3"
    ):
        steps.read_files(list_files(f"{tmp_path}/"), str(tmp_path), NAMES["raw"], engine_at(cluster.address))


def test_a_folder_that_is_not_there_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no folder at"):
        list_files(f"{tmp_path}/nowhere/")
    (tmp_path / ".hidden").touch()
    with pytest.raises(SourceMissing, match="no files there"):
        list_files(f"{tmp_path}/")


def test_files_below_a_prefix_of_a_bucket_are_listed(gcs_bucket: str) -> None:
    store = open_store(f"gs://{gcs_bucket}")
    for name in ("rows/b.csv", "rows/a.csv", "rows/_SUCCESS", "rows/older/c.csv", "rows.csv"):
        store.write(name, b"x")
    assert list_files(f"gs://{gcs_bucket}/rows/") == [f"gs://{gcs_bucket}/rows/{name}.csv" for name in "ab"]


def test_a_table_may_change_from_one_object_to_parts_and_back_and_what_was_replaced_is_kept(
    tmp_path: Path, frames: list[pd.DataFrame]
) -> None:
    store, name = LocalStore(tmp_path), NAMES["train"]
    part = datasets.write_part(store.root, datasets.parts_folder(name), 0, frames[0])
    table = steps.stored_table(store.root, [part], SameProcess())

    store_value(store, name, frames[1])
    assert find_dataset(store, name) is None
    store_value(store, name, table)
    assert not store.exists(name)
    assert find_dataset(store, name) == table
    store_value(store, name, frames[1])
    assert find_dataset(store, name) is None
    assert not store.exists(manifest_name(name))
    kept = store.list("data/train/replaced/")
    assert sorted(Path(one).suffix for one in kept) == [".json", ".parquet"]
    [manifest] = [one for one in kept if one.endswith(".json")]
    pd.testing.assert_frame_equal(Dataset.from_json(store.root, store.read(manifest)).frame(), frames[0])


def test_monitoring_finds_training_rows_in_parts_by_their_hash(
    tmp_path: Path, frames: list[pd.DataFrame]
) -> None:
    store, name = LocalStore(tmp_path), "data/04-split/2025-01-05/train/train.parquet"
    for frame in frames[:2]:
        part = datasets.write_part(store.root, datasets.parts_folder(name), 0, frame)
        store_value(store, name, steps.stored_table(store.root, [part], SameProcess()))
    for frame in frames[:2]:
        manifest = SimpleNamespace(snapshot="2025-01-05", data_hash=content_hash(frame), model_version="1")
        found = training_rows(store, SimpleNamespace(manifest=manifest))
        pd.testing.assert_frame_equal(found, frame)
    with pytest.raises(TrainingDataMissing, match=r"no object in .* holds them"):
        training_rows(
            store, SimpleNamespace(manifest=SimpleNamespace(**{**vars(manifest), "data_hash": "0"}))
        )


def test_what_is_no_manifest_is_refused() -> None:
    for data in (b"[]", b"{}", b'{"content_hash": "x", "parts": [{"name": "y"}]}', b"\x00"):
        with pytest.raises(FormatError, match="not the manifest of a table in parts"):
            Dataset.from_json("/root", data)


def test_a_scheduler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("housing_assets.engines.CONNECT_SECONDS", 0.5)
    with pytest.raises(
        EngineUnavailable, match=r"no Dask scheduler answers at 127\.0\.0\.1:.*`dask scheduler`"
    ):
        engine_at(f"dask://127.0.0.1:{free_port()}").map(str, [1])


def test_a_cluster_without_workers_says_how_to_start_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("housing_assets.engines.WORKERS_SECONDS", 0.5)
    with (
        dask_cluster(tmp_path, workers=0) as cluster,
        pytest.raises(EngineUnavailable, match=r"has no worker: start some \(`dask worker"),
    ):
        engine_at(cluster.address).map(str, [1])


@pytest.mark.parametrize("address", ["ray://host:1", "dask://host", "dask://:1", ""])
def test_an_address_that_names_no_engine_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="set it to local or to dask://host:port"):
        engine_at(address)
