"""What comes in late: each day that it concerns is looked at again, once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from housing_assets.deployments import build_resources
from housing_assets.late_files import WINDOW_DAYS, monitor_late_files
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
