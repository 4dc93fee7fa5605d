"""The daily assets on a folder and a bucket: stored, described, repeatable, clear about what is missing."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from housing_assets.assets.drift_report import drift_report
from housing_assets.assets.performance_report import performance_report
from housing_assets.assets.prediction_log import prediction_log
from housing_assets.deployments import build_resources
from housing_assets.formats import encode
from housing_assets.ml.metrics import METRICS, regression_metrics
from housing_assets.monitoring.findings import Report
from housing_assets.partitions import DAYS
from housing_assets.schedules import daily_monitoring
from housing_assets.settings import Deployment, Settings
from housing_assets.storage import ObjectMissing, ObjectStore, open_store
from housing_assets_tests.monitoring.days import DAY, answered, resampled
from housing_assets_tests.monitoring.storage_roots import TRAIN_NAME, logged, served, trained
from housing_serving.features import TARGET

ASSETS = [prediction_log, drift_report, performance_report]
ROWS = 1_000


class Monitoring:
    """A storage root, and the daily assets on it."""

    def __init__(self, settings: Settings) -> None:
        self.resources = build_resources(settings)
        self.store: ObjectStore = open_store(settings.storage_root)

    def run(self, day: date = DAY, **thresholds: float) -> dg.ExecuteInProcessResult:
        config = {"ops": {"drift_report": {"config": {"thresholds": thresholds}}}} if thresholds else {}
        return dg.materialize(
            ASSETS,
            partition_key=day.isoformat(),
            resources=self.resources,
            instance=dg.DagsterInstance.ephemeral(),
            raise_on_error=False,
            run_config=config,
        )

    def run_range(self, first: date, last: date) -> dg.ExecuteInProcessResult:
        tags = {
            "dagster/asset_partition_range_start": first.isoformat(),
            "dagster/asset_partition_range_end": last.isoformat(),
        }
        return dg.materialize(
            ASSETS,
            tags=tags,
            resources=self.resources,
            instance=dg.DagsterInstance.ephemeral(),
            raise_on_error=False,
        )

    def report(self, kind: str, day: date = DAY) -> Report:
        return Report.from_json(self.store.read(f"monitoring/reports/{kind}/{day}.json"))


def monitoring_at(home: Path, **changes: object) -> Monitoring:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    return Monitoring(settings.model_copy(update={"home": home, **changes}))


@pytest.fixture
def monitoring(tmp_path: Path) -> Monitoring:
    return monitoring_at(tmp_path / "home")


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, object]:
    [materialization] = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in materialization.metadata.items()}


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    [event] = [event for event in result.all_events if event.is_step_failure]
    return str(event.step_failure_data.user_failure_data.description)


def test_a_quiet_day_from_files_to_reports(monitoring: Monitoring) -> None:
    rows = answered(resampled(ROWS, seed=1))
    trained(monitoring.store, 3)
    served(monitoring.store, rows[:400], rows[300:])
    misses = np.random.default_rng(2).normal(1, 0.06, ROWS)
    truth = rows[["request_id", "instance"]].assign(median_house_value=rows["predicted_price"] * misses)
    monitoring.store.write(f"monitoring/labels/{DAY}/a.csv", truth.to_csv(index=False).encode())
    result = monitoring.run()
    assert result.success

    counts = metadata_of(result, "prediction_log")
    assert (counts["rows_read"], counts["rows"], counts["duplicates"]) == (1_100, ROWS, 100)
    assert counts["rows_written_by_service"] == ROWS
    pd.testing.assert_frame_equal(logged(monitoring.store), rows, check_dtype=False)

    drift = monitoring.report("drift")
    assert (drift.model_versions, drift.rows, drift.findings) == (["3"], ROWS, [])
    described = metadata_of(result, "drift_report")
    assert described["drifted_features"] == 0.0
    assert 0 < float(str(described["psi_median_income"])) < 0.1
    assert "data:image/png;base64" in str(described["drift_sizes"])

    performance = monitoring.report("performance")
    assert (performance.labels, performance.findings) == (ROWS, [])
    scored = metadata_of(result, "performance_report")
    exact = regression_metrics(truth[TARGET], rows["predicted_price"])
    assert {name: scored[name] for name in METRICS} == pytest.approx(exact, rel=1e-12)
    assert scored["labels_rejected"] == 0.0


def test_the_same_on_a_bucket(gcs_bucket: str, tmp_path: Path) -> None:
    monitoring = monitoring_at(tmp_path, deployment=Deployment.GCP, gcs_bucket_name=gcs_bucket)
    rows = answered(resampled(ROWS, seed=1))
    trained(monitoring.store, 3)
    served(monitoring.store, rows)
    result = monitoring.run()
    assert result.success
    assert len(logged(monitoring.store)) == ROWS
    page = str(metadata_of(result, "drift_report")["report"])
    assert page == f"https://storage.cloud.google.com/{gcs_bucket}/monitoring/reports/drift/{DAY}.html"


def test_doing_it_again_changes_nothing_and_late_files_are_taken_in(monitoring: Monitoring) -> None:
    rows = answered(resampled(ROWS, seed=1))
    trained(monitoring.store, 3)
    served(monitoring.store, rows[:600])
    monitoring.run()
    before = {name: monitoring.store.read(name) for name in monitoring.store.list("monitoring/")}
    assert monitoring.run().success
    assert {name: monitoring.store.read(name) for name in monitoring.store.list("monitoring/")} == before
    served(monitoring.store, rows[600:], name="late")
    assert monitoring.run().success
    assert len(logged(monitoring.store)) == ROWS
    assert monitoring.report("drift").rows == ROWS


def test_drift_is_found_on_the_day_it_starts_and_laid_at_its_feature(monitoring: Monitoring) -> None:
    trained(monitoring.store, 3)
    for number in range(2):
        features = resampled(ROWS, seed=number)
        if number:
            features = features.assign(median_income=features["median_income"] + 20)
        day = DAY + timedelta(days=number)
        served(monitoring.store, answered(features, day=day), day=day)
        assert monitoring.run(day).success
    assert monitoring.report("drift").findings == []
    found = monitoring.report("drift", DAY + timedelta(days=1)).findings
    assert [finding.cause for finding in found] == ["drift:median_income", "drift:predicted_price"]
    assert found[0].retrain


def test_a_run_over_several_days_describes_each_of_them(monitoring: Monitoring) -> None:
    trained(monitoring.store, 3)
    days = [DAY + timedelta(days=number) for number in range(3)]
    for number, day in enumerate(days):
        served(monitoring.store, answered(resampled(ROWS + number, seed=number), day=day), day=day)
    result = monitoring.run_range(days[0], days[-1])
    assert result.success
    for asset in ("prediction_log", "drift_report", "performance_report"):
        found = {
            str(event.partition): event.metadata["dagster/row_count"].value
            for event in result.asset_materializations_for_node(asset)
        }
        assert found == {str(day): ROWS + number for number, day in enumerate(days)}
    assert [monitoring.report("drift", day).rows for day in days] == [ROWS, ROWS + 1, ROWS + 2]


def test_one_day_that_is_wrong_is_named(monitoring: Monitoring) -> None:
    trained(monitoring.store, 3)
    later = DAY + timedelta(days=1)
    monitoring.store.write(f"monitoring/predictions/{later}/x.parquet", b"no parquet")
    result = monitoring.run_range(DAY, later)
    assert not result.success
    [check] = result.get_asset_check_evaluations()
    assert f"{DAY}: 0 rows of 0 files" in str(check.description)
    assert f"{later}: 0 rows of 1 files, 0 duplicates; monitoring/predictions/{later}/x" in str(
        check.description
    )


def test_thresholds_are_values_of_a_run(monitoring: Monitoring) -> None:
    trained(monitoring.store, 3)
    served(monitoring.store, answered(resampled(100, seed=1)))
    assert monitoring.run(min_rows=50).success
    assert "Too few" not in monitoring.store.read(f"monitoring/reports/drift/{DAY}.html").decode()
    wrong = monitoring.run(max_psi=1)
    assert "no threshold max_psi; there are min_rows, alpha, warning_psi" in failure_of(wrong)


def test_rejected_rows_and_labels_are_kept_until_they_are_mended(monitoring: Monitoring) -> None:
    rows = answered(resampled(ROWS, seed=1))
    trained(monitoring.store, 3)
    served(monitoring.store, rows[:-1], rows[-1:].assign(latency_ms=-1.0))
    label = {"request_id": "request-1", "instance": 1, TARGET: "much"}
    monitoring.store.write(f"monitoring/labels/{DAY}/a.jsonl", json.dumps(label).encode())
    result = monitoring.run()
    assert result.success
    [check] = result.get_asset_check_evaluations()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "1 rejected: latency_ms is negative" in str(check.description)
    rejected = monitoring.store.list("monitoring/rejected/")
    assert rejected == [f"monitoring/rejected/{what}/{DAY}.parquet" for what in ("labels", "predictions")]
    served(monitoring.store, rows[:-1], rows[-1:])
    monitoring.store.write(f"monitoring/labels/{DAY}/a.jsonl", json.dumps(label | {TARGET: 1e5}).encode())
    assert monitoring.run().success
    assert monitoring.store.list("monitoring/rejected/") == []


def test_a_service_that_writes_what_it_should_not_stops_what_comes_next(monitoring: Monitoring) -> None:
    trained(monitoring.store, 3)
    monitoring.store.write(f"monitoring/predictions/{DAY}/x.parquet", b"no parquet")
    result = monitoring.run()
    assert not result.success
    [check] = result.get_asset_check_evaluations()
    assert check.severity is dg.AssetCheckSeverity.ERROR
    assert "x.parquet is not a readable Parquet file" in str(check.description)
    assert result.asset_materializations_for_node("drift_report") == []


def test_labels_that_are_filed_later_find_their_day(monitoring: Monitoring) -> None:
    rows = answered(resampled(ROWS, seed=1))
    trained(monitoring.store, 3)
    later = DAY + timedelta(days=5)
    served(monitoring.store, rows)
    served(monitoring.store, answered(resampled(ROWS, seed=2), day=later, request="later"), day=later)
    labels = [
        {"request_id": "request-1", "instance": 1, TARGET: 1e5},
        {"request_id": "later-1", "instance": 1, TARGET: 1e5},
        {"request_id": "nobody", "instance": 1, TARGET: 1e5},
    ]
    text = "\n".join(json.dumps(label) for label in labels)
    monitoring.store.write(f"monitoring/labels/{later}/a.jsonl", text.encode())
    assert monitoring.run().success
    assert monitoring.report("performance").labels == 1
    result = monitoring.run(later)
    assert monitoring.report("performance", later).labels == 1
    described = metadata_of(result, "performance_report")
    assert "| 2026-03-02 |" in str(described["labels_of_other_days"])
    assert described["labels_rejected"] == 1.0
    assert "no prediction of that day or the days before has this id" in str(described["rejected_labels"])


def spoil_bundle(store: ObjectStore) -> None:
    store.delete("models/housing_price_model/3/bundle.json")


def replace_training_rows(store: ObjectStore) -> None:
    store.write(TRAIN_NAME, store.read("data/other.parquet"))


@pytest.mark.parametrize("spoil", [spoil_bundle, replace_training_rows])
def test_training_data_that_are_gone_are_a_finding(
    monitoring: Monitoring, spoil: Callable[[ObjectStore], None]
) -> None:
    trained(monitoring.store, 3)
    other = resampled(50, seed=9)
    monitoring.store.write("data/other.parquet", encode("data/other.parquet", other))
    spoil(monitoring.store)
    served(monitoring.store, answered(resampled(ROWS, seed=1)))
    assert monitoring.run().success
    [finding] = monitoring.report("drift").findings
    assert (finding.cause, finding.severity) == ("drift:training_data", "critical")
    assert "version 3" in finding.text


def test_replaced_training_rows_are_found_below_their_snapshot(monitoring: Monitoring) -> None:
    trained(monitoring.store, 3)
    kept = TRAIN_NAME.replace("train.parquet", "replaced/0123.parquet")
    monitoring.store.write(kept, monitoring.store.read(TRAIN_NAME))
    monitoring.store.write(TRAIN_NAME, encode(TRAIN_NAME, resampled(50, seed=9)))
    served(monitoring.store, answered(resampled(ROWS, seed=1)))
    assert monitoring.run().success
    assert monitoring.report("drift").findings == []


def test_a_day_without_predictions_is_no_error(monitoring: Monitoring) -> None:
    assert monitoring.run().success
    assert len(logged(monitoring.store)) == 0
    assert monitoring.report("drift").rows == monitoring.report("performance").rows == 0


def test_a_report_without_its_table_says_what_to_do(monitoring: Monitoring) -> None:
    result = dg.materialize(
        ASSETS,
        selection="key:drift_report",
        partition_key=DAY.isoformat(),
        resources=monitoring.resources,
        raise_on_error=False,
    )
    assert "materialize prediction_log of 2026-03-02 first" in failure_of(result)
    with pytest.raises(ObjectMissing):
        monitoring.report("drift")


class Page(HTMLParser):
    """What a page loads, runs and says."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [str(value) for name, value in attrs if name in ("src", "href")]


