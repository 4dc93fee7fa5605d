"""The service over HTTP: requests per second next to its peers, latency, start, memory and size.

Every server is a real process with one worker, on the same fitted model and this project's features. The
sides take turns within each repeat, so that a noisy moment hits all alike, and none is measured before its
answers have been compared with the pipeline's.
"""

import itertools
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import wrk
from benchmarks.footprint import environment_bytes, growth, resident_while_predicting
from benchmarks.measuring import Figure, Progress, Reading, timed
from benchmarks.models import ServedModel, exported, fitted
from benchmarks.open_loop import latencies
from benchmarks.processes import Server, running
from benchmarks.sides import (
    EMPTY,
    OURS,
    REFERENCE,
    Record,
    Side,
    chunks,
    insist_on_right_answers,
    records,
    sides,
    write_bodies,
)
from housing_assets.ml.columns import columns_of
from housing_assets.ml.training import predict
from housing_serving.bundle import Bundle
from housing_serving.features import FloatArray

# Ratios by peer, batch and connections, and microseconds for one row: more features cost more.
GOALS = {
    ServedModel.PUBLISHED: {(EMPTY, 1, 16): "0.7", (REFERENCE, 1, 16): "40", (EMPTY, 100, 16): "0.5"},
    ServedModel.CHOSEN: {(EMPTY, 1, 16): "0.6", (EMPTY, 100, 16): "0.5"},
}
ONE_ROW_GOALS = {ServedModel.PUBLISHED: "at most 100", ServedModel.CHOSEN: "at most 150"}
# The load whose half is the rate that latencies are measured at.
LATENCY_BATCH, LATENCY_CONNECTIONS = 1, 16
IN_PROCESS_CALLS = 2_000
MEMORY_BATCH = 1_000
MEGABYTE = 1e6

# A batch size and a number of connections.
Load = tuple[int, int]


@dataclass(frozen=True)
class ServingScale:
    """How much is measured: rows to fit on (None: all), loads, and the length of each part."""

    fit_rows: int | None
    batches: Sequence[int]
    connections: Sequence[int]
    load_seconds: int
    latency_seconds: float
    predictions: int
    environment: bool
    served: ServedModel = ServedModel.CHOSEN

    @property
    def loads(self) -> list[Load]:
        """Every batch size with every number of connections."""
        return list(itertools.product(self.batches, self.connections))


FULL = ServingScale(None, (1, 100, 1_000), (1, 16, 256), 2, 5.0, 1_000_000, environment=True)
QUICK = ServingScale(200, (1, 100), (16,), 1, 1.0, 20_000, environment=False)


@dataclass(frozen=True)
class Found:
    """Everything that was measured: throughput next to the peers, and figures of ours alone."""

    throughput: list[Figure]
    readings: list[Reading]


@dataclass(frozen=True)
class Started:
    """A side that runs, with the file of its request bodies for every batch size."""

    side: Side
    server: Server
    bodies: Mapping[int, Path]

    def requests_per_second(self, batch: int, connections: int, seconds: int) -> float:
        """Throughput under one load; returns once the server has nothing left to do."""
        self.server.insist_on_running()
        url = self.server.url(self.side.path)
        found = wrk.requests_per_second(url, self.bodies[batch], connections, seconds)
        self.server.wait_until_idle()
        return found


def measure(rows: pd.DataFrame, repeats: int, progress: Progress, scale: ServingScale) -> Found:
    """All figures of the service.

    Args:
        rows: To fit on, and to ask for.
        repeats: Measurements of each figure; those of memory and disk are taken once.
        progress: Told about each.
        scale: How much.

    Raises:
        MeasurementRefused: a side does not do what it is measured for.
    """
    fit_rows = rows.head(scale.fit_rows or len(rows))
    family, hyperparameters = scale.served.setting
    one_row_goal = ONE_ROW_GOALS[scale.served]
    pipeline = fitted(fit_rows, family, hyperparameters, scale.served.features)
    files = exported(pipeline, fit_rows, family=family)
    with tempfile.TemporaryDirectory(prefix="housing-benchmark-") as name, ExitStack() as stack:
        folder = Path(name)
        chosen = sides(pipeline, files, folder)
        asked = records(rows)
        start_seconds = _start_seconds(chosen[0], folder / "starts", repeats - 1)
        started = [_start(side, asked, scale.batches, folder, stack) for side in chosen]
        ours = started[0]
        for one, batch in itertools.product(started, scale.batches):
            expected = predict(pipeline, rows.head(batch))
            insist_on_right_answers(one.side, one.server, asked[:batch], expected)
        rates = _rates(started, scale, repeats, progress)
        readings = [
            *_latency(started, scale, repeats, progress),
            *_memory(ours, asked, scale.predictions, progress),
            Reading("start to ready, s", [*start_seconds, ours.server.start_seconds], "below 2"),
            Reading("one row in process, microseconds", _in_process(files, rows, repeats), one_row_goal),
        ]
    if scale.environment:
        progress("a new environment with the service alone ...")
        readings.append(Reading("environment on disk, MB", [environment_bytes() / MEGABYTE], "below 300"))
    return Found(
        _throughput(rates, scale.loads, [side.name for side in chosen], GOALS[scale.served]), readings
    )


