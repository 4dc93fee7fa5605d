"""The sensors of monitoring, tick by tick, on real storage and a real instance."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import requests

from housing_assets.alerts.book import AlertBookStore
from housing_assets.alerts.resource import AlertsResource
from housing_assets.definitions import build_definitions
from housing_assets.deployments import build_resources
from housing_assets.jobs import training_job
from housing_assets.monitoring.findings import report_name
from housing_assets.monitoring_sensors import raise_alerts, retrain_on_findings, train_on_new_snapshot
from housing_assets.partitions import latest_snapshot
from housing_assets.resources import SourceResource
from housing_assets.retraining import BECAUSE_TAG, CAUSES_TAG
from housing_assets.settings import Settings
from housing_assets.sources import SourceMissing
from housing_assets.storage import LocalStore
from housing_assets_tests.alerts.reports import finding, publish, report
from housing_assets_tests.scripted_http import scripted_server

YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date()
NEWEST = latest_snapshot()
SETTLED_SECONDS = 60


def before(weeks: int) -> str:
    """The snapshot of so many weeks before the newest."""
    return (datetime.fromisoformat(NEWEST) - timedelta(weeks=weeks)).strftime("%Y-%m-%d")


class Ticks:
    """Ticks one sensor after another on one instance, as a daemon does, with the cursor it left."""

    def __init__(self, home: Path, **values: str) -> None:
        self.settings = Settings.model_validate({"HOUSING_HOME": str(home), **values})
        self.store = LocalStore(self.settings.storage_root)
        self.repository = build_definitions(self.settings).get_repository_def()
        self.instance = dg.DagsterInstance.ephemeral()
        self.cursors: dict[str, str | None] = {}

    def tick(self, sensor: dg.SensorDefinition, **resources: object) -> tuple[list[dg.RunRequest], str]:
        """Run requests, and what it says when there are none."""
        with dg.build_sensor_context(
            self.instance,
            cursor=self.cursors.get(sensor.name),
            repository_def=self.repository,
            sensor_name=sensor.name,
            resources={**build_resources(self.settings), **resources},
        ) as context:
            data = sensor.evaluate_tick(context)
        self.cursors[sensor.name] = data.cursor
        return list(data.run_requests or []), data.skip_message or ""

    def train(self, request: dg.RunRequest, status: dg.DagsterRunStatus) -> None:
        """The run of a request, in some state."""
        self.instance.create_run_for_job(
            dg.job(name=training_job.name)(lambda: None), tags=request.tags, status=status
        )


@pytest.fixture
def ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ticks]:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    monkeypatch.chdir(tmp_path)
    ticks = Ticks(tmp_path / "home")
    with ticks.instance:
        yield ticks


# Alerts


def test_the_alert_sensor_says_what_is_open(ticks: Ticks) -> None:
    assert ticks.tick(raise_alerts) == ([], "no alert is open")
    publish(ticks.store, report(YESTERDAY, finding("drift:median_income"), finding("drift:latitude")))
    for _ in range(3):
        assert ticks.tick(raise_alerts) == ([], "2 open: drift:median_income, drift:latitude")
    book = AlertBookStore(ticks.store).read().book
    assert (len(book.opened), book.outboxes) == (2, ())


def test_what_is_not_delivered_is_said(ticks: Ticks) -> None:
    publish(ticks.store, report(YESTERDAY, finding("drift:median_income")))
    with scripted_server() as chat:
        storage = build_resources(ticks.settings)["storage"]
        alerts = AlertsResource(storage=storage, webhook_url=chat.url)
        assert ticks.tick(raise_alerts, alerts=alerts)[1] == (
            "1 open: drift:median_income; not delivered by webhook (the webhook answered 404 Not Found: "
            "check HOUSING_ALERT_WEBHOOK_URL)"
        )


def test_a_damaged_report_fails_the_tick_by_name(ticks: Ticks) -> None:
    ticks.store.write(report_name("drift", YESTERDAY), b"{}")
    for sensor in (raise_alerts, retrain_on_findings):
        with pytest.raises(dg.Failure, match=f"materialize drift_report of {YESTERDAY} again"):
            ticks.tick(sensor)


# Retraining


def test_findings_lead_to_one_training_on_the_newest_snapshot(ticks: Ticks) -> None:
    assert ticks.tick(retrain_on_findings)[1] == (
        "the newest reports find nothing critical that a training would help"
    )
    publish(ticks.store, report(YESTERDAY, finding("drift:median_income")))
    [request], _ = ticks.tick(retrain_on_findings)
    [again], _ = ticks.tick(retrain_on_findings)
    assert (request.partition_key, request.job_name or training_job.name) == (NEWEST, "training_job")
    # Dagster launches one run for a key.
    assert request.run_key == again.run_key
    assert request.tags[CAUSES_TAG] == '["drift:median_income"]'
    assert request.tags[BECAUSE_TAG] == f"critical on {YESTERDAY}: drift:median_income"

    ticks.train(request, dg.DagsterRunStatus.STARTED)
    requests, message = ticks.tick(retrain_on_findings)
    assert (requests, "a training is under way already" in message) == ([], True)


def test_after_a_training_its_cause_rests_and_the_day_is_full(ticks: Ticks) -> None:
    publish(ticks.store, report(YESTERDAY, finding("drift:median_income")))
    [request], _ = ticks.tick(retrain_on_findings)
    ticks.train(request, dg.DagsterRunStatus.SUCCESS)
    assert "1 of at most 1 training(s) a day were requested today" in ticks.tick(retrain_on_findings)[1]


def test_a_training_waits_for_a_snapshot_where_none_is_published(ticks: Ticks, tmp_path: Path) -> None:
    publish(ticks.store, report(YESTERDAY, finding("drift:median_income")))
    source = SourceResource(location=f"{tmp_path}/in/{{snapshot}}.csv")
    assert "no snapshot is published at" in ticks.tick(retrain_on_findings, source=source)[1]
    put(tmp_path / "in", before(3))
    put(tmp_path / "in", before(5))
    [request], _ = ticks.tick(retrain_on_findings, source=source)
    assert request.partition_key == before(3)


# New snapshots


def put(folder: Path, snapshot: str, content: str = "rows", age: float = SETTLED_SECONDS) -> None:
    """A file that was written so many seconds ago."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{snapshot}.csv"
    path.write_text(content)
    written = path.stat().st_mtime - age
    os.utime(path, (written, written))


