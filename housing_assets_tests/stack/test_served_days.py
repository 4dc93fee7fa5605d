"""Days of traffic through the real service, backfilled as one range as the UI does: every row once.

`HOUSING_MONITORED_DAYS` is their number: 30 are the 300,000 predictions of a month, and take six minutes.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests

from housing_assets.monitoring.findings import Report
from housing_assets.storage import LocalStore
from housing_assets_tests.command_line import REPOSITORY
from housing_assets_tests.monitoring.days import resampled
from housing_assets_tests.monitoring.storage_roots import logged, trained
from housing_assets_tests.running_stack import Stack, wait_for
from housing_assets_tests.serving.running_service import RunningService, running_service
from housing_assets_tests.stack.conftest import LAUNCH_BACKFILL

DAYS = int(os.environ.get("HOUSING_MONITORED_DAYS", "0"))
FIRST = date(2026, 3, 2)
ASSETS = ("prediction_log", "drift_report", "performance_report")
# Of each day: some large requests and many small ones.
LARGE, SMALL = 10, 200
SECONDS_A_DAY = 60.0
WRITTEN_ROWS = "housing_prediction_log_written_rows_total"


@dataclass
class Traffic:
    """What callers got, and what the service says of it.

    Attributes:
        answered: pairs of request id and instance, by day.
        written: rows the service has stored, by day.
    """

    answered: dict[date, set[tuple[str, int]]] = field(default_factory=dict)
    written: dict[date, int] = field(default_factory=dict)


def days() -> list[date]:
    return [FIRST + timedelta(days=number) for number in range(DAYS)]


def instances(seed: int, rows: int) -> list[dict[str, Any]]:
    frame = resampled(rows, seed).astype(object)
    found: list[dict[str, Any]] = frame.where(frame.notna(), None).to_dict("records")
    return found


def written_rows(service: RunningService) -> int:
    text = requests.get(f"{service.url}/metrics", timeout=10).text
    [line] = [
        line for line in text.splitlines() if line.startswith("housing_prediction_log_written_rows_total")
    ]
    return int(float(line.split()[-1]))


def rows_once_all_are_written(service: RunningService, rows: int) -> int:
    wait_for("every row is stored", lambda: written_rows(service) >= rows, 60)
    return written_rows(service)


def ask(service: RunningService, seed: int) -> Iterator[tuple[str, int]]:
    """The instances of a day's requests that were answered."""
    with requests.Session() as session:
        for number in range(LARGE + SMALL):
            rows = 1_000 if number < LARGE else 1
            body: Mapping[str, Any] = {"instances": instances(1_000 * seed + number, rows)}
            response = session.post(f"{service.url}/api/v1/predict", json=body, timeout=60)
            assert response.status_code == 200, response.text
            yield from ((response.headers["x-request-id"], instance) for instance in range(rows))


@pytest.fixture(scope="module")
def traffic(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    """Every day a service of its own, whose clock shows that day, writes into the stack's storage root."""
    found = Traffic()
    trained(LocalStore(stack.home / "storage"), 3)
    clock = Path(__file__).parent.parent / "monitoring" / "shifted_clock"
    for number, day in enumerate(days()):
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        shift = (noon - datetime.now(UTC)).total_seconds()
        with running_service(
            tmp_path_factory.mktemp("day"),
            HOUSING_HOME=str(stack.home),
            HOUSING_PREDICTION_LOG_SECONDS="0.5",
            CLOCK_SHIFT_SECONDS=str(shift),
            PYTHONPATH=f"{clock}{os.pathsep}{REPOSITORY}",
        ) as service:
            found.answered[day] = set(ask(service, number))
            found.written[day] = rows_once_all_are_written(service, len(found.answered[day]))
    return found


def backfill(stack: Stack) -> None:
    params = {
        "assetSelection": [{"path": [name]} for name in ASSETS],
        "partitionNames": [day.isoformat() for day in days()],
        "title": "Days of service",
    }
    launched = stack.graphql(LAUNCH_BACKFILL, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    ends = ("COMPLETED_SUCCESS", "COMPLETED_FAILED", "COMPLETED", "FAILED", "CANCELED")
    found = wait_for(
        "the end of the backfill",
        lambda: next(
            (one for one in [stack.backfill(launched["backfillId"])] if one["status"] in ends), None
        ),
        60 + SECONDS_A_DAY * DAYS,
    )
    assert found["status"] == "COMPLETED_SUCCESS", found


def stored(stack: Stack) -> dict[str, bytes]:
    store = LocalStore(stack.home / "storage")
    kept = [name for name in store.list("monitoring/") if not name.startswith("monitoring/predictions/")]
    return {name: store.read(name) for name in kept}


@pytest.mark.skipif(not DAYS, reason="takes minutes: set HOUSING_MONITORED_DAYS")
@pytest.mark.timeout(300 + 240 * DAYS)
def test_every_answer_is_in_exactly_one_partition_and_a_second_backfill_changes_nothing(
    stack: Stack, traffic: Traffic
) -> None:
    backfill(stack)
    store = LocalStore(stack.home / "storage")
    tables = {day: logged(store, day) for day in days()}
    for day, table in tables.items():
        pairs = list(zip(table["request_id"], table["instance"].tolist(), strict=True))
        assert len(pairs) == len(set(pairs)) == traffic.written[day]
        assert set(pairs) == traffic.answered[day]
    together = pd.concat(tables.values())
    assert len(together) == DAYS * (1_000 * LARGE + SMALL)
    assert not together.duplicated(["request_id", "instance"]).any()
    findings = [
        finding.cause
        for day in days()
        for finding in Report.from_json(store.read(f"monitoring/reports/drift/{day}.json")).findings
    ]
    assert findings == []
    before = stored(stack)
    assert len(before) == 5 * DAYS
    backfill(stack)
    assert stored(stack) == before
