"""From raw rows to the split on tables of growing size: time and memory of each step, here and on a cluster.

Each table is worked on in a process of its own (`python -m benchmarks.scaling SOURCE HOME ENGINE`), which
measures itself. The cluster is one of this machine: a Dask scheduler and a worker for each processor.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import psutil
from matplotlib.figure import Figure
from rich.table import Table

from benchmarks.block_groups import write_files
from benchmarks.footprint import REPOSITORY
from benchmarks.measuring import MeasurementRefused, Progress, readable
from housing_assets.datasets import steps
from housing_assets.datasets.dataset import Dataset
from housing_assets.engines import DASK_SCHEME, LOCAL, engine_at
from housing_assets.ml.schemas import FEATURED_SCHEMA, PROCESSED_SCHEMA, RAW_SCHEMA
from housing_assets.ml.split import TEST_FRACTION
from housing_assets.sources import list_files

Result = TypeVar("Result")

SIZES = (20_000, 200_000, 2_000_000, 20_000_000)
CLUSTER = "cluster"
ENGINES = (LOCAL, CLUSTER)
ALL_STEPS = "all"
SAMPLE_SECONDS = 0.2
# Time may grow by this factor more than the rows, and this much memory may be in use.
GOAL_GROWTH, GOAL_MEGABYTES = 1.1, 6_000


@dataclass(frozen=True)
class TableSizes:
    """Rows of the tables to measure, at least two, and of the largest that goes to the cluster as well."""

    rows: Sequence[int]
    largest_on_cluster: int


QUICK = TableSizes((1_000, 2_000), largest_on_cluster=1_000)


@dataclass(frozen=True)
class Step:
    """One step on one table, or all of them.

    Attributes:
        engine: who worked.
        rows: of the source.
        name: of the step.
        seconds: wall clock.
        cpu_seconds: of all processes together, which does not depend on what else the machine does.
        megabytes: most that was resident at once, all processes together.
    """

    engine: str
    rows: int
    name: str
    seconds: float
    cpu_seconds: float
    megabytes: float


@dataclass(frozen=True)
class Measured:
    """What was measured of one table by one engine, and the content hashes of what came out."""

    steps: list[Step]
    hashes: list[str]


def measure(sizes: TableSizes, tell: Progress) -> list[Step]:
    """Measure tables of these sizes on this machine, and those that are not too large for it on the cluster.

    Raises:
        MeasurementRefused: a step failed, or the engines made different tables.
    """
    found: list[Step] = []
    for rows in sizes.rows:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "source")
            write_files(rows, source)
            tell(f"{rows:,} rows generated")
            engines = ENGINES if rows <= sizes.largest_on_cluster else (LOCAL,)
            measured = [_in_own_process(source, Path(folder, engine), engine, rows) for engine in engines]
        if measured[0].hashes != measured[-1].hashes:
            raise MeasurementRefused(f"the engines made different tables of {rows:,} rows")
        for one in measured:
            found += one.steps
            tell(f"{rows:,} rows, {one.steps[-1].engine}: {readable(one.steps[-1].seconds)} s")
    return found


def _in_own_process(source: Path, home: Path, engine: str, rows: int) -> Measured:
    command = [sys.executable, "-m", "benchmarks.scaling", str(source), str(home), engine]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    shutil.rmtree(home, ignore_errors=True)
    if done.returncode != 0:
        raise MeasurementRefused(f"{rows:,} rows, {engine}: {done.stderr[-2000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    return Measured([Step(**step) for step in said["steps"]], said["hashes"])


class Meter:
    """Time and memory of this process and all below it, step by step."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self.rows = 0
        self.steps: list[Step] = []
        self._peak = 0.0

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Look at the memory now and then."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(SAMPLE_SECONDS):
                self._peak = max(self._peak, _resident_megabytes())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def step(self, name: str, work: Callable[[], Result]) -> Result:
        """Do a step, and note what it took."""
        self._peak = _resident_megabytes()
        started, cpu = time.perf_counter(), _cpu_seconds()
        result = work()
        seconds, used = time.perf_counter() - started, _cpu_seconds() - cpu
        self.steps.append(Step(self._engine, self.rows, name, seconds, used, self._peak))
        return result


def _resident_megabytes() -> float:
    return sum(_asked(lambda process: process.memory_info().rss)) / 1e6


def _cpu_seconds() -> float:
    # Of a process and of its children that have ended.
    return sum(_asked(lambda process: sum(process.cpu_times()[:4])))


