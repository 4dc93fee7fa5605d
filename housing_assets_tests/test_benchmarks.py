"""The benchmarks run, their tables have every row, and a server that answers wrongly is not measured."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import scaling, wrk
from benchmarks.block_groups import block_groups
from benchmarks.footprint import growth, resident_while_predicting
from benchmarks.measuring import Figure, MeasurementRefused, spread
from benchmarks.open_loop import latencies
from benchmarks.processes import Command, Server, running
from benchmarks.sides import EMPTY, REFERENCE, Side, empty, insist_on_right_answers
from housing_assets.ml.schemas import RAW_SCHEMA, validate
from housing_assets.sources import packaged_source, parse
from housing_assets_tests.command_line import REPOSITORY
from housing_assets_tests.serving.bundles import INSTANCE
from housing_assets_tests.system_programs import require

Done = subprocess.CompletedProcess[str]

STAGES = ("imputation", "prediction", "explanation", "search", "sharing")
TRAINING = tuple(argument for stage in STAGES for argument in ("--only", stage))
TRAINING_ROWS = [
    ("bedrooms: one forest of 100", "seconds"),
    ("", "RMSE, bedrooms"),
    ("bedrooms: boosting, per household", "seconds"),
    ("", "RMSE, bedrooms"),
    ("predict 1 row: the bundle", "milliseconds"),
    ("predict 100 rows: the bundle", "milliseconds"),
    ("explain 1 row of 50 trees", "milliseconds"),
    ("explain 20 rows of 50 trees", "milliseconds"),
    ("RandomForest sweep of 4 trials, stopping early", "seconds"),
    ("", "best wmape in 5 folds, %"),
    ("LightGBM sweep of 4 trials, stopping early", "seconds"),
    ("", "best wmape in 5 folds, %"),
    ("LightGBM sweep of 8 trials by 2 processes", "seconds"),
]
SERVING_ROWS = [
    ("batch 1, 16 connections", EMPTY, "0.7"),
    ("", REFERENCE, "40"),
    ("batch 100, 16 connections", EMPTY, "0.5"),
    ("", REFERENCE, ""),
]
READINGS = [
    "half of the most requests/s just before",
    "median latency at that rate, ms",
    "p99 latency at that rate, ms",
    "p99 latency of the empty handler at that rate, ms",
    "resident after the load, MB",
    "resident after 20,000 predictions more, MB",
    "grown in the last four fifths of them, MB",
    "start to ready, s",
    "one row in process, microseconds",
]


def benchmarks(*arguments: str, **variables: str) -> Done:
    kept = {name: value for name, value in os.environ.items() if name != "MLSERVER_PYTHON"}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=REPOSITORY,
        env={**kept, "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def cells(done: Done) -> list[list[str]]:
    """The rows of all tables that were printed."""
    lines = [line[1:-1].split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line] for line in lines]


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


@pytest.fixture(scope="module")
def training() -> Done:
    return benchmarks("--quick", *TRAINING)


@pytest.fixture(scope="module")
def serving() -> Done:
    require("wrk")
    return benchmarks("--quick", "--only", "serving", "--served", "published")


def test_the_table_of_training_has_every_row_with_three_numbers(training: Done) -> None:
    assert training.returncode == 0, training.stderr
    rows = cells(training)
    assert [(what, figure) for what, figure, *_ in rows] == TRAINING_ROWS
    for _, _, ours, peer, ratio, _, _ in rows:
        assert min(number(cell) for cell in (ours, peer, ratio)) > 0


def test_progress_tells_every_measurement(training: Done) -> None:
    titles = [line.split(":")[0].strip() for line in training.stderr.splitlines() if line.startswith("  ")]
    assert titles == ["imputation"] * 3 + ["prediction"] * 2 + ["explanation"] * 2 + ["search"] * 4 + [
        "sharing"
    ]


def test_the_published_forest_is_compared_on_both_splits_and_in_new_places(tmp_path: Path) -> None:
    done = benchmarks("--quick", "--only", "published", "--save", str(tmp_path / "new"))
    assert done.returncode == 0, done.stderr
    rows = cells(done)
    kept = json.loads((tmp_path / "new" / "published.json").read_text())
    assert [row for table in kept["tables"] for row in table["rows"]] == rows
    assert (kept["benchmark"], kept["quick"]) == ("published", True)
    figures = ["rmse", "mae", "mape", "wmape", "r2"]
    assert [row[0] for row in rows] == 3 * figures
    for what, ours, forest, ratio, interval, *_ in rows:
        if what == "r2":
            assert (ratio, interval) == ("", "")
            continue
        assert number(ratio) == pytest.approx(number(ours) / number(forest), abs=0.001)
        low, high = (float(bound) for bound in interval.split(" to "))
        assert low < number(ratio) < high
    # Only the published split can stand beside the published scores.
    assert [len(row) for row in rows] == 5 * [5] + 5 * [7] + 5 * [5]
    assert rows[5][5:] == ["53,277", "45,076"]
    for title in (
        "Stable hash split, 20%: ",
        "Random split, 20%, seed 42: 80 test",
        "Whole blocks of 0.5 degrees: ",
    ):
        assert title in done.stdout


def test_the_service_is_measured_next_to_each_peer(serving: Done) -> None:
    assert serving.returncode == 0, serving.stderr
    rows = [row for row in cells(serving) if len(row) == 7]
    assert [(what, peer, goal) for what, _, _, _, _, goal, peer in rows] == SERVING_ROWS
    for _, figure, ours, peer, ratio, _, _ in rows:
        assert figure == "requests/s"
        assert number(ratio) == pytest.approx(number(ours) / number(peer), rel=0.01)
    assert "on one model (RandomForest, published features)" in serving.stdout
    assert "MLServer is not installed here" in serving.stdout


def test_the_service_alone_has_every_figure(serving: Done) -> None:
    rows = [row for row in cells(serving) if len(row) == 3]
    assert len(rows) == len(READINGS)
    for (name, measured, _), expected in zip(rows, READINGS, strict=True):
        assert name.startswith(expected)
        assert number(measured) > 0 or name.startswith("grown")


def test_a_fleet_is_measured_while_it_is_redeployed_next_to_its_rest() -> None:
    require("wrk")
    done = benchmarks("--quick", "--only", "releasing")
    assert done.returncode == 0, done.stderr
    [[what, figure, changing, resting, ratio, goal, peer]] = cells(done)
    assert (what, figure) == ("4 processes, 16 connections", "p99 while redeploying, ms")
    assert (goal, peer) == ("0.5", "itself at rest")
    assert number(ratio) == pytest.approx(number(resting) / number(changing), rel=0.05)


def test_a_day_of_monitoring_is_measured_in_time_and_memory() -> None:
    done = benchmarks("--quick", "--only", "monitoring")
    assert done.returncode == 0, done.stderr
    rows = cells(done)
    assert [name for name, _, _ in rows] == [
        "prediction_log, s",
        "drift_report, s",
        "prediction_log and drift_report, s",
        "most memory, MB",
    ]
    assert all(number(measured) > 0 for _, measured, _ in rows)
    assert rows[-1][2] == "2,000 for 10 million"


def test_prices_of_a_table_are_measured_in_process_and_by_the_command() -> None:
    done = benchmarks("--quick", "--only", "predict")
    assert done.returncode == 0, done.stderr
    rows = cells(done)
    assert [name for name, _, _ in rows] == [
        "rows/s of one processor, intervals included",
        "the same, no place twice",
        "housing predict, s",
        "most memory of it, MB",
    ]
    assert all(number(measured) > 0 for _, measured, _ in rows)
    assert rows[0][2] == "50,000; 200,000 wished"


def test_tables_are_brought_to_the_split_here_and_on_a_cluster(tmp_path: Path) -> None:
    told: list[str] = []
    found = scaling.measure(scaling.QUICK, told.append)
    small, large = scaling.QUICK.rows
    names = ["raw", "processed", "featured", "split", "checks", "all"]
    expected = [("local", small), ("cluster", small), ("local", large)]
    assert [(step.engine, step.rows, step.name) for step in found] == [
        (engine, rows, name) for engine, rows in expected for name in names
    ]
    assert all(step.seconds > 0 and step.cpu_seconds >= 0 and step.megabytes > 50 for step in found)
    assert len(told) == len(scaling.QUICK.rows) + len(expected)
    assert scaling.scaling_table(found).row_count == 2 * len(names)
    scaling.draw(found, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


def test_growth_of_cpu_time_is_told_by_row() -> None:
    steps = [
        scaling.Step("local", rows, "all", 1.0, cpu, 1.0)
        for rows, cpu in ((10, 2.0), (100, 4.0), (1_000, 60.0))
    ]
    assert scaling.growth(steps) == pytest.approx(1.5)


def test_generated_block_groups_are_as_documented() -> None:
    frame = block_groups(5_000)
    assert validate(frame, RAW_SCHEMA).passed
    assert frame.duplicated().sum() == 5
    pd.testing.assert_frame_equal(frame, block_groups(5_000))
    assert not frame.equals(block_groups(5_000, 1))
    published = parse(packaged_source())
    for name in ("median_income", "median_house_value", "latitude", "total_rooms"):
        assert frame[name].median() == pytest.approx(published[name].median(), rel=0.1)
    assert frame["median_income"].corr(frame["median_house_value"]) > 0.6


def test_a_peer_that_does_not_start_ends_the_run_with_its_last_words() -> None:
    require("wrk")
    # An interpreter without MLServer.
    done = benchmarks("--quick", "--only", "serving", MLSERVER_PYTHON=sys.executable)
    assert done.returncode == 1
    assert "The service was not measured: the server ended with status 1" in done.stderr
    assert "No module named 'mlserver'" in done.stderr
    assert "┃" not in done.stdout


def test_the_steps_of_training_are_timed_and_the_intervals_are_judged() -> None:
    done = benchmarks("--quick", "--only", "model")
    assert done.returncode == 0, done.stderr
    found = {what: (number(value), goal) for what, value, goal in cells(done)}
    assert [goal for _, goal in found.values()] == [
        *("at most 15", "at most 15", "at most 90"),
        *("89 to 91", "at most 92,000", "at least 87"),
    ]
    assert all(value > 0 for value, _ in found.values())
    assert 50 < found["test prices inside their 90% interval, %"][0] <= 100


def test_without_wrk_the_command_says_what_to_install() -> None:
    done = benchmarks("--quick", "--only", "serving", PATH="/nonexistent")
    assert done.returncode == 1
    assert done.stderr.startswith("wrk is not installed: install it (Debian: apt-get install wrk)")


def test_help_says_what_is_measured_and_how_long_it_takes() -> None:
    shown = benchmarks("--help")
    assert shown.returncode == 0
    for part in (
        "--quick",
        "--only",
        "imputation|prediction|explanation|search|serving|releasing|published|model",
        "--largest-table",
        "--source",
        "half an hour",
        "MLSERVER_PYTHON",
    ):
        assert part in shown.stdout


def test_a_ratio_is_taken_within_each_repeat() -> None:
    figure = Figure("sweep", "seconds", "plain", ours=[1.0, 2.0, 4.0], theirs=[3.0, 4.0, 4.0])
    assert figure.ratios == [3.0, 2.0, 1.0]
    assert spread(figure.ratios) == "2.00 (1.00 to 3.00)"
    assert spread([1234.5]) == "1,234"
    assert spread([0.16789]) == "0.168"


def test_the_ratio_of_a_throughput_is_ours_by_the_peers() -> None:
    figure = Figure("load", "requests/s", "peer", ours=[30.0], theirs=[40.0], more_is_better=True)
    assert figure.ratios == [0.75]


@pytest.fixture(scope="module")
def constant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that answers $200,000 whatever it is asked."""
    with running(empty().command, tmp_path_factory.mktemp("constant")) as server:
        yield server


