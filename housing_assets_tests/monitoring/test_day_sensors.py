"""What comes in late, and what comes in today: each day that it concerns is looked at, once."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from housing_assets.day_sensors import WINDOW_DAYS, monitor_late_files, monitor_running_day
from housing_assets.deployments import build_resources
from housing_assets.resources import MonitoringResource
from housing_assets.settings import Settings
from housing_assets.storage import LocalStore


class Ticks:
    """A sensor that looks again and again, and the storage root it looks at."""

    def __init__(self, home: Path) -> None:
        settings = Settings(_env_file=None).model_copy(update={"home": home})  # type: ignore[call-arg]
        self.storage = build_resources(settings)["storage"]
        self.store = LocalStore(home / "storage")
        self.cursor: str | None = None
        self.keys: set[str] = set()

    def put(self, folder: str, days_ago: int, name: str) -> str:
        day = (datetime.now(UTC).date() - timedelta(days=days_ago)).isoformat()
        self.store.write(f"monitoring/{folder}/{day}/{name}", b"")
        return day

    def tick(self) -> list[str]:
        with dg.build_sensor_context(cursor=self.cursor, resources={"storage": self.storage}) as context:
            result = monitor_late_files(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        requests = list(result.run_requests or [])
        assert not self.keys & {str(request.run_key) for request in requests}
        self.keys |= {str(request.run_key) for request in requests}
        return [str(request.partition_key) for request in requests]


@pytest.fixture
def ticks(tmp_path: Path) -> Ticks:
    return Ticks(tmp_path)


def test_the_first_look_only_remembers(ticks: Ticks) -> None:
    ticks.put("predictions", 3, "a.parquet")
    assert ticks.tick() == ticks.tick() == []


def test_late_rows_and_late_labels_ask_for_their_day_once(ticks: Ticks) -> None:
    ticks.put("predictions", 1, "a.parquet")
    ticks.put("predictions", 5, "a.parquet")
    ticks.tick()
    yesterday = ticks.put("predictions", 1, "late.parquet")
    labelled = ticks.put("labels", 5, "a.csv")
    assert ticks.tick() == [labelled, yesterday]
    assert ticks.tick() == []
    assert ticks.put("labels", 5, "b.csv") == labelled
    assert ticks.tick() == [labelled]


def test_the_first_labels_of_a_day_ask_for_it(ticks: Ticks) -> None:
    ticks.tick()
    day = ticks.put("labels", 9, "a.csv")
    assert ticks.tick() == [day]


def test_the_running_day_and_the_one_that_has_just_ended_are_the_schedules(ticks: Ticks) -> None:
    ticks.tick()
    ticks.put("predictions", 0, "a.parquet")
    ticks.put("predictions", 1, "a.parquet")
    assert ticks.tick() == []


def test_days_long_ago_are_left_alone(ticks: Ticks) -> None:
    ticks.tick()
    ticks.put("labels", WINDOW_DAYS + 1, "a.csv")
    assert ticks.tick() == []


class RunningDay(Ticks):
    """The same for the sensor of the running day."""

    def tick(self) -> list[str]:
        resources = {"storage": self.storage, "monitoring": MonitoringResource()}
        with dg.build_sensor_context(cursor=self.cursor, resources=resources) as context:
            result = monitor_running_day(context)
        if isinstance(result, dg.SkipReason):
            return [str(result.skip_message)]
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        [request] = result.run_requests or []
        assert str(request.run_key) not in self.keys
        self.keys.add(str(request.run_key))
        return [str(request.partition_key)]

    def an_hour_later(self) -> None:
        last = json.loads(str(self.cursor))
        last["at"] = (datetime.fromisoformat(last["at"]) - timedelta(hours=1)).isoformat()
        self.cursor = json.dumps(last)


def test_the_running_day_is_looked_at_at_once_and_then_every_hour_that_brings_more(tmp_path: Path) -> None:
    day = RunningDay(tmp_path)
    assert "there are no predictions of" in day.tick()[0]
    today = day.put("predictions", 0, "a.parquet")
    assert day.tick() == [today]
    day.put("predictions", 0, "b.parquet")
    assert "not long ago" in day.tick()[0]
    day.an_hour_later()
    assert day.tick() == [today]
    day.an_hour_later()
    assert "there are no more predictions of" in day.tick()[0]


def test_a_new_day_does_not_wait_for_the_hour_of_the_last(tmp_path: Path) -> None:
    day = RunningDay(tmp_path)
    today = day.put("predictions", 0, "a.parquet")
    now = datetime.now(UTC)
    yesterday = (now.date() - timedelta(days=1)).isoformat()
    day.cursor = json.dumps({"day": yesterday, "files": "0", "at": now.isoformat()})
    assert day.tick() == [today]
