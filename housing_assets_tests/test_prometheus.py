"""Scrape config, alert rules and dashboard: loaded by the real Prometheus, on the real service and exporter.

Grafana is not run: what it would ask Prometheus is asked here.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from housing_assets.alerts.book import Alert, AlertBook, AlertBookStore, Notice, Outbox, StoredBook
from housing_assets.storage import LocalStore
from housing_assets_tests.alerts.reports import finding, publish, report
from housing_assets_tests.command_line import REPOSITORY, clean_environment
from housing_assets_tests.conftest import free_port
from housing_assets_tests.serving.bundles import INSTANCE
from housing_assets_tests.serving.running_service import RunningService, running_service
from housing_assets_tests.system_programs import require

FOLDER = REPOSITORY / "deploy" / "monitoring"
RULES = FOLDER / "alerts.yml"
RUNBOOK = REPOSITORY / "docs" / "runbook.md"
METRIC = re.compile(r"\bhousing_[a-z0-9_]+\b")
DEADLINE_SECONDS = 60.0
NOW = datetime.now(UTC)
YESTERDAY = (NOW - timedelta(days=1)).date()


def alert_rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / "grafana" / "dashboards" / "housing.json").read_text())
    return content


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Title and expression of everything the dashboard asks, as Grafana would send it."""
    return [
        (panel["title"], target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m"))
        for panel in panels()
        for target in panel["targets"]
    ]


# The files


def test_prometheus_accepts_config_and_rules() -> None:
    promtool = require("promtool", package="prometheus")
    command = [promtool, "check", "config", str(FOLDER / "prometheus.yml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    promtool = require("promtool", package="prometheus")
    files = sorted(FOLDER.glob("alerts_*test.yml"))
    command = [promtool, "test", "rules", *map(str, files)]
    tested = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    fired = {
        case["alertname"]
        for file in files
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in alert_rules()}


def test_every_alert_says_what_to_do_and_has_its_entry_in_the_runbook() -> None:
    entries = re.findall(r"^### (\S+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    anchors = {entry.lower() for entry in entries}
    for rule in alert_rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, rule["alert"]
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (page, anchor) == ("docs/runbook.md", rule["alert"].lower())
        assert anchor in anchors
    # What the messages of the sensor link to.
    assert {"drift", "performance"} <= anchors
    known = {rule["alert"] for rule in alert_rules()} | {"drift", "performance"}
    assert set(entries) == known


def test_the_dashboard_is_whole() -> None:
    content = dashboard()
    ids = [panel["id"] for panel in content["panels"]]
    assert len(ids) == len(set(ids))
    source = yaml.safe_load((FOLDER / "grafana" / "datasources" / "prometheus.yml").read_text())
    [uid] = [one["uid"] for one in source["datasources"]]
    for panel in panels():
        assert panel["title"] and panel["description"], panel["id"]
        assert {panel["datasource"]["uid"], *(one["datasource"]["uid"] for one in panel["targets"])} == {uid}
    taken: set[tuple[int, int]] = set()
    for panel in content["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


# The programs


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running_service(tmp_path_factory.mktemp("service")) as started:
        yield started


def wait_for(what: str, found: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not found():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"
        time.sleep(0.1)


@contextmanager
def program(command: list[str], log: Path, answers: str, environment: dict[str, str]) -> Iterator[None]:
    """A program that answers at an address until the end of the block."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent, env=environment)
    try:
        wait_for(f"{command[0]} answers at {answers}", lambda: answered(process, answers, log))
        yield
        process.terminate()
        process.wait(30)
        assert process.returncode == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def answered(process: "subprocess.Popen[bytes]", url: str, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage root with something found, an open alert, and a channel that was not told."""
    folder = tmp_path_factory.mktemp("home")
    store = LocalStore(folder / "storage")
    publish(
        store,
        report(YESTERDAY, finding("drift:median_income", value=0.7), finding("drift:latitude", "warning")),
    )
    wrong = finding("performance:mape", from_labels=True)
    publish(store, report(YESTERDAY, wrong, kind="performance", labels=500))
    alert = Alert.open("drift", YESTERDAY, finding("drift:median_income"), NOW)
    box = Outbox(channel="email", notices=(Notice(event="opened", alert=alert),))
    AlertBookStore(store).write(AlertBook(opened=(alert,), outboxes=(box,)), StoredBook(AlertBook(), None))
    return folder


@pytest.fixture(scope="module")
def exporter(home: Path) -> Iterator[str]:
    """Where `housing exporter` answers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    environment = clean_environment(home, HOUSING_EXPORTER_PORT=str(port), PYTHONPATH=str(REPOSITORY))
    command = [sys.executable, "-m", "housing_assets", "exporter"]
    with program(command, home / "exporter.log", url, environment):
        yield url


def test_the_exporter_says_what_monitoring_found(exporter: str) -> None:
    lines = requests.get(exporter, timeout=10).text.splitlines()
    start = datetime(YESTERDAY.year, YESTERDAY.month, YESTERDAY.day, tzinfo=UTC).timestamp()
    for line in (
        "housing_monitoring_readable 1.0",
        f'housing_report_day_timestamp_seconds{{evidence="drift"}} {start}',
        'housing_report_rows{evidence="performance"} 5000.0',
        'housing_findings{evidence="drift",severity="warning"} 1.0',
        'housing_findings{evidence="performance",severity="critical"} 0.0',
        'housing_findings{evidence="labels",severity="critical"} 1.0',
        'housing_alert_open{cause="drift:median_income",severity="critical"} 1.0',
        'housing_alert_undelivered_notices{channel="email"} 1.0',
    ):
        # Times are in scientific notation.
        assert line in lines or any(same(line, other) for other in lines), line
    values = [line for line in lines if line.startswith("housing_finding_value{") and "median_income" in line]
    assert values == [
        'housing_finding_value{cause="drift:median_income",evidence="drift",severity="critical",'
        'subject="median_income"} 0.7'
    ]


def same(line: str, other: str) -> bool:
    name, _, value = line.rpartition(" ")
    other_name, _, other_value = other.rpartition(" ")
    return name == other_name and float(value) == float(other_value)


def test_the_exporter_says_when_it_cannot_read(exporter: str, home: Path) -> None:
    book = home / "storage" / "monitoring" / "alerts.json"
    content = book.read_bytes()
    book.write_bytes(b"no book")
    try:
        lines = requests.get(exporter, timeout=10).text.splitlines()
    finally:
        book.write_bytes(content)
    assert [line for line in lines if not line.startswith("#")] == ["housing_monitoring_readable 0.0"]
    assert "alerts.json is no alert book" in (home / "exporter.log").read_text()


def test_a_taken_port_is_a_clear_error(exporter: str, home: Path) -> None:
    port = exporter.removesuffix("/metrics").rpartition(":")[2]
    refused = subprocess.run(
        [sys.executable, "-m", "housing_assets", "exporter"],
        env=clean_environment(home, HOUSING_EXPORTER_PORT=port, PYTHONPATH=str(REPOSITORY)),
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert refused.returncode == 1
    assert f"port {port} cannot be used (Address already in use)" in refused.stderr


def test_every_metric_of_rules_and_dashboard_is_exposed(service: RunningService, exporter: str) -> None:
    exposed = set()
    for url in (f"{service.url}/metrics", exporter):
        for line in requests.get(url, timeout=10).text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                exposed |= (
                    {f"{name}{end}" for end in ("_bucket", "_sum", "_count")}
                    if kind == "histogram"
                    else {name}
                )
    asked = {
        name
        for text in (*(rule["expr"] for rule in alert_rules()), *(expression for _, expression in queries()))
        for name in METRIC.findall(text)
    }
    assert asked - exposed == set()
    assert len(asked) > 30


@pytest.fixture(scope="module")
def prometheus(
    service: RunningService, exporter: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The real Prometheus with the product's config, other addresses and more haste."""
    path = require("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES)]
    addresses = {"housing-price-api": service.url, "housing-monitoring": exporter.removesuffix("/metrics")}
    for job in config["scrape_configs"]:
        job["scrape_interval"] = "1s"
        job["static_configs"] = [{"targets": [addresses[job["job_name"]].removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *(path, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"),
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with program(command, folder / "prometheus.log", f"{url}/-/ready", {}):
        yield url


def ask(prometheus: str, expression: str) -> list[dict[str, Any]]:
    answer = requests.get(f"{prometheus}/api/v1/query", params={"query": expression}, timeout=10).json()
    assert answer["status"] == "success", f"{expression}: {answer}"
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


# Nothing of it happens while a service is well and there is no trial.
QUIET = {
    "Trial: requests",
    "Trial: latency p99",
    "Trial: difference of prices",
    "Rows lost",
    # Its second query: versions that cannot be loaded.
    "Processes by version",
}


def test_prometheus_answers_everything_the_dashboard_asks(prometheus: str, service: RunningService) -> None:
    def predict() -> None:
        answer = requests.post(
            f"{service.url}/api/v1/predict", json={"instances": [dict(INSTANCE)]}, timeout=10
        )
        answer.raise_for_status()

    def unanswered() -> set[str]:
        predict()
        return {title for title, expression in queries() if not ask(prometheus, expression)}

    wait_for("both targets are up", lambda: len(ask(prometheus, "up == 1")) == 2)
    wait_for("all but what is quiet has an answer", lambda: unanswered() == QUIET)
    rates = ask(prometheus, dict(queries())["Mean price"])
    assert float(rates[0]["value"][1]) == pytest.approx(300_000)


def test_all_rules_are_evaluated_without_a_problem(prometheus: str) -> None:
    def evaluated() -> list[dict[str, Any]]:
        answer = requests.get(f"{prometheus}/api/v1/rules", timeout=10).json()
        rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] == "ok" for rule in rules) else []

    wait_for("all rules are healthy", evaluated)
    rules = evaluated()
    assert {rule["name"] for rule in rules} == {rule["alert"] for rule in alert_rules()}
    # Some are older than what they wait for: the bundle is from long ago, and a channel was not told.
    pending = {rule["name"] for rule in rules if rule["state"] != "inactive"}
    assert pending == {"HousingModelOld", "HousingAlertsNotDelivered"}