def asked(requests: list[dg.RunRequest]) -> list[tuple[str, str]]:
    return [(str(one.job_name), str(one.partition_key)) for one in requests]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "in"


@pytest.fixture
def source(folder: Path) -> SourceResource:
    return SourceResource(location=f"{folder}/{{snapshot}}.csv")


def test_a_new_snapshot_is_trained_on_once(ticks: Ticks, folder: Path, source: SourceResource) -> None:
    assert "no snapshot is published at" in ticks.tick(train_on_new_snapshot, source=source)[1]
    put(folder, NEWEST)
    [request], _ = ticks.tick(train_on_new_snapshot, source=source)
    assert asked([request]) == [("training_job", NEWEST)]
    requests, message = ticks.tick(train_on_new_snapshot, source=source)
    assert requests == []
    assert message.endswith(f"since the last look; the newest is {NEWEST}")
    # A sensor that lost its cursor asks with the same key.
    ticks.cursors.clear()
    [same], _ = ticks.tick(train_on_new_snapshot, source=source)
    assert same.run_key == request.run_key


def test_of_what_was_there_before_only_the_newest_is_trained_on(
    ticks: Ticks, folder: Path, source: SourceResource
) -> None:
    for weeks in (4, 3, 2):
        put(folder, before(weeks))
    assert asked(ticks.tick(train_on_new_snapshot, source=source)[0]) == [("training_job", before(2))]
    assert ticks.tick(train_on_new_snapshot, source=source)[0] == []


def test_what_appears_together_after_an_empty_look_is_all_new(
    ticks: Ticks, folder: Path, source: SourceResource
) -> None:
    ticks.tick(train_on_new_snapshot, source=source)
    for weeks in (2, 1):
        put(folder, before(weeks))
    assert asked(ticks.tick(train_on_new_snapshot, source=source)[0]) == [
        ("data_job", before(2)),
        ("training_job", before(1)),
    ]


def test_a_late_snapshot_is_stored_and_makes_no_model(
    ticks: Ticks, folder: Path, source: SourceResource
) -> None:
    put(folder, before(1))
    ticks.tick(train_on_new_snapshot, source=source)
    put(folder, before(3))
    assert asked(ticks.tick(train_on_new_snapshot, source=source)[0]) == [("data_job", before(3))]
    put(folder, NEWEST)
    assert asked(ticks.tick(train_on_new_snapshot, source=source)[0]) == [("training_job", NEWEST)]


