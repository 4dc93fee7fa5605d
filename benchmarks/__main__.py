"""`python -m benchmarks`: run every benchmark, and print one table."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import imputation, prediction, search
from benchmarks.measuring import Figure, Progress, spread
from benchmarks.rows import training_rows

QUICK_ROWS = 200
QUICK_REPEATS = 1

Measure = Callable[[int, Progress], list[Figure]]


@dataclass(frozen=True)
class Scale:
    """How much is measured: rows by benchmark (None: all training rows), and trials of the sweep."""

    imputation_rows: int | None
    prediction_rows: int | None
    search_rows: int | None
    trials: int = 8


# Fewer rows where a fit is slow: the whole run shall end within minutes.
FULL = Scale(imputation_rows=12_000, prediction_rows=None, search_rows=8_000)
QUICK = Scale(QUICK_ROWS, QUICK_ROWS, QUICK_ROWS, trials=4)


def benchmarks(scale: Scale) -> dict[str, Measure]:
    """Every benchmark by its title."""
    rows = training_rows()
    return {
        "imputation": lambda repeats, progress: imputation.measure(
            rows.head(scale.imputation_rows or len(rows)), repeats, progress
        ),
        "prediction": lambda repeats, progress: prediction.measure(
            rows.head(scale.prediction_rows or len(rows)), repeats, progress
        ),
        "search": lambda repeats, progress: search.measure(
            rows.head(scale.search_rows or len(rows)), repeats, progress, trials=scale.trials
        ),
    }


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each figure.")] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="Once, on a few hundred rows: checks that everything runs.")
    ] = False,
) -> None:
    """Measure the stages of training next to a named peer each, and print medians, spreads and ratios.

    Takes a few minutes on two quiet cores. Ratios are the peer's value by ours: above 1, ours is smaller.
    """
    progress = Console(stderr=True, highlight=False)
    scale, repeats = (QUICK, QUICK_REPEATS) if quick else (FULL, repeats)
    started = time.perf_counter()
    found: list[Figure] = []
    for title, measure in benchmarks(scale).items():
        with progress.status(f"measuring {title}"):
            found += measure(repeats, lambda what, title=title: progress.print(f"  {title}: {what}"))  # type: ignore[misc]
    Console().print(table_of(found, repeats, time.perf_counter() - started))


def table_of(found: list[Figure], repeats: int, seconds: float) -> Table:
    """The figures, with the ratio as the column that counts."""
    measured = f"{repeats} repeats" if repeats > 1 else "1 repeat"
    table = Table(title="Ours and a peer, side by side", title_justify="left", caption_justify="left")
    table.caption = (
        f"Median (smallest to largest) of {measured}, in {seconds:.0f} s. "
        "Ratio: the peer's by ours, above 1 ours is smaller."
    )
    for name in ("what", "figure"):
        table.add_column(name)
    for name in ("ours", "peer", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("the peer is")
    previous = ""
    for figure in found:
        if figure.subject != previous and previous:
            table.add_section()
        shown = "" if figure.subject == previous else figure.subject
        sides = (spread(figure.ours), spread(figure.theirs), spread(figure.ratios))
        table.add_row(shown, figure.name, *sides, "" if not shown else figure.peer)
        previous = figure.subject
    return table


if __name__ == "__main__":
    typer.run(main)
