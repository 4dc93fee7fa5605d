"""`python -m benchmarks`: run the benchmarks, and print their tables."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import (
    batch,
    explanation,
    imputation,
    model,
    monitoring,
    prediction,
    published,
    releasing,
    results,
    scaling,
    search,
    serving,
    sharing,
    wrk,
)
from benchmarks.measuring import Figure, MeasurementRefused, Progress
from benchmarks.models import ServedModel
from benchmarks.rows import training_rows
from benchmarks.sides import MLSERVER_PYTHON
from benchmarks.tables import comparison_table, figures_table, readings_table
from housing_assets.ml.published import SEED
from housing_assets.ml.sweep_results import SETTINGS_TO_COMPARE
from housing_assets.sources import PACKAGED_LOCATION

QUICK_ROWS = 200
QUICK_REPEATS = 1
# In a file or a pipe, where rich would take 80 columns and crop words.
FILE_WIDTH = 120

Measure = Callable[[int, Progress], list[Figure]]


class Benchmark(StrEnum):
    """What can be measured."""

    IMPUTATION = "imputation"
    PREDICTION = "prediction"
    EXPLANATION = "explanation"
    SEARCH = "search"
    SERVING = "serving"
    RELEASING = "releasing"
    PUBLISHED = "published"
    MODEL = "model"
    SHARING = "sharing"
    MONITORING = "monitoring"
    PREDICT = "predict"
    SCALE = "scale"


TRAINING = {
    Benchmark.IMPUTATION,
    Benchmark.PREDICTION,
    Benchmark.EXPLANATION,
    Benchmark.SEARCH,
    Benchmark.SHARING,
}
WITH_LOAD = {Benchmark.SERVING, Benchmark.RELEASING}


@dataclass(frozen=True)
class Scale:
    """How much is measured: rows by benchmark (None: all training rows), trees, and trials of the sweep."""

    imputation_rows: int | None
    prediction_rows: int | None
    explanation_rows: int | None
    search_rows: int | None
    published: published.PublishedScale
    model: model.ModelScale
    serving: serving.ServingScale
    releasing: releasing.ReleasingScale
    monitoring: monitoring.MonitoringScale
    batch: batch.BatchScale
    trees: int = 1_500
    trials: int = 8


# Fewer rows where a fit is slow: the whole run shall end within minutes.
FULL = Scale(
    *(12_000, None, None, None),
    published.FULL,
    model.FULL,
    serving.FULL,
    releasing.FULL,
    monitoring.FULL,
    batch.FULL,
)
QUICK = Scale(
    *4 * (QUICK_ROWS,),
    published.QUICK,
    model.QUICK,
    serving.QUICK,
    releasing.QUICK,
    monitoring.QUICK,
    batch.QUICK,
    trees=50,
    trials=4,
)


def training_benchmarks(scale: Scale) -> dict[Benchmark, Measure]:
    """Every benchmark of a stage of training."""
    rows = training_rows()
    searched = rows.head(scale.search_rows or len(rows))
    return {
        Benchmark.IMPUTATION: partial(imputation.measure, rows.head(scale.imputation_rows or len(rows))),
        Benchmark.PREDICTION: partial(prediction.measure, rows.head(scale.prediction_rows or len(rows))),
        Benchmark.EXPLANATION: partial(
            explanation.measure, rows.head(scale.explanation_rows or len(rows)), trees=scale.trees
        ),
        Benchmark.SEARCH: partial(search.measure, searched, trials=scale.trials),
        Benchmark.SHARING: partial(
            sharing.measure, rows.head(scale.search_rows or len(rows)), trials=2 * scale.trials
        ),
    }


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each figure.")] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="Once, on a few hundred rows: checks that everything runs.")
    ] = False,
    predictions: Annotated[
        int, typer.Option(min=1, help="Predictions of the day that is monitored.")
    ] = monitoring.FULL.predictions,
    only: Annotated[list[Benchmark] | None, typer.Option(help="Measure this; may be given again.")] = None,
    served: Annotated[
        ServedModel,
        typer.Option(
            help="Model that all sides hold: one like those that are chosen, or the published forest on the "
            "published features, for which other goals were set."
        ),
    ] = ServedModel.CHOSEN,
    largest_table: Annotated[
        int,
        typer.Option(min=scaling.SIZES[0], help="Rows of the largest table that is brought to the split."),
    ] = scaling.SIZES[1],
    largest_on_cluster: Annotated[
        int, typer.Option(min=0, help="Rows of the largest table that a cluster works on as well.")
    ] = scaling.SIZES[2],
    image: Annotated[
        Path | None, typer.Option(help="Draw how tables scale to this file, such as docs/images/scale.png.")
    ] = None,
    trials: Annotated[
        int, typer.Option(min=SETTINGS_TO_COMPARE, help="Trials of each family's search, and of its peer.")
    ] = FULL.trials,
    source: Annotated[
        str,
        typer.Option(
            help="Table that the published forest is compared on, and models are made of: a path or a URL."
        ),
    ] = PACKAGED_LOCATION,
    save: Annotated[
        Path | None, typer.Option(help="Keep the tables as JSON in this folder, one file a benchmark.")
    ] = None,
) -> None:
    """Measure the stages of training and the service next to named peers; print medians, spreads and ratios.

    Takes about half an hour on two quiet cores. A ratio above 1 means that ours is better.

    The load on the service needs wrk. MLServer is one of its peers where MLSERVER_PYTHON names an interpreter
    that has mlserver, mlserver-sklearn and the locked versions of pandas, pyarrow, pandera, scikit-learn,
    lightgbm and onnxruntime.
    """
    chosen = set(only or Benchmark)
    if chosen & WITH_LOAD and not wrk.installed():
        sys.exit("wrk is not installed: install it (Debian: apt-get install wrk), or use --only for the rest")
    scale, repeats = (QUICK, QUICK_REPEATS) if quick else (FULL, repeats)
    scale = replace(scale, serving=replace(scale.serving, served=served))
    if not quick:
        scale = replace(scale, trials=trials)
        scale = replace(scale, monitoring=monitoring.MonitoringScale(predictions, None))
    progress = Console(stderr=True, highlight=False)
    tell = partial(_report, save, quick)
    if chosen & TRAINING:
        tell("training", _training(chosen, scale, repeats, progress))
    if Benchmark.PUBLISHED in chosen:
        tell(Benchmark.PUBLISHED, _published(scale, source, progress))
    if Benchmark.MODEL in chosen:
        tell(Benchmark.MODEL, _model(scale, source, progress))
    if Benchmark.SERVING in chosen:
        tell(Benchmark.SERVING, _serving(scale, repeats, progress))
    if Benchmark.RELEASING in chosen:
        tell(Benchmark.RELEASING, _releasing(scale, repeats, progress))
    if Benchmark.MONITORING in chosen:
        tell(Benchmark.MONITORING, _monitoring(scale, repeats, progress))
    if Benchmark.PREDICT in chosen:
        tell(Benchmark.PREDICT, _predict(scale, repeats, progress))
    if Benchmark.SCALE in chosen:
        sizes = [size for size in scaling.SIZES if size < largest_table] + [largest_table]
        tables = scaling.QUICK if quick else scaling.TableSizes(sizes, largest_on_cluster)
        tell(Benchmark.SCALE, _scale(tables, image, progress))


def _report(folder: Path | None, quick: bool, benchmark: str, tables: list[Table]) -> None:
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH
    for table in tables:
        console.print(table)
    if folder is not None:
        results.save(folder, benchmark, tables, quick=quick)


def _training(chosen: set[Benchmark], scale: Scale, repeats: int, progress: Console) -> list[Table]:
    started = time.perf_counter()
    found: list[Figure] = []
    for title, measure in training_benchmarks(scale).items():
        if title in chosen:
            with progress.status(f"measuring {title}"):
                try:
                    found += measure(repeats, partial(_tell, progress, title))
                except MeasurementRefused as error:
                    sys.exit(f"{title} was not measured: {error}")
    return [figures_table("Training and a peer", found, repeats, time.perf_counter() - started)]


def _published(scale: Scale, source: str, progress: Console) -> list[Table]:
    tell = partial(_tell, progress, Benchmark.PUBLISHED)
    with progress.status("comparing with the published forest"):
        found = published.measure(source, scale.published, tell)
    return [
        comparison_table(
            one.title,
            one.comparison,
            f"Ours: {one.choice.family} {dict(one.choice.hyperparameters)}",
            published=f"seed {SEED}" in one.title,
        )
        for one in found
    ]


def _model(scale: Scale, source: str, progress: Console) -> list[Table]:
    with progress.status("making a model"):
        found = model.measure(source, scale.model, partial(_tell, progress, Benchmark.MODEL))
    return [readings_table("A model and its intervals", found)]


def _serving(scale: Scale, repeats: int, progress: Console) -> list[Table]:
    started = time.perf_counter()
    tell = partial(_tell, progress, Benchmark.SERVING)
    try:
        with progress.status("measuring the service"):
            found = serving.measure(training_rows(), repeats, tell, scale.serving)
    except MeasurementRefused as error:
        sys.exit(f"The service was not measured: {error}")
    note = (
        f"One worker each, on one model ({scale.serving.served.setting[0]}, "
        f"{scale.serving.served} features); "
        "the empty handler validates alike and has no model."
    )
    if not os.environ.get(MLSERVER_PYTHON):
        note += "\nMLServer is not installed here: see --help."
    seconds = time.perf_counter() - started
    return [
        figures_table("The service and its peers", found.throughput, repeats, seconds, note),
        readings_table("The service alone", found.readings),
    ]


def _releasing(scale: Scale, repeats: int, progress: Console) -> list[Table]:
    started = time.perf_counter()
    tell = partial(_tell, progress, Benchmark.RELEASING)
    try:
        with progress.status("measuring a fleet that is redeployed"):
            found = releasing.measure(training_rows(), repeats, tell, scale.releasing)
    except MeasurementRefused as error:
        sys.exit(f"The fleet was not measured: {error}")
    return [figures_table("A fleet while it is redeployed", found, repeats, time.perf_counter() - started)]


def _monitoring(scale: Scale, repeats: int, progress: Console) -> list[Table]:
    tell = partial(_tell, progress, Benchmark.MONITORING)
    with progress.status("measuring a day of monitoring"):
        found = monitoring.measure(training_rows(), repeats, tell, scale.monitoring)
    title = f"A day of {scale.monitoring.predictions:,} predictions"
    return [readings_table(title, found)]


def _predict(scale: Scale, repeats: int, progress: Console) -> list[Table]:
    tell = partial(_tell, progress, Benchmark.PREDICT)
    try:
        with progress.status("measuring prices of a table"):
            found = batch.measure(training_rows(), repeats, tell, scale.batch)
    except MeasurementRefused as error:
        sys.exit(f"Prices of a table were not measured: {error}")
    return [readings_table(f"A table of {scale.batch.file_rows:,} rows", found)]


def _scale(sizes: scaling.TableSizes, image: Path | None, progress: Console) -> list[Table]:
    tell = partial(_tell, progress, Benchmark.SCALE)
    try:
        with progress.status("measuring tables of growing size"):
            found = scaling.measure(sizes, tell)
    except MeasurementRefused as error:
        sys.exit(f"Scale was not measured: {error}")
    if image is not None:
        scaling.draw(found, image)
    return [scaling.scaling_table(found)]


def _tell(progress: Console, title: str, what: str) -> None:
    progress.print(f"  {title}: {what}")


if __name__ == "__main__":
    typer.run(main)