def _asked(question: Callable[[psutil.Process], float]) -> Iterator[float]:
    """The answers of this process and all below it; some may end after they were listed."""
    this = psutil.Process()
    for process in [this, *this.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            yield question(process)


def work_through(source: Path, home: Path, engine_name: str, address: str) -> Measured:
    """From the source files to the split, with the checks of every table."""
    engine, root, meter = engine_at(address), str(home), Meter(engine_name)
    names = {
        name: f"data/{name}/{name}.parquet" for name in ("raw", "processed", "featured", "train", "test")
    }
    with meter.sampling():
        # Whatever workers import is no part of the first step.
        engine.map(partial(_ready, root), list(range(4 * (os.cpu_count() or 1))))
        files = list_files(f"{source}/")
        raw, _ = meter.step("raw", lambda: steps.read_files(files, root, names["raw"], engine))
        clean, *_ = meter.step("processed", lambda: steps.process(raw, names["processed"], engine))
        featured = meter.step("featured", lambda: steps.add_row_features(clean, names["featured"], engine))
        sets = names["train"], names["test"]
        train, test, _ = meter.step("split", lambda: steps.split_sets(featured, sets, TEST_FRACTION, engine))
        tables = [raw, clean, featured, train, test]
        schemas = [RAW_SCHEMA, PROCESSED_SCHEMA, *3 * [FEATURED_SCHEMA]]

        def check() -> bool:
            pairs = zip(tables, schemas, strict=True)
            return all(steps.validate_parts(table, schema, engine).passed for table, schema in pairs)

        if not meter.step("checks", check):
            raise MeasurementRefused("a check of the generated rows failed")
    return Measured(_with_rows(meter.steps, raw), [table.content_hash for table in tables])


def _ready(root: str, number: int) -> int:
    return len(root) + number


def _with_rows(found: Sequence[Step], raw: Dataset) -> list[Step]:
    engine, rows = found[0].engine, len(raw)
    whole = Step(
        engine,
        rows,
        ALL_STEPS,
        sum(step.seconds for step in found),
        sum(step.cpu_seconds for step in found),
        max(step.megabytes for step in found),
    )
    return [Step(**{**asdict(step), "rows": rows}) for step in [*found, whole]]


def main(source: Path, home: Path, engine: str) -> None:
    """Work through one table, and say what it took as a line of JSON."""
    if engine == LOCAL:
        measured = work_through(source, home, engine, LOCAL)
    else:
        from distributed import LocalCluster  # noqa: PLC0415  (an optional dependency)

        with LocalCluster(
            n_workers=os.cpu_count(), threads_per_worker=1, dashboard_address=None, memory_limit=0
        ) as cluster:
            address = DASK_SCHEME + cluster.scheduler_address.removeprefix("tcp://")
            measured = work_through(source, home, engine, address)
    said = {"steps": [asdict(step) for step in measured.steps], "hashes": measured.hashes}
    sys.stdout.write(json.dumps(said) + "\n")


def growth(found: Sequence[Step]) -> float:
    """How much more the CPU time of all steps grows than the rows, from the last size but one to the last."""
    whole = [step for step in found if step.name == ALL_STEPS and step.engine == LOCAL]
    before, last = whole[-2:]
    return (last.cpu_seconds / last.rows) / (before.cpu_seconds / before.rows)


def scaling_table(found: Sequence[Step]) -> Table:
    """Every step of every size, the engines side by side."""
    table = Table(title="From raw rows to the split", title_justify="left", caption_justify="left")
    table.caption = (
        f"{os.cpu_count()} processors; CPU and memory of all processes together. CPU time a row grows by "
        f"{growth(found):.2f} to the largest table (goal: at most {GOAL_GROWTH})."
    )
    for name in ("rows", "step"):
        table.add_column(name, justify="right" if name == "rows" else "left")
    for engine in ENGINES:
        for figure in ("s", "CPU s", "MB"):
            table.add_column(f"{engine}: {figure}", justify="right")
    sides = {(step.engine, step.rows, step.name): step for step in found}
    previous = 0
    for rows, name in dict.fromkeys((step.rows, step.name) for step in found):
        if rows != previous and previous:
            table.add_section()
        cells = [
            readable(value)
            for engine in ENGINES
            if (step := sides.get((engine, rows, name))) is not None
            for value in (step.seconds, step.cpu_seconds, step.megabytes)
        ]
        table.add_row(f"{rows:,}" if rows != previous else "", name, *cells)
        previous = rows
    return table


def draw(found: Sequence[Step], path: Path) -> None:
    """Time and memory over rows as a picture, next to what they shall not exceed."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    for engine, marker in zip(ENGINES, "os", strict=True):
        whole = [step for step in found if step.name == ALL_STEPS and step.engine == engine]
        rows = [step.rows for step in whole]
        label = f"{engine}, {os.cpu_count()} processes"
        time_axes.plot(rows, [step.cpu_seconds for step in whole], marker=marker, label=label)
        memory_axes.plot(rows, [step.megabytes / 1e3 for step in whole], marker=marker, label=label)
    local = [step for step in found if step.name == ALL_STEPS and step.engine == LOCAL]
    reference, last = local[-2:]
    allowed = [reference.cpu_seconds, GOAL_GROWTH * reference.cpu_seconds * last.rows / reference.rows]
    time_axes.plot([reference.rows, last.rows], allowed, "--", color="grey", label=f"{GOAL_GROWTH} x linear")
    memory_axes.axhline(GOAL_MEGABYTES / 1e3, linestyle="--", color="grey", label="limit")
    time_axes.set(title="CPU time from raw rows to the split", ylabel="seconds, all processes", yscale="log")
    memory_axes.set(
        title="Most memory in use", ylabel="GB, all processes", ylim=(0, 1.1 * GOAL_MEGABYTES / 1e3)
    )
    for axes in (time_axes, memory_axes):
        axes.set(xlabel="rows of the source", xscale="log")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
