"""A fleet of four real processes under a release: trials, promotions, rollbacks, faults, and load."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import requests

from housing_assets.deployment import release
from housing_assets.deployment.canary import CanaryRules
from housing_assets.deployment.rollout import CanaryRejected, Rollout
from housing_assets.deployment.target import DeploymentConflict, DeploymentError, Reading, TargetUnavailable
from housing_assets_tests.deployment.fleets import (
    PREDICT,
    PROCESSES,
    Fleet,
    add_version,
    failing_bundle,
    like_version,
    price_of,
    record_of,
    running_fleet,
    slow_bundle,
    wait_until,
)
from housing_assets_tests.serving.bundles import INSTANCE
from housing_assets_tests.system_programs import require
from housing_serving.releases import change, track_of

# How often the service is redeployed under load; a release must stand 50.
REDEPLOYS = int(os.environ.get("HOUSING_REDEPLOYS", "10"))
REDEPLOYS_PER_ROLLBACK = 5
CONNECTIONS = 16
QUICK = CanaryRules(percent=30, window_seconds=3, min_requests=20)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.fixture
def fleet(shared: Fleet) -> Fleet:
    """The fleet with version 1 released, whatever was done to it before."""
    record = shared.root / "releases" / "housing-price-api.json"
    record.unlink(missing_ok=True)
    for version in shared.root.glob("models/housing_price_model/*"):
        if version.name != "1":
            shutil.rmtree(version)
    release.promote(shared.target(), 1, "test", "to begin with")
    shared.wait_for({1: PROCESSES})
    wait_until(lambda: serving_canary(shared) == 0 == unloadable(shared), "nothing of the test before")
    return shared


def rollout(fleet: Fleet, version: int, judged_against: int | None = 1, owner: str = "run-1") -> Rollout:
    return Rollout(fleet.target(), version, judged_against, owner, f"Dagster run {owner}", QUICK)


@contextmanager
def traffic(fleet: Fleet, **changes: object) -> Iterator["Counter[tuple[int, str, str | None]]"]:
    """Four callers at work; counts their answers by status, version and track."""
    seen: Counter[tuple[int, str, str | None]] = Counter()
    over = threading.Event()
    body = {"instances": [{**INSTANCE, **changes}]}

    def call() -> None:
        with requests.Session() as session:
            while not over.is_set():
                answer = session.post(f"{fleet.url}{PREDICT}", json=body, timeout=30)
                version = str(answer.json().get("model_version"))
                seen[answer.status_code, version, answer.headers.get("X-Model-Track")] += 1

    threads = [threading.Thread(target=call, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join(30)


def test_every_process_serves_a_promoted_version_and_says_so(fleet: Fleet) -> None:
    add_version(fleet.root, 2)
    begun = time.monotonic()
    release.promote(fleet.target(), 2, "ann", "it is better")
    fleet.wait_for({2: PROCESSES})
    assert time.monotonic() - begun < 5
    answers = [fleet.ask().json() for _ in range(20)]
    assert {answer["model_version"] for answer in answers} == {"2"}
    assert {answer["predictions"][0]["predicted_price"] for answer in answers} == {price_of(2)}
    health = requests.get(f"{fleet.url}/health/deep", timeout=10).json()
    assert (health["status"], health["release"]["state"]) == ("healthy", "followed")
    assert health["release"]["stable_version"] == 2


def test_a_canary_answers_the_requests_whose_ids_say_so_and_its_answers_are_labelled(fleet: Fleet) -> None:
    add_version(fleet.root, 2)
    step = change("canary", 2, "run-1", "30 %")
    fleet.target().start_canary(2, 30, stable=1, owner="run-1", change=step)
    wait_until(lambda: serving_canary(fleet) == PROCESSES, "four processes with the canary")
    for number in range(60):
        name = f"id-{number}"
        answer = fleet.ask(name, rows=3)
        track = track_of(name, 30)
        version = 2 if track == "canary" else 1
        assert answer.headers["X-Model-Track"] == track
        assert answer.headers["X-Request-ID"] == name
        assert answer.json()["model_version"] == str(version)
        prices = {each["predicted_price"] for each in answer.json()["predictions"]}
        assert prices == {price_of(version)}

    fleet.target().abort_canary(2, change=change("abort", 2, "ann", "enough"))
    wait_until(lambda: serving_canary(fleet) == 0, "no canary")
    assert "X-Model-Track" not in fleet.ask().headers


def test_an_invalid_request_is_refused_alike_with_and_without_a_canary(fleet: Fleet) -> None:
    add_version(fleet.root, 2)
    fleet.target().start_canary(2, 99, stable=1, owner="run-1", change=change("canary", 2, "x", "y"))
    wait_until(lambda: serving_canary(fleet) == PROCESSES, "four processes with the canary")
    answer = fleet.ask(median_income="much")
    assert answer.status_code == 422
    assert answer.json()["error"]["details"][0]["field"] == "instances.0.median_income"
    assert 'outcome="error"' not in metrics(fleet)


def test_a_canary_that_does_well_is_promoted(fleet: Fleet) -> None:
    add_version(fleet.root, 2, like_version(2))
    said: list[str] = []
    with traffic(fleet) as seen:
        status = Rollout(fleet.target(), 2, 1, "run-1", "Dagster run run-1", QUICK, said.append).run()
    assert (status.stable, status.previous, status.canary) == (2, 1, None)
    assert status.serving == {2: PROCESSES}
    assert {code for code, _, _ in seen} == {200}
    canary = sum(count for (_, _, track), count in seen.items() if track == "canary")
    stable = sum(count for (_, _, track), count in seen.items() if track == "stable")
    assert 0.2 < canary / (canary + stable) < 0.4
    assert any("neither slow nor shifted" in line for line in said)
    assert [entry.action for entry in fleet.target().history()] == ["promote", "canary", "promote"]


@pytest.mark.parametrize(
    ("version", "files", "income", "problem"),
    # Each has its own number, as versions have: what one answers late is not counted as another's.
    [
        (31, failing_bundle(31), 20.0, r"it failed \d+ of \d+ requests"),
        # On a busy machine it takes so long that the stable version answers instead.
        (
            32,
            slow_bundle(32),
            5.0,
            r"it (is slow: \d+ of \d+ requests took more than|failed \d+ of \d+ requests)",
        ),
        (33, like_version(33, 0.3), 5.0, r"its prices have shifted by -70%: \$300,000 on average"),
    ],
    ids=["fails", "is slow", "shifts"],
)
def test_a_canary_that_does_badly_is_taken_back_and_no_caller_notices(
    fleet: Fleet, version: int, files: dict[str, bytes], income: float, problem: str
) -> None:
    add_version(fleet.root, version, files)
    # What is wrong ends the trial at once, on a busy machine within seconds; the window is far longer.
    rules = CanaryRules(percent=30, window_seconds=30, min_requests=20, min_slow_seconds=0.02)
    with traffic(fleet, median_income=income) as seen:
        begun = time.monotonic()
        with pytest.raises(CanaryRejected, match=problem):
            Rollout(fleet.target(), version, 1, "run-1", "Dagster run run-1", rules).run()
        assert time.monotonic() - begun < rules.window_seconds
        wait_until(lambda: serving_canary(fleet) == 0, "no canary")
    record = record_of(fleet.root)
    assert (record.stable_version, record.canary_version) == (1, None)
    assert (record.history[-1].action, record.history[-1].version) == ("abort", version)
    assert re.search(problem, record.history[-1].reason)
    assert {code for code, _, _ in seen} == {200}


def test_what_only_one_reading_says_of_a_canary_is_not_believed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = fleet.target()
    read = target.read
    torn = []

    def tear() -> Reading:
        """Read once in the midst of an update: the sum has a batch that the counts still lack."""
        now = read()
        if (
            torn
            or now.canary is None
            or now.canary.prices is None
            or now.canary.requests < 2 * QUICK.min_requests
        ):
            return now
        prices = replace(now.canary.prices, total=2 * now.canary.prices.total)
        torn.append(prices)
        return replace(now, canary=replace(now.canary, prices=prices))

    monkeypatch.setattr(target, "read", tear)
    add_version(fleet.root, 34, like_version(34))
    with traffic(fleet):
        status = Rollout(target, 34, 1, "run-1", "Dagster run run-1", QUICK).run()
    assert torn
    assert status.stable == 34


def test_a_canary_that_cannot_be_loaded_ends_its_trial_and_the_fleet_stays_as_it_is(fleet: Fleet) -> None:
    files = like_version(2)
    add_version(fleet.root, 2, {**files, "model.onnx": files["model.onnx"][:-1] + b"\0"})
    with pytest.raises(CanaryRejected, match="it cannot be loaded by"):
        rollout(fleet, 2).run()
    assert fleet.ask().json()["model_version"] == "1"
    assert record_of(fleet.root).canary_version is None


def test_a_promoted_version_that_cannot_be_loaded_leaves_every_process_with_the_one_before(
    fleet: Fleet,
) -> None:
    release.promote(fleet.target(), 7, "ann", "a version whose bundle is not there")
    # Any of the processes may be the one that is asked about its health.
    wait_until(lambda: unloadable(fleet) == PROCESSES, "every process to have tried")
    assert "cannot load version 7" in str(fleet.target().status().problems)
    assert fleet.versions() == {1: PROCESSES}
    health = requests.get(f"{fleet.url}/health/deep", timeout=10).json()
    assert (health["status"], health["release"]["state"]) == ("degraded", "incomplete")
    assert "version 7: " in health["release"]["detail"]
    assert requests.get(f"{fleet.url}/health/ready", timeout=10).status_code == 200

    # It is looked for again: what was missing may come.
    add_version(fleet.root, 7)
    fleet.wait_for({7: PROCESSES})
    assert fleet.target().status().problems == ()


def test_a_record_that_is_damaged_changes_nothing(fleet: Fleet) -> None:
    (fleet.root / "releases" / "housing-price-api.json").write_bytes(b'{"stable_version": ')
    wait_until(lambda: release_state(fleet) == "unreadable", "unreadable")
    assert fleet.versions() == {1: PROCESSES}
    assert fleet.ask().status_code == 200


def test_of_two_deployments_that_race_one_wins_and_the_other_is_told(fleet: Fleet) -> None:
    add_version(fleet.root, 2, like_version(2))
    add_version(fleet.root, 3, like_version(3))

    def deploy(version: int) -> int | DeploymentConflict:
        try:
            return rollout(fleet, version, owner=f"run-{version}").run().stable or 0
        except DeploymentConflict as error:
            return error

    with traffic(fleet), ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(deploy, [2, 3]))
    [winner] = [outcome for outcome in outcomes if isinstance(outcome, int)]
    [loser] = [outcome for outcome in outcomes if isinstance(outcome, DeploymentConflict)]
    assert re.search("is being tried out by run-|changed by somebody else|serves by now", str(loser))
    record = record_of(fleet.root)
    assert (record.stable_version, record.canary_version) == (winner, None)
    assert {entry.version for entry in record.history} == {1, winner}


def test_a_decision_that_is_out_of_date_is_a_conflict(fleet: Fleet) -> None:
    add_version(fleet.root, 2)
    with pytest.raises(
        DeploymentConflict, match=r"version 3 was judged against version 2, but version 1 serves by now"
    ):
        rollout(fleet, 3, judged_against=2).run()
    assert len(fleet.target().history()) == 1


def test_a_deployment_that_was_killed_goes_on_where_it_was(fleet: Fleet) -> None:
    add_version(fleet.root, 2, like_version(2))
    first = rollout(fleet, 2)
    first.target.start_canary(2, 30, stable=1, owner="run-1", change=change("canary", 2, "run-1", "30 %"))
    with traffic(fleet):
        assert rollout(fleet, 2).run().stable == 2
    assert rollout(fleet, 2).run().stable == 2
    assert [entry.action for entry in fleet.target().history()] == ["promote", "canary", "promote"]


def test_rollback_ends_a_trial_first_and_its_deployment_notices(fleet: Fleet) -> None:
    add_version(fleet.root, 2, like_version(2))
    outcome: list[BaseException] = []

    def deploy() -> None:
        try:
            rollout(fleet, 2).run()
        except DeploymentError as error:
            outcome.append(error)

    deploying = threading.Thread(target=deploy)
    deploying.start()
    wait_until(lambda: record_of(fleet.root).canary_version == 2, "a trial")
    assert "the trial of version 2 is ended" in release.roll_back(fleet.target(), "ann", "I do not like it")
    deploying.join(60)
    assert "somebody ended the trial" in str(outcome)
    assert record_of(fleet.root).stable_version == 1


def test_rollback_on_the_command_line_reaches_every_process(fleet: Fleet) -> None:
    add_version(fleet.root, 2)
    release.promote(fleet.target(), 2, "ann", "better")
    fleet.wait_for({2: PROCESSES})
    begun = time.monotonic()
    with subprocess.Popen(
        [str(Path(sys.executable).parent / "housing"), "release", "rollback", "--reason", "it is worse"],
        env={**os.environ, "HOUSING_HOME": str(fleet.root.parent), "HOUSING_API_URLS": fleet.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as command:
        fleet.wait_for({1: PROCESSES})
        assert time.monotonic() - begun < 10
        printed = command.communicate(timeout=60)[0]
    assert command.returncode == 0, printed
    assert "version 1 is released again, version 2 is not any more" in printed
    assert fleet.target().history()[-1].reason == "it is worse"


def test_the_first_release_cannot_be_rolled_back(fleet: Fleet) -> None:
    with pytest.raises(DeploymentError, match="version 1 is the first that was released"):
        release.roll_back(fleet.target(), "ann", "no")
    assert record_of(fleet.root).stable_version == 1


def test_a_fleet_that_nobody_can_ask_promotes_nothing(fleet: Fleet) -> None:
    add_version(fleet.root, 2)
    blind = Rollout(
        type(fleet.target())(fleet.target()._release._store, ["http://127.0.0.1:9"]),
        2,
        1,
        "run-1",
        "Dagster run run-1",
        CanaryRules(window_seconds=1),
    )
    with pytest.raises(TargetUnavailable, match="check that the API runs there"):
        blind.run()
    record = record_of(fleet.root)
    assert (record.stable_version, record.canary_version) == (1, None)


def test_a_killed_process_comes_back_with_what_is_released(fleet: Fleet) -> None:
    add_version(fleet.root, 2)
    victim = fleet.workers()[0]
    release.promote(fleet.target(), 2, "ann", "better")
    victim.send_signal(signal.SIGKILL)
    psutil.wait_procs([victim], 30)
    fleet.wait_for({2: PROCESSES})
    assert victim.pid not in {worker.pid for worker in fleet.workers()}


def test_workers_end_with_their_killed_parent(tmp_path: Path) -> None:
    with running_fleet(tmp_path, processes=2) as own:
        workers = own.workers()
        assert len(workers) == 2
        os.kill(own.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(workers, 30)
        assert alive == []


def test_no_request_fails_while_the_service_is_redeployed_again_and_again(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrk = require("wrk")
    for version in range(2, 6):
        add_version(fleet.root, version)
    script = tmp_path / "post.lua"
    script.write_text(LUA)
    over = threading.Event()
    mixed: list[object] = []

    def check_batches() -> None:
        while not over.is_set():
            answer = fleet.ask(rows=50)
            body = answer.json()
            prices = {each["predicted_price"] for each in body["predictions"]}
            if answer.status_code != 200 or prices != {price_of(int(body["model_version"]))}:
                mixed.append((answer.status_code, body["model_version"], prices))

    checking = threading.Thread(target=check_batches, daemon=True)
    load = subprocess.Popen(
        [
            wrk,
            "-t",
            "1",
            "-c",
            str(CONNECTIONS),
            "-d",
            "600s",
            "--timeout",
            "30s",
            "-s",
            str(script),
            f"{fleet.url}{PREDICT}",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    checking.start()
    try:
        for number in range(REDEPLOYS):
            version = 2 + number % 4
            release.promote(fleet.target(), version, "test", f"redeploy {number}")
            fleet.wait_for({version: PROCESSES})
            if number % REDEPLOYS_PER_ROLLBACK == 0:
                release.roll_back(fleet.target(), "test", "back")
                fleet.wait_for({record_of(fleet.root).stable_version: PROCESSES})
    finally:
        load.send_signal(signal.SIGINT)
        printed = load.communicate(timeout=60)[0]
        over.set()
        checking.join(30)
    with capsys.disabled():
        print(f"\n{REDEPLOYS} redeploys, and a rollback after every fifth, under load:\n{printed}")  # noqa: T201
    result = next(line for line in printed.splitlines() if line.startswith("RESULT "))
    counts = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", result)}
    assert counts.pop("requests") > 1000
    assert set(counts.values()) == {0}, counts
    assert mixed == []


LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"instances": [{"longitude": -122.23, "latitude": 37.88, "housing_median_age": 41, ' ..
  '"total_rooms": 880, "total_bedrooms": 129, "population": 322, "households": 126, ' ..
  '"median_income": 8.3252, "ocean_proximity": "NEAR BAY"}]}'
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT requests=%d connect=%d read=%d write=%d status=%d timeout=%d\\n",
    summary.requests, e.connect, e.read, e.write, e.status, e.timeout))
end
"""


def metrics(fleet: Fleet) -> str:
    return requests.get(f"{fleet.url}/metrics", timeout=10).text


def serving_canary(fleet: Fleet) -> int:
    lines = re.findall(r'^housing_models_serving{.*track="canary".*} (\d)', metrics(fleet), re.MULTILINE)
    return sum(int(value) for value in lines)


def unloadable(fleet: Fleet) -> int:
    lines = re.findall(r"^housing_release_unloadable_models{.*} (\d)", metrics(fleet), re.MULTILINE)
    return sum(int(value) for value in lines)


def release_state(fleet: Fleet) -> str:
    state: str = requests.get(f"{fleet.url}/health/deep", timeout=10).json()["release"]["state"]
    return state