def _start(
    side: Side, asked: Sequence[Record], batches: Sequence[int], folder: Path, stack: ExitStack
) -> Started:
    home = folder / side.module
    home.mkdir()
    server = stack.enter_context(running(side.command, home))
    return Started(side, server, {batch: write_bodies(asked, batch, home, side.body) for batch in batches})


def _start_seconds(side: Side, folder: Path, starts: int) -> list[float]:
    folder.mkdir()
    found = []
    for _ in range(starts):
        with running(side.command, folder) as server:
            found.append(server.start_seconds)
    return found


def _rates(
    started: Sequence[Started], scale: ServingScale, repeats: int, progress: Progress
) -> dict[tuple[str, Load], list[float]]:
    """Requests per second of every side under every load, repeat by repeat."""
    rates: dict[tuple[str, Load], list[float]] = defaultdict(list)
    for repeat in range(repeats):
        for batch, connections in scale.loads:
            # Another one begins in each repeat, so that none always follows the same neighbour.
            first = repeat % len(started)
            for one in [*started[first:], *started[:first]]:
                rate = one.requests_per_second(batch, connections, scale.load_seconds)
                rates[one.side.name, (batch, connections)].append(rate)
                progress(f"batch {batch}, {connections} connections: {one.side.name} {rate:,.1f} requests/s")
    return rates


def _throughput(
    rates: Mapping[tuple[str, Load], list[float]],
    loads: Sequence[Load],
    names: Sequence[str],
    goals: Mapping[tuple[str, int, int], str],
) -> list[Figure]:
    ours, *peers = names
    return [
        Figure(
            f"batch {batch:,}, {connections} connection{'s' if connections > 1 else ''}",
            "requests/s",
            peer,
            rates[ours, (batch, connections)],
            rates[peer, (batch, connections)],
            more_is_better=True,
            goal=goals.get((peer, batch, connections), ""),
        )
        for batch, connections in loads
        for peer in peers
    ]


def _latency(
    started: Sequence[Started], scale: ServingScale, repeats: int, progress: Progress
) -> list[Reading]:
    """That of ours at half of its most, and of the empty handler at the same rate: none here could be lower.

    The most is found anew just before, for the speed of a machine changes within minutes.
    """
    ours, empty = (next(one for one in started if one.side.name == name) for name in (OURS, EMPTY))
    rates: list[float] = []
    found: dict[str, list[FloatArray]] = defaultdict(list)
    for seed in range(repeats):
        rate = ours.requests_per_second(LATENCY_BATCH, LATENCY_CONNECTIONS, scale.load_seconds) / 2
        rates.append(rate)
        for one in (ours, empty):
            bodies = one.bodies[LATENCY_BATCH].read_bytes().splitlines()
            times = latencies(
                one.server.port,
                one.side.path,
                bodies,
                rate=rate,
                seconds=scale.latency_seconds,
                seed=seed,
            )
            found[one.side.name].append(np.percentile(1_000 * times, [50, 99]))
            middle, tail = found[one.side.name][-1]
            progress(f"{rate:,.0f} requests/s: {one.side.name} median {middle:.2f} ms, p99 {tail:.2f} ms")
    medians, tails = np.transpose(found[OURS]).tolist()
    _, least = np.transpose(found[EMPTY]).tolist()
    return [
        Reading("half of the most requests/s just before", rates),
        Reading("median latency at that rate, ms", medians),
        Reading("p99 latency at that rate, ms", tails, "below 5"),
        Reading("p99 latency of the empty handler at that rate, ms", least),
    ]


def _in_process(files: Mapping[str, bytes], rows: pd.DataFrame, repeats: int) -> list[float]:
    bundle = Bundle.from_files(files, origin="the benchmark's bundle")
    # As the service does in the second after it is ready.
    bundle.remember_training_places()
    columns = columns_of(rows)
    single = [
        {name: values[number : number + 1] for name, values in columns.items()}
        for number in range(min(IN_PROCESS_CALLS, len(rows)))
    ]

    def ask_all() -> None:
        for row in single:
            bundle.predict(row)

    return [1e6 * timed(ask_all)[0] / len(single) for _ in range(repeats)]


def _memory(ours: Started, asked: Sequence[Record], predictions: int, progress: Progress) -> list[Reading]:
    loaded = ours.server.resident_bytes()
    bodies = [ours.side.body(chunk) for chunk in chunks(asked, MEMORY_BATCH)]
    samples = resident_while_predicting(ours.server, bodies, MEMORY_BATCH, predictions)
    progress(f"{predictions:,} predictions: {samples[-1] / MEGABYTE:.0f} MB")
    more = f"{predictions:,} predictions more"
    return [
        Reading("resident after the load, MB", [loaded / MEGABYTE], "below 200"),
        Reading(f"resident after {more}, MB", [samples[-1] / MEGABYTE], "below 200"),
        Reading("grown in the last four fifths of them, MB", [growth(samples) / MEGABYTE], "flat"),
    ]
