"""`housing predict`: a file or standard input to a file or standard output, one price per row."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from types import FrameType
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from housing_assets.command_help import epilog
from housing_assets.completion import complete_version

if TYPE_CHECKING:
    from housing_assets.batch.pricing import PricedPiece
    from housing_assets.batch.reading import Format
    from housing_assets.batch.run import Outcome
    from housing_serving.default_model import LoadedModel

STANDARD = "-"
# Some rows have no price: the result is complete, and says why for each of them.
SOME_REJECTED = 3
console = Console(stderr=True, highlight=False)

EPILOG = epilog(
    ("housing predict blocks.csv --output priced.parquet", "prices in another format"),
    ("zcat blocks.csv.gz | housing predict > priced.csv", "in a pipe"),
    (
        "housing predict blocks.jsonl --version 3 --strict --output priced.jsonl",
        "by a version that need not serve, and only if every row can be priced",
    ),
    done="every row has a price",
    failed="1: nothing was written",
    more=f"{SOME_REJECTED}: some rows have no price, and say why in `error`",
)

InputArgument = Annotated[
    str,
    typer.Argument(metavar="INPUT", help="File with the nine features of each row, or - for standard input."),
]
OutputOption = Annotated[
    str,
    typer.Option("--output", "-o", help="File to write, or - for standard output; replaced when complete."),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="csv|parquet|jsonl",
        help="Format of the input.  [default: what its name ends with; csv for standard input]",
    ),
]
OutputFormatOption = Annotated[
    str | None,
    typer.Option(
        "--output-format",
        metavar="csv|parquet|jsonl",
        help="Format of the output.  [default: what its name ends with; the input's for standard output]",
    ),
]
VersionOption = Annotated[
    int | None,
    typer.Option(
        "--version",
        min=1,
        help="Model version to ask.  [default: the one that serves]",
        autocompletion=complete_version,
    ),
]
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", help="Folder of a model bundle to ask, wherever it is from.")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Write nothing, and exit 1, when a row cannot be priced.")
]


class _Rejected(Exception):
    """Rows cannot be priced, and the caller wants none of the others then."""


def predict(
    source: InputArgument = STANDARD,
    output: OutputOption = STANDARD,
    input_format: FormatOption = None,
    output_format: OutputFormatOption = None,
    version: VersionOption = None,
    bundle: BundleOption = None,
    strict: StrictOption = False,
) -> None:
    """Price the rows of a CSV, Parquet or JSON-lines file, with intervals.

    The output has the input's columns and `predicted_price`, `lower`, `upper`, `warnings` (values that
    training saw nothing like), `model_version`, and `error`: why a row has no price. Rows keep their order,
    and none is left out.
    """
    from housing_assets.batch.errors import BatchError  # noqa: PLC0415  (pyarrow, like those below)
    from housing_assets.cli import fail  # noqa: PLC0415  (it imports this module)

    if version is not None and bundle is not None:
        fail("--version and --bundle name two models: give one of them", code=2)
    if source == STANDARD and sys.stdin.isatty():
        fail("no input: name a file, or send rows to standard input (housing predict --help)", code=2)
    kinds = _formats(source, output, input_format, output_format)
    model = _model(version, bundle)
    started = time.monotonic()
    try:
        with _tidy_end(), _opened(source, kinds[0]) as file, _written(output, strict) as target:
            outcome = _priced(file, source, kinds, model, target)
            if strict and outcome.rejected:
                raise _Rejected
    except BatchError as error:
        fail(escape(str(error)))
    except _Rejected:
        _tell_problems(outcome)
        fail(
            f"{outcome.rejected:,} of {outcome.rows:,} rows cannot be priced: nothing was written (--strict)"
        )
    _tell(outcome, model, time.monotonic() - started)
    if outcome.rejected:
        raise typer.Exit(SOME_REJECTED)


@contextmanager
def _tidy_end() -> Iterator[None]:
    """What is half-written goes when SIGTERM or Ctrl-C comes, and the exit code is that of a shell.

    Python itself would end by the signal after a KeyboardInterrupt that had passed an `exec`, as in the
    import of a dataclass.
    """
    # What runs in the background may have to ignore Ctrl-C.
    heard = [one for one in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(one) != signal.SIG_IGN]
    before = {one: signal.signal(one, _exit) for one in heard}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _formats(
    source: str, output: str, input_format: str | None, output_format: str | None
) -> "tuple[Format, Format]":
    from housing_assets.batch.errors import BatchError  # noqa: PLC0415
    from housing_assets.batch.reading import Format, format_of  # noqa: PLC0415
    from housing_assets.cli import fail  # noqa: PLC0415

    def chosen(name: str, given: str | None, otherwise: Format, option: str) -> Format:
        if given is not None and given not in set(Format):
            fail(f"{option} {given}: choose one of {', '.join(Format)}", code=2)
        if given is not None:
            return Format(given)
        try:
            return otherwise if name == STANDARD else format_of(name)
        except BatchError as error:
            fail(f"{escape(str(error))}; or say it by {option}", code=2)
            raise

    read = chosen(source, input_format, Format.CSV, "--format")
    return read, chosen(output, output_format, read, "--output-format")


def _model(version: int | None, folder: Path | None) -> "LoadedModel":
    from pydantic import ValidationError  # noqa: PLC0415

    from housing_assets.cli import fail, refuse_settings  # noqa: PLC0415
    from housing_serving.default_model import (  # noqa: PLC0415
        ModelUnavailable,
        default_model,
        model_in,
        model_version,
    )

    try:
        if folder is not None:
            return model_in(folder)
        return default_model() if version is None else model_version(version)
    except ValidationError as error:
        refuse_settings(error)
        raise
    except ModelUnavailable as error:
        fail(f"no model: {escape(str(error))}; housing train makes one, housing doctor looks for causes")
        raise


@contextmanager
def _opened(source: str, kind: "Format") -> Iterator[BinaryIO]:
    """The input, seekable where its format needs that."""
    from housing_assets.batch.reading import Format  # noqa: PLC0415

    if source != STANDARD:
        with _open(source) as file:
            yield file
    elif kind is Format.PARQUET:
        with TemporaryFile() as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.seek(0)
            yield copy
    else:
        yield sys.stdin.buffer


def _open(path: str) -> BinaryIO:
    from housing_assets.batch.errors import BatchError  # noqa: PLC0415

    try:
        return Path(path).open("rb")
    except OSError as error:
        raise BatchError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def _written(output: str, strict: bool) -> Iterator[BinaryIO]:
    """Where the result goes: a file that appears when it is complete, or standard output as it comes."""
    from housing_assets.batch.writing import put_in_place  # noqa: PLC0415

    if output != STANDARD:
        with put_in_place(Path(output)) as file:
            yield file
    elif strict:
        with TemporaryFile() as file:
            yield file
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout.buffer)
    else:
        yield sys.stdout.buffer
    if output == STANDARD:
        sys.stdout.buffer.flush()


def _priced(
    file: BinaryIO,
    source: str,
    kinds: "tuple[Format, Format]",
    model: "LoadedModel",
    target: BinaryIO,
) -> "Outcome":
    from housing_assets.batch.reading import read_pieces  # noqa: PLC0415
    from housing_assets.batch.run import price_rows  # noqa: PLC0415
    from housing_assets.batch.writing import Closing, open_writer  # noqa: PLC0415

    name = "standard input" if source == STANDARD else source
    with _progress(file, source) as tell, Closing(open_writer(target, kinds[1])) as writer:

        def write(priced: "PricedPiece") -> None:
            writer.write(priced)
            tell(priced.rows, priced.piece.input_bytes)

        return price_rows(read_pieces(file, kinds[0], name), model.bundle, name, write)


@contextmanager
def _progress(file: BinaryIO, source: str) -> "Iterator[_Told]":
    """What is told about every piece: a bar where somebody looks at it, nothing in a log."""
    size = None if source == STANDARD else os.fstat(file.fileno()).st_size
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        yield _Told(bar, size)


class _Told:
    """Moves the bar, and says how many rows are priced."""

    def __init__(self, bar: Progress, size: int | None) -> None:
        self._bar = bar
        self._task = bar.add_task("reading", total=size)
        self._rows = 0
        self._started = time.monotonic()

    def __call__(self, rows: int, input_bytes: int) -> None:
        self._rows += rows
        speed = self._rows / max(time.monotonic() - self._started, 1e-9)
        text = f"{self._rows:,} rows priced, {speed:,.0f} rows/s"
        self._bar.update(self._task, advance=input_bytes, description=text)


def _tell(outcome: "Outcome", model: "LoadedModel", seconds: float) -> None:
    _tell_problems(outcome)
    version = model.bundle.manifest.model_version
    text = (
        f"{outcome.priced:,} of {outcome.rows:,} rows priced by version {version} in {seconds:.1f} s "
        f"({outcome.rows / max(seconds, 1e-9):,.0f} rows/s)"
    )
    if outcome.unusual:
        text += f"; {outcome.unusual:,} with a value unlike those of training: see the column warnings"
    console.print(text, soft_wrap=True)


def _tell_problems(outcome: "Outcome") -> None:
    for row, problem in outcome.problems:
        console.print(f"[yellow]row {row:,}[/] {escape(problem)}", soft_wrap=True)
    if more := outcome.rejected - len(outcome.problems):
        console.print(f"and {more:,} more rows without a price: see the column error", soft_wrap=True)
