"""A compaction that is killed at any moment loses nothing, doubles nothing, and leaves nothing behind.

`HOUSING_COMPACTION_KILLS` sets the number of kills.
"""

import multiprocessing
import os
import random
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pandas as pd
import pytest

from housing_assets.monitoring_objects import compact_day, log_name
from housing_assets.storage import LocalStore
from housing_assets.storage.local import TEMPORARY
from housing_assets_tests.monitoring.days import DAY, answered, resampled
from housing_assets_tests.monitoring.storage_roots import logged, served

KILLS = int(os.environ.get("HOUSING_COMPACTION_KILLS", "12"))
ROWS = 20_000
FILES = 10
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["housing_assets.monitoring_objects"])


def compact_again_and_again(root: str, scratch: str, begun: Event) -> None:
    """Compact until someone kills this process."""
    tempfile.tempdir = scratch
    store = LocalStore(root)
    begun.set()
    while True:
        compact_day(store, DAY)


def seconds_of_a_compaction(store: LocalStore) -> float:
    started = time.perf_counter()
    compact_day(store, DAY)
    return time.perf_counter() - started


@pytest.mark.timeout(60 + 5 * KILLS)
def test_a_killed_compaction_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    store, scratch = LocalStore(tmp_path / "storage"), tmp_path / "scratch"
    scratch.mkdir()
    rows = answered(resampled(ROWS, seed=1))
    parts = [rows[start::FILES] for start in range(FILES)]
    served(store, *parts[:-1])
    raw = store.list("monitoring/predictions/")
    usual = seconds_of_a_compaction(store)
    before = store.read(log_name(DAY))
    # The late file and a file that was stored twice: from now on there is something to gain and to double.
    served(store, parts[-1], name="late")
    served(store, parts[0], name="twice")
    chance = random.Random(7)
    seen = set()
    for number in range(KILLS):
        begun = PROCESSES.Event()
        process = PROCESSES.Process(
            target=compact_again_and_again, args=(store.root, str(scratch), begun), daemon=True
        )
        process.start()
        assert begun.wait(60)
        # Ever later on the average: from the first reading of a file to after the first new table.
        time.sleep(chance.uniform(0, usual * (1 + number)))
        process.kill()
        process.join()
        table = logged(store)
        assert len(table) in (ROWS - ROWS // FILES, ROWS)
        assert not table.duplicated(["request_id", "instance"]).any()
        seen.add(len(table))
    assert seen == {ROWS - ROWS // FILES, ROWS}, "all kills came before, or all after, the new table"
    done, _ = compact_day(store, DAY)
    assert (done.rows, done.duplicates) == (ROWS, ROWS // FILES)
    assert store.read(log_name(DAY)) != before
    by_id = ["request_id", "instance"]
    pd.testing.assert_frame_equal(
        logged(store).sort_values(by_id, ignore_index=True),
        rows.sort_values(by_id, ignore_index=True),
        check_dtype=False,
    )
    assert set(raw) <= set(store.list("monitoring/predictions/"))
    left = [path.name for path in (tmp_path / "storage").rglob("*") if TEMPORARY.fullmatch(path.name)]
    assert left == [] == list(scratch.iterdir())