def test_right_answers_are_accepted(constant: Server) -> None:
    priced = dataclasses.replace(empty(), knows_prices=True)
    insist_on_right_answers(priced, constant, [INSTANCE] * 2, np.full(2, 200_000.0))
    insist_on_right_answers(empty(), constant, [INSTANCE] * 2, np.full(2, 1.0))


@pytest.mark.parametrize(
    ("changes", "expected", "problem"),
    [
        ({"knows_prices": True}, [200_000.02], r"a price differs by \$0\.02"),
        ({}, [200_000.0, 200_000.0], "1 prices for 1 rows"),
        ({"path": "/nowhere"}, [200_000.0], "status 404"),
        ({"body": lambda _: b"{}"}, [200_000.0], "status 422"),
        ({"prices": lambda answer: answer["outputs"]}, [200_000.0], "no prices in"),
    ],
)
def test_a_server_that_answers_wrongly_is_not_measured(
    constant: Server, changes: dict[str, object], expected: list[float], problem: str
) -> None:
    side: Side = dataclasses.replace(empty(), **changes)  # type: ignore[arg-type]
    with pytest.raises(MeasurementRefused, match=problem):
        insist_on_right_answers(side, constant, [INSTANCE], np.array(expected))


def test_a_load_with_failed_requests_counts_for_nothing(constant: Server, tmp_path: Path) -> None:
    require("wrk")
    bodies = tmp_path / "bodies"
    bodies.write_text(json.dumps({"instances": [INSTANCE]}) + "\n" + json.dumps({"instances": []}))
    with pytest.raises(MeasurementRefused, match="'status'"):
        wrk.requests_per_second(constant.url("/api/v1/predict"), bodies, connections=2, seconds=1)


