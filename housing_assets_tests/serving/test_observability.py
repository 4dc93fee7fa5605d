"""The service as operators watch it: real processes, their metrics and the log of what they answered."""

import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import requests

from housing_assets_tests.serving.bundles import INSTANCE
from housing_assets_tests.serving.running_service import RunningService, running_service
from housing_assets_tests.serving.test_metrics import series
from housing_assets_tests.serving.test_prediction_log import rows_in, wait_for

PREDICTED = "requests_total{method=POST,route=/api/v1/predict,status=200}"
WRITTEN = "prediction_log_written_rows_total"


def ask(service: RunningService, rows: int = 1, **headers: str) -> "requests.Response":
    """A prediction on a connection of its own, so that any worker may take it."""
    body = {"instances": [dict(INSTANCE)] * rows}
    return requests.post(f"{service.url}/api/v1/predict", json=body, headers=headers, timeout=30)


def scraped(service: RunningService) -> dict[str, float]:
    return series(requests.get(f"{service.url}/metrics", timeout=30).text)


def test_what_was_answered_is_logged_and_measured(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        null = {**INSTANCE, "total_bedrooms": None}
        answers: Any = requests.post(
            f"{service.url}/api/v1/predict",
            json={"instances": [dict(INSTANCE), null]},
            headers={"X-Request-ID": "mine"},
            timeout=30,
        ).json()["predictions"]
        assert ask(service, rows=0).status_code == 422
        assert requests.get(f"{service.url}/made/up/path", timeout=30).status_code == 404
        wait_for("the distributions", lambda: scraped(service)["predicted_price_dollars_count"] == 2)
        found = scraped(service)

    assert found[PREDICTED] == 1
    assert found["requests_total{method=POST,route=/api/v1/predict,status=422}"] == 1
    assert found["requests_total{method=GET,route=unmatched,status=404}"] == 1
    assert found["requests_in_flight"] == 1  # the scrape itself
    assert found["predictions_total{model_version=3}"] == 2
    assert found["feature_total_bedrooms_null_total"] == 1
    assert found["model_info{algorithm=RandomForest,snapshot=2025-01-05,source=local,version=3}"] == 1
    rows = rows_in(tmp_path / "home")
    assert [(row["request_id"], row["instance"]) for row in rows] == [("mine", 0), ("mine", 1)]
    for row, sent, answered in zip(rows, (INSTANCE, null), answers, strict=True):
        assert {name: row[name] for name in sent} == sent
        assert row["predicted_price"] == answered["predicted_price"]
        assert {name: row[name] for name in ("lower", "upper", "level")} == answered["confidence_interval"]
        assert row["model_version"] == "3"
        assert 0 < row["latency_ms"] < 30_000
        assert abs(row["answered_at"].timestamp() - time.time()) < 600


def test_several_workers_report_one_sum_also_after_one_was_killed(tmp_path: Path) -> None:
    requests_sent = 40
    settings = {"WEB_CONCURRENCY": "2", "HOUSING_PREDICTION_LOG_SECONDS": "0.05"}
    with running_service(tmp_path, **settings) as service:
        wait_for("both workers", lambda: scraped(service)["models_loaded"] == 2)
        for _ in range(requests_sent):
            assert ask(service, rows=3).status_code == 200
        wait_for("all rows", lambda: scraped(service)[WRITTEN] == 3 * requests_sent)
        sums = {scraped(service)[PREDICTED] for _ in range(10)}
        assert sums == {requests_sent}

        # The worker that now answers nothing: whichever it was, its counts must stay and its gauges go.
        [main] = [
            process for process in psutil.Process().children() if "housing_serving" in process.cmdline()
        ]
        victim = next(child for child in main.children() if "spawn_main" in " ".join(child.cmdline()))
        victim.send_signal(signal.SIGKILL)
        wait_for("another worker", lambda: not victim.is_running() and both_loaded(service))
        assert scraped(service)[PREDICTED] == requests_sent
        for _ in range(requests_sent):
            assert ask(service, rows=3).status_code == 200
        assert scraped(service)[PREDICTED] == 2 * requests_sent
        assert scraped(service)["requests_in_flight"] == 1

    per_request = Counter(row["request_id"] for row in rows_in(tmp_path / "home"))
    assert len(per_request) == 2 * requests_sent
    assert set(per_request.values()) == {3}


def both_loaded(service: RunningService) -> bool:
    try:
        return scraped(service)["models_loaded"] == 2
    except requests.ConnectionError:  # it was the killed one's turn
        return False


def test_a_disk_that_cannot_be_written_fails_no_request(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    blocked = home / "storage"
    blocked.write_text("a file in the place of the folder")
    with running_service(tmp_path, HOUSING_PREDICTION_LOG_SECONDS="0.05") as service:
        for _ in range(20):
            assert ask(service).status_code == 200
        wait_for("a failure", lambda: scraped(service)["prediction_log_failed_writes_total"] >= 1)
        health = requests.get(f"{service.url}/health/deep", timeout=30).json()
        blocked.unlink()
    assert health["status"] == "degraded"
    assert health["prediction_log"]["problem"] == (
        f"{home}/storage/monitoring/predictions cannot be written (Not a directory): "
        "check the disk and its permissions"
    )
    assert service.log.read_text().count("prediction log is not stored") == 1
    assert len(rows_in(home)) == 20