def test_the_page_needs_no_other_server_and_escapes_what_callers_sent(monitoring: Monitoring) -> None:
    trained(monitoring.store, 3)
    served(monitoring.store, answered(resampled(ROWS, seed=1)))
    evil = {"request_id": "<script>alert(1)</script>", "instance": "<b>", TARGET: 1e5}
    monitoring.store.write(f"monitoring/labels/{DAY}/a.jsonl", json.dumps(evil).encode())
    assert monitoring.run().success
    for kind in ("drift", "performance"):
        page = Page()
        page.feed(monitoring.store.read(f"monitoring/reports/{kind}/{DAY}.html").decode())
        assert "script" not in page.tags
        assert all(source.startswith("data:image/png;base64,") for source in page.sources)
        assert "table" in page.tags


def test_the_running_day_has_its_partition() -> None:
    assert DAYS.get_last_partition_key() == datetime.now(UTC).date().isoformat()


def test_the_schedule_looks_at_the_day_that_has_ended() -> None:
    at = datetime(2026, 11, 23, 0, 30, tzinfo=UTC)
    request = daily_monitoring(dg.build_schedule_context(scheduled_execution_time=at))
    assert isinstance(request, dg.RunRequest)
    assert (request.partition_key, request.run_key) == ("2026-11-22", "2026-11-22")
    too_early = dg.build_schedule_context(scheduled_execution_time=datetime(2025, 1, 5, 0, 30, tzinfo=UTC))
    skipped = daily_monitoring(too_early)
    assert isinstance(skipped, dg.SkipReason)
    assert "2025-01-04 is before the first day of monitoring" in str(skipped.skip_message)
