"""Which of several sources serves, and what happens while some of them fail, hang or come back.

Sources read real folders; what they do before that is written down in each test.
"""

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from housing_assets_tests.serving.bundles import bundle_files, write_files
from housing_serving import model_slot
from housing_serving.bundle import Bundle
from housing_serving.deadline import Deadline
from housing_serving.model_slot import ModelSlot
from housing_serving.settings import ServingSettings
from housing_serving.sources import (
    LoadedModel,
    ModelLocation,
    ModelSource,
    ModelUnavailable,
    NotRegistered,
    configured_sources,
)
from housing_serving.storage_readers import FolderReader

LONG_SECONDS = 60.0
POLL_SECONDS = 0.02


class Place:
    """A source over a folder with one bundle; `on_look` runs first, in the look's thread, at each look."""

    def __init__(self, tmp_path: Path, version: int, on_look: Callable[[], None] = lambda: None) -> None:
        self.folder = write_files(tmp_path / f"bundle-{version}", bundle_files(version=version))
        self.on_look = on_look
        self.looks = 0

    def source(self, name: str, seconds: float = LONG_SECONDS) -> ModelSource:
        return ModelSource(name, str(self.folder), seconds, self._locate)

    def _locate(self, _: Deadline) -> ModelLocation:
        self.looks += 1
        self.on_look()
        return ModelLocation(FolderReader(self.folder), "")


def fail() -> None:
    raise ModelUnavailable("it is broken")


def wait_for(released: threading.Event) -> None:
    assert released.wait(LONG_SECONDS)


def be_empty() -> None:
    raise NotRegistered("nothing there")


SlotOf = Callable[..., ModelSlot]


@pytest.fixture
def slot_of(monkeypatch: pytest.MonkeyPatch) -> SlotOf:
    """Makes a slot that asks these sources."""

    def make(*sources: ModelSource, on_change: Callable[[LoadedModel], None] = lambda _: None) -> ModelSlot:
        monkeypatch.setattr(model_slot, "configured_sources", lambda _: list(sources))
        return ModelSlot(ServingSettings(housing_model_poll_seconds=POLL_SECONDS), on_change)

    return make


