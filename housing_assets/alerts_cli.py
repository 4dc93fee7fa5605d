"""`housing alerts`: what is open, what was, and whether messages arrive."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from housing_assets.command_help import epilog
from housing_assets.settings import Settings

if TYPE_CHECKING:
    from housing_assets.alerts.book import Alert, AlertBook

app = typer.Typer(
    name="alerts",
    help="What monitoring has raised, and whether messages about it arrive.",
    epilog=epilog(
        ("housing alerts", "what is open now"),
        ("housing alerts test", "whether messages arrive"),
        done="no open alert is critical",
        failed="1: one is, or the alerts cannot be read",
    ),
    rich_markup_mode="markdown",
)
console = Console()


@app.callback(invoke_without_command=True)
def open_alerts(context: typer.Context) -> None:
    """Show the open alerts and what is still to be delivered; exit 1 when an open one is critical."""
    if context.invoked_subcommand is not None:
        return
    book = _book(_settings())
    if not book.opened:
        console.print("no alert is open")
    else:
        console.print(_table(book.opened))
        console.print("what to do, for each: docs/runbook.md")
    for box in book.outboxes:
        console.print(
            f"[yellow]{box.channel}[/] is still to be told {len(box.notices)} change(s)"
            + (f"; attempt {box.attempts} failed: {escape(box.problem)}" if box.problem else ""),
            soft_wrap=True,
        )
    if any(alert.severity == "critical" for alert in book.opened):
        raise typer.Exit(1)


@app.command(
    epilog=epilog(
        ("housing alerts watch", "once, as a workflow does that runs no daemon"),
        done="no critical alert is open",
        failed="1: a critical one is, or it could not be looked at",
    ),
)
def watch() -> None:
    """Open and close alerts as the newest reports say, and tell the channels; exit 1 on a critical one.

    The sensor `raise_alerts` does the same where a daemon runs.
    """
    from housing_assets.alerts.book import AlertBookConflict  # noqa: PLC0415
    from housing_assets.alerts.channels import ChannelValues, open_channels  # noqa: PLC0415
    from housing_assets.alerts.watch import watch as look_at  # noqa: PLC0415
    from housing_assets.cli import fail  # noqa: PLC0415
    from housing_assets.storage import open_store  # noqa: PLC0415

    settings = _settings()
    channels = open_channels(ChannelValues(**settings.alerts, **settings.alert_secrets))
    with _clear_errors():
        try:
            look = look_at(open_store(settings.storage_root), channels, datetime.now(UTC))
        except AlertBookConflict as error:
            fail(f"{error}: somebody else looks at the same time")
            return
    for problem in look.problems:
        console.print(f"[yellow]problem[/] {escape(problem)}", soft_wrap=True)
    console.print(_table(look.opened) if look.opened else "no alert is open")
    if any(alert.severity == "critical" for alert in look.opened):
        raise typer.Exit(1)


@app.command(epilog=epilog(("housing alerts history --limit 5", "the last five that are over")))
def history(
    limit: Annotated[int, typer.Option(min=1, help="How many alerts to show, the latest first.")] = 20,
) -> None:
    """Show the alerts that are over."""
    closed = _book(_settings()).closed
    if not closed:
        console.print("no alert was closed yet")
        return
    console.print(_table(list(reversed(closed))[:limit]))


@app.command(
    epilog=epilog(
        ("housing alerts test", "after a channel was set up"),
        done="every channel took the message",
        failed="1: one did not",
    )
)
def test() -> None:
    """Send a test message on every channel; exit 1 when one does not take it."""
    from housing_assets.alerts.channels import (  # noqa: PLC0415  (a second to import)
        ChannelValues,
        DeliveryFailed,
        deliver,
        open_channels,
    )
    from housing_assets.alerts.messages import trial_message  # noqa: PLC0415

    settings = _settings()
    failed = False
    for name, channel in open_channels(ChannelValues(**settings.alerts, **settings.alert_secrets)).items():
        try:
            with console.status(f"telling {name}"):
                deliver(channel, trial_message())
        except DeliveryFailed as error:
            failed = True
            console.print(f"[red]{name}[/] {escape(str(error))}", soft_wrap=True)
        else:
            console.print(f"[green]{name}[/] has taken a test message")
    if failed:
        raise typer.Exit(1)


def _table(alerts: "Sequence[Alert]") -> Table:
    table = Table("severity", "cause", "first day", "last day", "measured", "limit", "what", "what to do")
    for alert in alerts:
        colour = "red" if alert.severity == "critical" else "yellow"
        closed = f"\nclosed {alert.closed_at:%Y-%m-%d %H:%M}" if alert.closed_at else ""
        table.add_row(
            f"[{colour}]{alert.severity}[/]",
            escape(alert.cause),
            f"{alert.first_day}",
            f"{alert.last_day}{closed}",
            f"{alert.value:.4g}",
            f"{alert.threshold:.4g}",
            escape(alert.text),
            escape(alert.action),
        )
    return table


def _book(settings: Settings) -> "AlertBook":
    from housing_assets.alerts.book import AlertBookStore  # noqa: PLC0415
    from housing_assets.storage import open_store  # noqa: PLC0415

    with _clear_errors():
        return AlertBookStore(open_store(settings.storage_root)).read().book


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Say what went wrong in a line, and exit 1."""
    from housing_assets.alerts.book import AlertBookUnreadable  # noqa: PLC0415
    from housing_assets.cli import fail  # noqa: PLC0415  (it imports this module)
    from housing_assets.storage import StorageError  # noqa: PLC0415

    try:
        yield
    except (AlertBookUnreadable, StorageError) as error:
        fail(str(error))


def _settings() -> Settings:
    from housing_assets.cli import load_settings  # noqa: PLC0415

    return load_settings()