def test_other_content_is_a_new_run_and_the_same_content_is_none(
    ticks: Ticks, folder: Path, source: SourceResource
) -> None:
    put(folder, NEWEST)
    [first], _ = ticks.tick(train_on_new_snapshot, source=source)
    put(folder, NEWEST, age=2 * SETTLED_SECONDS)
    assert ticks.tick(train_on_new_snapshot, source=source)[0] == []
    put(folder, NEWEST, "corrected rows")
    [second], _ = ticks.tick(train_on_new_snapshot, source=source)
    assert asked([second]) == [("training_job", NEWEST)]
    assert second.run_key != first.run_key


def test_a_file_that_is_still_written_waits(ticks: Ticks, folder: Path, source: SourceResource) -> None:
    put(folder, before(1))
    ticks.tick(train_on_new_snapshot, source=source)
    put(folder, NEWEST, "half of the r", age=0)
    put(folder, before(1), "half of a corr", age=0)
    assert ticks.tick(train_on_new_snapshot, source=source)[0] == []
    put(folder, NEWEST)
    put(folder, before(1), "corrected rows")
    assert asked(ticks.tick(train_on_new_snapshot, source=source)[0]) == [
        ("data_job", before(1)),
        ("training_job", NEWEST),
    ]


def test_what_is_no_snapshot_is_not_looked_at(ticks: Ticks, folder: Path, source: SourceResource) -> None:
    put(folder, "2026-11-23")
    put(folder, "2019-01-06")
    put(folder, "readme")
    assert "no snapshot is published at" in ticks.tick(train_on_new_snapshot, source=source)[1]


def test_another_location_is_a_first_look(ticks: Ticks, folder: Path, source: SourceResource) -> None:
    put(folder, NEWEST)
    ticks.tick(train_on_new_snapshot, source=source)
    other = folder.parent / "other"
    for weeks in (2, 1):
        put(other, before(weeks))
    elsewhere = SourceResource(location=f"file://{other}/{{snapshot}}.csv")
    assert asked(ticks.tick(train_on_new_snapshot, source=elsewhere)[0]) == [("training_job", before(1))]


@pytest.mark.parametrize(
    "location", [None, "https://example.org/{snapshot}.csv", "/data/housing.csv", "gs://acme/housing.csv"]
)
def test_where_nothing_can_be_seen_the_reason_says_what_to_do(ticks: Ticks, location: str | None) -> None:
    requests, message = ticks.tick(train_on_new_snapshot, source=SourceResource(location=location))
    assert requests == []
    assert message.startswith("new snapshots cannot be seen at")
    assert "turn on the schedule weekly_training" in message


def upload(endpoint: str, bucket: str, name: str, content: bytes) -> None:
    answer = requests.post(
        f"{endpoint}/upload/storage/v1/b/{bucket}/o",
        params={"uploadType": "media", "name": name},
        data=content,
        timeout=10,
    )
    answer.raise_for_status()


def test_objects_of_a_bucket_are_seen_by_their_content(ticks: Ticks, gcs_bucket: str) -> None:
    endpoint = os.environ["STORAGE_EMULATOR_HOST"]
    source = SourceResource(location=f"gs://{gcs_bucket}/in/{{snapshot}}/housing.csv")
    assert "no snapshot is published at" in ticks.tick(train_on_new_snapshot, source=source)[1]

    def publish_object(snapshot: str, content: bytes) -> list[tuple[str, str]]:
        upload(endpoint, gcs_bucket, f"in/{snapshot}/housing.csv", content)
        return asked(ticks.tick(train_on_new_snapshot, source=source)[0])

    upload(endpoint, gcs_bucket, "in/readme.txt", b"about these files")
    assert publish_object(before(1), b"rows") == [("training_job", before(1))]
    assert publish_object(before(1), b"rows") == []
    assert publish_object(before(1), b"corrected rows") == [("training_job", before(1))]
    assert publish_object(before(2), b"late rows") == [("data_job", before(2))]


def test_a_bucket_that_is_not_there_fails_the_tick_by_name(ticks: Ticks, gcs_bucket: str) -> None:
    source = SourceResource(location="gs://no-such-bucket/{snapshot}.csv")
    with pytest.raises(SourceMissing, match="bucket no-such-bucket does not exist"):
        ticks.tick(train_on_new_snapshot, source=source)


# What is on from the start


def test_alerts_are_on_and_what_starts_trainings_is_off() -> None:
    on = {
        sensor.name: sensor.default_status
        for sensor in (raise_alerts, retrain_on_findings, train_on_new_snapshot)
    }
    assert on == {
        "raise_alerts": dg.DefaultSensorStatus.RUNNING,
        "retrain_on_findings": dg.DefaultSensorStatus.STOPPED,
        "train_on_new_snapshot": dg.DefaultSensorStatus.STOPPED,
    }