def while_filling(slot: ModelSlot, scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario while the slot looks for its model."""

    async def run() -> None:
        filling = asyncio.create_task(slot.fill())
        try:
            async with asyncio.timeout(LONG_SECONDS):
                await scenario()
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)

    asyncio.run(run())


def fill(slot: ModelSlot) -> None:
    """Wait until nothing is left to look for."""
    asyncio.run(asyncio.wait_for(slot.fill(), LONG_SECONDS))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def served(slot: ModelSlot) -> int | None:
    return slot.model.bundle.manifest.model_version if slot.model else None


def states(slot: ModelSlot) -> list[str]:
    return [status.state for status in slot.sources()]


def test_a_first_source_that_delivers_is_the_only_one_asked(tmp_path: Path, slot_of: SlotOf) -> None:
    first, second = Place(tmp_path, 1), Place(tmp_path, 2)
    changes: list[LoadedModel] = []
    slot = slot_of(first.source("mlflow"), second.source("local"), on_change=changes.append)
    assert (states(slot), slot.sources()[0].checked_at) == (["unasked", "unasked"], None)

    fill(slot)

    assert slot.model is not None
    assert (slot.model.source, slot.model.uri, served(slot)) == ("mlflow", str(first.folder), 1)
    assert changes == [slot.model]
    assert (first.looks, second.looks) == (1, 0)
    status = slot.sources()[0]
    assert (status.name, status.target, status.detail) == ("mlflow", str(first.folder), None)
    assert (states(slot), status.checked_at is not None) == (["serving", "unasked"], True)


def test_places_are_learned_once_the_model_serves(
    tmp_path: Path, slot_of: SlotOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = slot_of(Place(tmp_path, 1).source("local"))
    seen: list[int | None] = []
    learn = Bundle.remember_training_places

    def noted(bundle: Bundle) -> None:
        seen.append(served(slot))
        learn(bundle)

    monkeypatch.setattr(Bundle, "remember_training_places", noted)
    fill(slot)
    assert seen == [1]


@pytest.mark.parametrize(("answer", "state"), [(fail, "unavailable"), (be_empty, "empty")])
def test_a_source_that_has_no_model_is_replaced_until_it_has_one(
    tmp_path: Path, slot_of: SlotOf, answer: Callable[[], None], state: str
) -> None:
    first, second = Place(tmp_path, 1, answer), Place(tmp_path, 2)
    versions: list[int] = []
    slot = slot_of(
        first.source("mlflow"),
        second.source("local"),
        on_change=lambda model: versions.append(model.bundle.manifest.model_version),
    )

    async def scenario() -> None:
        await until(lambda: served(slot) == 2)
        assert slot.looked.is_set()
        assert states(slot) == [state, "serving"]
        first.on_look = lambda: None
        await until(lambda: served(slot) == 1)

    while_filling(slot, scenario)
    assert versions == [2, 1]
    assert states(slot) == ["serving", "ready"]
    assert second.looks == 1


def test_a_source_that_hangs_delays_the_others_by_the_grace_and_wins_when_it_answers(
    tmp_path: Path, slot_of: SlotOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_slot, "GRACE_SECONDS", 0.05)
    released = threading.Event()
    first, second = (
        Place(tmp_path, 1, lambda: fail() if not released.wait(LONG_SECONDS) else None),
        Place(tmp_path, 2),
    )
    slot = slot_of(first.source("mlflow"), second.source("local"))

    async def scenario() -> None:
        await until(lambda: served(slot) == 2)
        assert states(slot) == ["unasked", "serving"]
        released.set()
        await until(lambda: served(slot) == 1)

    while_filling(slot, scenario)
    assert first.looks == 1


def test_a_source_within_its_grace_is_waited_for(tmp_path: Path, slot_of: SlotOf) -> None:
    first, second = Place(tmp_path, 1, lambda: time.sleep(0.1)), Place(tmp_path, 2)
    slot = slot_of(first.source("mlflow"), second.source("local"))

    fill(slot)

    assert (served(slot), second.looks) == (1, 0)


def test_while_one_source_hangs_the_next_one_is_asked_on(
    tmp_path: Path, slot_of: SlotOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_slot, "GRACE_SECONDS", 0.05)
    released = threading.Event()
    first, second = (
        Place(tmp_path, 1, lambda: fail() if released.wait(LONG_SECONDS) else None),
        Place(tmp_path, 2, be_empty),
    )
    slot = slot_of(first.source("mlflow"), second.source("local"))

    async def scenario() -> None:
        await until(lambda: second.looks >= 5)
        second.on_look = lambda: None
        await until(lambda: served(slot) == 2)
        assert first.looks == 1
        released.set()

    while_filling(slot, scenario)


def test_a_source_that_is_stuck_is_given_up_and_not_asked_twice_at_once(
    tmp_path: Path, slot_of: SlotOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_slot, "GIVE_UP_SECONDS", 0.05)
    released = threading.Event()
    first = Place(tmp_path, 1, lambda: wait_for(released))
    slot = slot_of(first.source("local", seconds=0.05))

    async def scenario() -> None:
        await slot.looked.wait()
        assert served(slot) is None
        await until(lambda: states(slot) == ["open"])
        assert slot.sources()[0].detail == f"{first.folder} did not name and deliver a model within 0.05 s"
        assert first.looks == 1
        released.set()
        await until(lambda: served(slot) == 1)

    while_filling(slot, scenario)
    assert states(slot) == ["serving"]


def test_a_source_that_keeps_failing_rests_and_is_tried_again(tmp_path: Path, slot_of: SlotOf) -> None:
    times: list[float] = []

    def note_and_fail() -> None:
        times.append(time.monotonic())
        fail()

    first = Place(tmp_path, 1, note_and_fail)
    slot = slot_of(first.source("mlflow"))

    async def scenario() -> None:
        await until(lambda: states(slot) == ["open"])
        assert first.looks == 3
        assert slot.sources()[0].detail == "it is broken"
        await until(lambda: first.looks >= 5)
        first.on_look = lambda: None
        await until(lambda: served(slot) == 1)

    while_filling(slot, scenario)
    # After the third failure, and again after each one that follows.
    rest = model_slot.REST_INTERVALS * POLL_SECONDS
    assert [times[index + 1] - times[index] >= rest for index in (2, 3)] == [True, True]


def test_an_empty_source_is_asked_every_time_without_a_rest(tmp_path: Path, slot_of: SlotOf) -> None:
    first = Place(tmp_path, 1, be_empty)
    slot = slot_of(first.source("mlflow"))

    async def scenario() -> None:
        await until(lambda: first.looks >= 10 or states(slot) == ["open"])

    while_filling(slot, scenario)
    assert states(slot) == ["empty"]


def test_each_change_is_logged_once(
    tmp_path: Path, slot_of: SlotOf, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first, second = Place(tmp_path, 1, fail), Place(tmp_path, 2)
    slot = slot_of(first.source("mlflow"), second.source("local"))

    async def scenario() -> None:
        await until(lambda: first.looks >= 5)
        first.on_look = be_empty
        looks = first.looks
        await until(lambda: first.looks >= looks + 3)
        first.on_look = lambda: None
        await until(lambda: served(slot) == 1)

    while_filling(slot, scenario)
    records = [vars(record) for record in caplog.records if record.name == model_slot.logger.name]
    problems = [record for record in records if record["message"] == "no model"]
    assert [(record["source"], record["state"], record["reason"]) for record in problems] == [
        ("mlflow", "unavailable", "it is broken"),
        ("mlflow", "empty", "nothing there"),
    ]
    loaded = [record for record in records if record["message"] == "model loaded"]
    assert [(record["source"], record["model_version"], record["uri"]) for record in loaded] == [
        ("local", 2, str(second.folder)),
        ("mlflow", 1, str(first.folder)),
    ]


def test_an_unforeseen_failure_keeps_its_text_to_itself_and_the_slot_alive(
    tmp_path: Path, slot_of: SlotOf, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "-".join(("secret", "token"))

    def fail_badly() -> None:
        raise ZeroDivisionError(secret)

    first, second = Place(tmp_path, 1, fail_badly), Place(tmp_path, 2)
    slot = slot_of(first.source("mlflow"), second.source("local"))

    async def scenario() -> None:
        await until(lambda: served(slot) == 2)
        assert slot.sources()[0].detail == "failed in a way that was not foreseen: see the log of the service"
        first.on_look = lambda: None
        await until(lambda: served(slot) == 1)

    while_filling(slot, scenario)
    record = next(vars(record) for record in caplog.records if record.message == "loading the model failed")
    assert (record["source"], record["error"]) == ("mlflow", "ZeroDivisionError")
    assert "fail_badly" in record["trace"]
    assert secret not in str(record)


def test_a_late_answer_of_a_later_source_changes_nothing(tmp_path: Path, slot_of: SlotOf) -> None:
    asked, released = threading.Event(), threading.Event()

    def answer_late() -> None:
        asked.set()
        released.wait(LONG_SECONDS)

    first, second = Place(tmp_path, 1, fail), Place(tmp_path, 2, answer_late)
    slot = slot_of(first.source("mlflow"), second.source("local"))

    async def scenario() -> None:
        await until(asked.is_set)
        first.on_look = lambda: None
        await until(lambda: served(slot) == 1)
        released.set()
        await until(lambda: states(slot) == ["serving", "ready"])
        assert served(slot) == 1

    while_filling(slot, scenario)


def test_a_model_that_was_replaced_is_released(tmp_path: Path, slot_of: SlotOf) -> None:
    first, second = Place(tmp_path, 1, be_empty), Place(tmp_path, 2)
    replaced: list[weakref.ref[Bundle]] = []

    def remember(model: LoadedModel) -> None:
        replaced.append(weakref.ref(model.bundle))

    slot = slot_of(first.source("mlflow"), second.source("local"), on_change=remember)

    async def scenario() -> None:
        await until(lambda: served(slot) == 2)
        first.on_look = lambda: None
        await until(lambda: served(slot) == 1)
        gc.collect()
        assert [reference() is None for reference in replaced] == [True, False]

    while_filling(slot, scenario)


def test_the_first_look_ends_when_every_source_has_answered(tmp_path: Path, slot_of: SlotOf) -> None:
    first, second = Place(tmp_path, 1, be_empty), Place(tmp_path, 2, fail)
    slot = slot_of(first.source("mlflow"), second.source("local"))

    async def scenario() -> None:
        await slot.looked.wait()
        assert slot.model is None
        assert (first.looks >= 1, second.looks >= 1) == (True, True)

    while_filling(slot, scenario)


def test_a_local_bundle_needs_no_http_client(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "bundle", bundle_files(version=4))
    program = f"""
import asyncio, pathlib, sys
from housing_serving.model_slot import ModelSlot
from housing_serving.settings import ServingSettings
slot = ModelSlot(ServingSettings(local_model_path=pathlib.Path({str(folder)!r})))
asyncio.run(slot.fill())
print(slot.model.bundle.manifest.model_version, {{"requests", "google.cloud", "urllib3"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout == "4 set()\n"


def test_a_source_that_hangs_does_not_hold_up_the_end_of_the_process(tmp_path: Path) -> None:
    # A pipe that nobody writes to: reading the manifest never returns.
    program = f"""
import asyncio, os, pathlib
from housing_serving.model_slot import ModelSlot
from housing_serving.settings import ServingSettings
folder = pathlib.Path({str(tmp_path)!r})
os.mkfifo(folder / "bundle.json")
async def main():
    filling = asyncio.create_task(ModelSlot(ServingSettings(local_model_path=folder)).fill())
    await asyncio.sleep(0.3)
    print(filling.done())
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=LONG_SECONDS
    )
    assert done.stdout == "False\n"


def test_sources_of_the_settings_are_the_ones_asked(tmp_path: Path) -> None:
    settings = ServingSettings(mlflow_tracking_uri="http://mlflow:5000", housing_home=tmp_path)
    assert [status.target for status in ModelSlot(settings).sources()] == [
        source.target for source in configured_sources(settings)
    ]
