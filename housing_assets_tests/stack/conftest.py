"""One running stack for all tests of this package, and one backfill that is disturbed half-way."""

import itertools
import os
import signal
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from housing_assets.sources import packaged_source, parse
from housing_assets_tests.running_stack import Stack, wait_for
from housing_assets_tests.stack.released import launch, registered_by, story

WEEKS = int(os.environ.get("HOUSING_STACK_WEEKS", "3"))
SNAPSHOTS = tuple(str(date(2025, 1, 5) + timedelta(weeks=week)) for week in range(WEEKS))
ASSETS = (
    *("raw_housing", "processed_housing", "featured_housing", "train_set", "test_set"),
    *("imputer", "preprocessing_pipeline", "model_selection", "sweep_result", "registered_model"),
)
LAUNCH_BACKFILL = """mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}
  ... on RunConfigValidationInvalid {errors {message}}}}"""
BACKFILL_SECONDS = 600.0 + 120.0 * WEEKS
# Rows of the first week, the second, and so on, again and again: some models are better than those before.
ROWS = (3000, 2000, 6000)
MORE_ROWS = 14_000


@dataclass
class DisturbedBackfill:
    """A backfill, and what was killed while it ran.

    Attributes:
        backfill_id: id of the backfill.
        seconds: from the launch until it had ended.
        survivor: run during which the daemon's process alone was killed.
        victim: run whose worker was killed together with the daemon's whole group.
        daemons: process ids of the daemon, in order.
        unblocked_seconds: from the second kill until the next run had started.
    """

    backfill_id: str
    seconds: float = 0.0
    survivor: str = ""
    victim: str = ""
    daemons: list[int] = field(default_factory=list)
    unblocked_seconds: float = 0.0


def updates_images() -> bool:
    """Whether this session renews the pictures of the documentation."""
    return os.environ.get("HOUSING_UPDATE_IMAGES") == "1"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let every test of the stack take what the backfill may take, which the first of them waits for."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(BACKFILL_SECONDS + 900.0))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Beside a failure, what the stack says of its runs and its release: waiting in vain tells little."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(stack, Stack):
        report.sections.append(("the stack then", story(stack)))
    return report


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything that `housing up` starts, in a folder with a space in its name."""
    stack = Stack(
        tmp_path_factory.mktemp("running stack"), WEB_CONCURRENCY="4", HOUSING_MONITORING_MINUTES="1"
    )
    started = stack.housing("up")
    assert started.returncode == 0, started.stderr
    stack.answers_at_start = stack.answers()
    try:
        yield stack
    finally:
        stack.housing("down")


@pytest.fixture(scope="session")
def run_config(stack: Stack) -> dict[str, Any]:
    """Few rows and small budgets: a run of the whole graph in half a minute; all rows for pictures."""
    table = parse(packaged_source())
    for snapshot, size in zip(SNAPSHOTS, itertools.cycle(ROWS), strict=False):
        rows = table if updates_images() else table.sample(size, random_state=0)
        rows.to_csv(stack.folder / f"block groups {snapshot}.csv", index=False)
    settings: dict[str, dict[str, Any]] = {
        "raw_housing": {"location": str(stack.folder / "block groups {snapshot}.csv")},
        "imputer": {"strategy": "median"},
        "preprocessing_pipeline": {"scan_largest_k": 3},
        "model_selection": {"families": ["RandomForest"], "n_folds": 2},
        "sweep_result": {"n_trials": 1, "n_folds": 2},
        "registered_model": {
            "n_folds": 2,
            "evaluation": {"spatial_folds": 2, "resamples": 100, "curve_fractions": [0.2], "curve_folds": 1},
        },
    }
    return {"ops": {name: {"config": config} for name, config in settings.items()}}


@pytest.fixture(scope="session")
def backfill(stack: Stack, run_config: dict[str, Any]) -> DisturbedBackfill:
    """Some snapshots of the whole graph, launched as the UI does; twice the daemon is killed half-way."""
    params = {
        "assetSelection": [{"path": [name]} for name in ASSETS],
        "partitionNames": list(SNAPSHOTS),
        "runConfigData": run_config,
        "title": "Some weeks",
    }
    launched = stack.graphql(LAUNCH_BACKFILL, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    begun = time.monotonic()
    disturbed = DisturbedBackfill(launched["backfillId"])
    disturbed.daemons.append(stack.pid("dagster-daemon"))

    disturbed.survivor = running_step(stack, disturbed)
    kill_daemon_alone(stack, disturbed)
    disturbed.victim = running_step(stack, disturbed)
    kill_daemon_group(stack, disturbed)

    killed = time.monotonic()
    running_step(stack, disturbed)
    disturbed.unblocked_seconds = time.monotonic() - killed
    wait_for("the end of the backfill", lambda: ended(stack, disturbed.backfill_id), BACKFILL_SECONDS)
    disturbed.seconds = time.monotonic() - begun
    return disturbed


@pytest.fixture(scope="session")
def better(stack: Stack, backfill: DisturbedBackfill, run_config: dict[str, Any]) -> int:
    """A version that was trained on more rows, registered by a run as the UI launches it."""
    path = stack.folder / "more block groups.csv"
    parse(packaged_source()).sample(MORE_ROWS, random_state=0).to_csv(path, index=False)
    settings = {"ops": {**run_config["ops"], "raw_housing": {"config": {"location": str(path)}}}}
    run_id = launch(stack, "training_job", settings, {"dagster/partition": SNAPSHOTS[-1]})
    return wait_for("a better version", lambda: registered_by(stack, run_id), 400)


def running_step(stack: Stack, disturbed: DisturbedBackfill) -> str:
    """Id of a run that was not disturbed before, once it is half-way: its imputer is stored."""

    def look() -> str | None:
        for run_id, run in stack.runs().items():
            new = run_id not in (disturbed.survivor, disturbed.victim)
            if new and run["status"] == "STARTED" and run["steps"].get("imputer") == "SUCCESS":
                return run_id
        return None

    return wait_for("a run half-way", look, BACKFILL_SECONDS)


def kill_daemon_alone(stack: Stack, disturbed: DisturbedBackfill) -> None:
    """SIGKILL the daemon's own process, and wait until supervisord has started another one."""
    os.kill(disturbed.daemons[-1], signal.SIGKILL)
    await_next_daemon(stack, disturbed)


def kill_daemon_group(stack: Stack, disturbed: DisturbedBackfill) -> None:
    """SIGKILL the daemon's group, which holds the worker of the run that it launched."""
    worker = stack.run_worker(disturbed.victim)
    assert os.getpgid(worker) == disturbed.daemons[-1]
    os.killpg(disturbed.daemons[-1], signal.SIGKILL)
    await_next_daemon(stack, disturbed)


def await_next_daemon(stack: Stack, disturbed: DisturbedBackfill) -> None:
    """Remember the daemon that follows the last one."""

    def look() -> int | None:
        pid = stack.pid("dagster-daemon")
        return pid if pid != disturbed.daemons[-1] else None

    disturbed.daemons.append(wait_for("another daemon", look, 60))


def ended(stack: Stack, backfill_id: str) -> bool:
    """Whether a backfill has ended; one that failed fails the test at once."""
    found = stack.backfill(backfill_id)
    assert not found["error"], found["error"]
    return found["status"] not in ("REQUESTED", "CANCELING", "FAILING", "COMPLETING")
