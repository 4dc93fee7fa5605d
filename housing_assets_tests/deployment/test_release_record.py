"""The steps of a release, and that only one of two writers wins."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from housing_assets.deployment.release_record import (
    ReleaseStore,
    promoted,
    rolled_back,
    with_canary,
    without_canary,
)
from housing_assets.deployment.target import DeploymentConflict, DeploymentError
from housing_assets.storage import LocalStore, ObjectStore, open_store
from housing_serving.releases import MAX_HISTORY, RELEASE_RECORD, ReleaseRecord, change, track_of


def released(*versions: int) -> ReleaseRecord:
    """The record after these versions were promoted one after the other."""
    record = None
    for version in versions:
        record = promoted(record, change("promote", version, "ann", "better"))
    assert record is not None
    return record


def test_the_first_release_has_nothing_to_go_back_to() -> None:
    record = released(3)
    assert (record.stable_version, record.previous_version, record.canary_version) == (3, None, None)


def test_rollback_goes_back_one_step_at_a_time_and_never_to_what_was_left() -> None:
    record = released(1, 2, 3)
    assert record.previous_version == 2
    record = rolled_back(record, change("rollback", 2, "ann", "3 is bad"))
    assert (record.stable_version, record.previous_version) == (2, 1)
    record = rolled_back(record, change("rollback", 1, "ann", "2 is bad"))
    assert (record.stable_version, record.previous_version) == (1, None)
    assert [entry.action for entry in record.history] == ["promote"] * 3 + ["rollback"] * 2


def test_a_version_that_is_promoted_again_stands_once_among_the_previous_ones() -> None:
    record = released(1, 2, 1, 2, 3)
    assert record.previous_versions == (1, 2)


def test_a_canary_comes_and_goes_and_the_history_says_who_and_why() -> None:
    record = with_canary(released(1), 10, "run-7", change("canary", 2, "run-7", "10 %"))
    assert (record.stable_version, record.canary_version, record.canary_percent) == (1, 2, 10)
    record = without_canary(record, change("abort", 2, "run-7", "it failed 9 of 20 requests"))
    assert (record.stable_version, record.canary_version, record.canary_percent) == (1, None, 0)
    assert (record.history[-1].by, record.history[-1].reason) == ("run-7", "it failed 9 of 20 requests")


def test_the_history_stays_small() -> None:
    record = released(*range(1, 3 * MAX_HISTORY))
    assert len(record.history) == MAX_HISTORY
    assert len(record.to_json()) < 20_000


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_of_writers_that_race_one_wins_and_the_others_are_told(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = str(tmp_path) if place == "folder" else f"gs://{request.getfixturevalue('gcs_bucket')}"
    writers = 6
    stores = [ReleaseStore(open_store(root)) for _ in range(writers)]
    stores[0].write(released(1), stores[0].read())
    begin = Barrier(writers)

    def write(number: int) -> bool:
        found = stores[number].read()
        assert found.record is not None
        begin.wait(30)
        try:
            stores[number].write(promoted(found.record, change("promote", number + 2, "x", "y")), found)
        except DeploymentConflict as error:
            assert "changed by somebody else" in str(error)
            return False
        return True

    with ThreadPoolExecutor(writers) as threads:
        won = list(threads.map(write, range(writers)))
    assert won.count(True) == 1
    record = stores[0].read().record
    assert record is not None
    assert (record.stable_version, record.previous_versions) == (won.index(True) + 2, (1,))


def test_two_first_releases_at_once_are_a_conflict(tmp_path: Path) -> None:
    first, second = ReleaseStore(LocalStore(tmp_path)), ReleaseStore(LocalStore(tmp_path))
    seen = second.read()
    first.write(released(1), first.read())
    with pytest.raises(DeploymentConflict):
        second.write(released(2), seen)


def test_a_record_that_is_none_is_a_clear_error_and_is_left_alone(tmp_path: Path) -> None:
    store: ObjectStore = LocalStore(tmp_path)
    store.write(RELEASE_RECORD, b'{"stable_version": "seven"}')
    with pytest.raises(DeploymentError, match=r"housing-price-api\.json states no stable_version"):
        ReleaseStore(store).read()
    assert store.read(RELEASE_RECORD) == b'{"stable_version": "seven"}'


def test_fields_of_a_later_release_are_ignored() -> None:
    data = b'{"stable_version": 2, "canary_version": 3, "canary_percent": 5, "shadow_version": 9}'
    assert ReleaseRecord.parse(data, "here").canary_version == 3


def test_who_answers_is_decided_by_the_id_alone_and_in_proportion() -> None:
    ids = [f"request-{number}" for number in range(20_000)]
    at_ten = {each for each in ids if track_of(each, 10) == "canary"}
    at_thirty = {each for each in ids if track_of(each, 30) == "canary"}
    assert 0.09 < len(at_ten) / len(ids) < 0.11
    assert at_ten < at_thirty
    assert not any(track_of(each, 0) == "canary" for each in ids)
    assert all(track_of(each, 100) == "canary" for each in ids)