def test_a_failed_request_ends_the_measurement_of_latency(constant: Server) -> None:
    with pytest.raises(MeasurementRefused, match=r"HTTP/1\.1 404"):
        latencies(constant.port, "/nowhere", [b"{}"], rate=100, seconds=0.1, seed=0)


def test_memory_is_not_measured_on_short_answers(constant: Server) -> None:
    body = json.dumps({"instances": [INSTANCE]}).encode()
    assert len(resident_while_predicting(constant, [body], 1, 100)) == 50
    with pytest.raises(MeasurementRefused, match="request 0: status 200"):
        resident_while_predicting(constant, [body], 2, 100)


def test_growth_is_what_memory_gains_after_the_first_fifth() -> None:
    assert growth([10, 50, 50, 40, 50, 50, 50, 50, 50, 50]) == 0
    assert growth([10, 50, 50, 40, 50, 57, 50, 50, 50, 55]) == 7


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    command = Command([sys.executable, "-c", "raise SystemExit('out of luck on {port}')"], {})
    with (
        pytest.raises(MeasurementRefused, match=r"ended with status 1:\nout of luck on \d+"),
        running(command, tmp_path),
    ):
        pytest.fail("it is not running")


def test_requests_wait_from_when_they_were_due_not_from_when_they_were_sent() -> None:
    # Everything is answered 0.4 s after the first connection: 100 of 200 requests a second are due before
    # 0.2 s is left, more than there are connections to send them on.
    stall, rate = 0.4, 500
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        threading.Thread(target=_answer_after, args=(listener, stall), daemon=True).start()
        port = listener.getsockname()[1]
        found = latencies(port, "/", [b"{}"], rate=rate, seconds=1.0, seed=3)
    assert len(found) == rate
    assert np.count_nonzero(found > stall / 4) > 100


def _answer_after(listener: socket.socket, stall: float) -> None:
    """Keep silent for a while, then answer each connection as it asks."""
    listener.settimeout(30)
    first, _ = listener.accept()
    time.sleep(stall)
    threading.Thread(target=_answer_all, args=(first,), daemon=True).start()
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer_all, args=(connection,), daemon=True).start()


def _answer_all(connection: socket.socket) -> None:
    with connection:
        while connection.recv(4096):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
