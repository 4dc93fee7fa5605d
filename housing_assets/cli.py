"""The `housing` command: every part of it, and what they share."""

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from housing_assets import alerts_cli, containers_cli, doctor_cli, monitor_cli, predict_cli, release_cli
from housing_assets.command_help import epilog
from housing_assets.completion import complete_snapshot
from housing_assets.settings import Settings

MODEL, SERVICES, OPERATIONS = "Models and prices", "Services", "Operations"

app = typer.Typer(
    name="housing",
    help="A house-price model as a Dagster asset graph, from raw census rows to a served price.",
    epilog=epilog(
        ("housing demo", "everything once, in some minutes"),
        ("housing up", "the services, until `housing down`"),
        ("housing predict blocks.csv --output priced.csv", "prices of a table"),
        ("housing COMMAND --help", "what a command does, with examples"),
    ),
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
)
console = Console()

SnapshotOption = Annotated[
    str | None,
    typer.Option(
        help="Weekly snapshot to train on, a Sunday as YYYY-MM-DD.  [default: the newest]",
        autocompletion=complete_snapshot,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(help="YAML file with run configuration, as the launchpad of the Dagster UI shows it."),
]


def load_settings() -> Settings:
    """The settings, or exit 2 with what to set."""
    try:
        return Settings.load()
    except ValidationError as error:
        refuse_settings(error)
        raise


def refuse_settings(error: ValidationError) -> None:
    """Say which settings are wrong, and exit 2."""
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    fail(f"{place + ': ' if place else ''}{problem['msg'].removeprefix('Value error, ')}", code=2)


def fail(message: str, code: int = 1) -> None:
    """Say what went wrong on stderr, and exit."""
    Console(stderr=True, highlight=False).print(f"[bold red]error[/] {message}", soft_wrap=True)
    raise typer.Exit(code)


def tell_version(wanted: bool) -> None:
    """Print the version, and end."""
    if wanted:
        typer.echo(f"housing {metadata.version('housing-assets')}")
        raise typer.Exit


ProductVersionOption = Annotated[
    bool,
    typer.Option("--version", help="Print the version, and exit.", callback=tell_version, is_eager=True),
]


@app.callback()
def housing(version: ProductVersionOption = False) -> None:
    """A house-price model as a Dagster asset graph, from raw census rows to a served price."""


@app.command(
    rich_help_panel=MODEL,
    epilog=epilog(("housing demo", "from the packaged table to one price, in some minutes")),
)
def demo() -> None:
    """Train on the newest snapshot, serve the registered model, and ask it for one price."""
    from housing_assets.demo import DemoError, run_demo  # noqa: PLC0415  (seconds to import)

    try:
        run_demo(load_settings(), console)
    except DemoError as error:
        fail(str(error))


@app.command(
    rich_help_panel=MODEL,
    epilog=epilog(
        ("housing train", "on the newest snapshot"),
        ("housing train --snapshot 2026-11-22", "on another one"),
        ("housing train --config run.yaml", "with other values, as the launchpad of the UI shows them"),
        done="a version is registered",
    ),
)
def train(snapshot: SnapshotOption = None, config: ConfigOption = None) -> None:
    """Run `training_job` for one snapshot: from source rows to a version in `staging`."""
    from housing_assets.demo import DemoError, WrongOption, run_training  # noqa: PLC0415

    try:
        outcome = run_training(load_settings(), console, snapshot, config)
    except DemoError as error:
        fail(str(error), code=2 if isinstance(error, WrongOption) else 1)
    else:
        console.print(f"registered version [bold]{outcome.metadata['registered_model']['model_version']}[/]")


app.command(rich_help_panel=MODEL, epilog=predict_cli.EPILOG)(predict_cli.predict)


@app.command(
    rich_help_panel=SERVICES,
    epilog=epilog(("PORT=8081 housing serve", "the service alone, on another port"), done="it was stopped"),
)
def serve() -> None:
    """Answer price requests on PORT with the released model or, before any release, the newest one."""
    load_settings()
    os.execv(sys.executable, [sys.executable, "-m", "housing_serving"])  # noqa: S606


@app.command(
    rich_help_panel=SERVICES,
    epilog=epilog(("housing exporter --host 0.0.0.0", "in a container"), done="it was stopped"),
)
def exporter(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 in a container.")] = "127.0.0.1",
) -> None:
    """Tell Prometheus on HOUSING_EXPORTER_PORT what monitoring found and which alerts are open."""
    from housing_assets.exporter import ExporterError, serve_metrics  # noqa: PLC0415  (a second to import)

    settings = load_settings()
    try:
        serve_metrics(settings, host, lambda url: console.print(f"{url} answers; stop: Ctrl-C"))
    except ExporterError as error:
        fail(str(error))


@app.command(
    rich_help_panel=SERVICES,
    epilog=epilog(("housing up", "then open the Dagster UI on port 3000"), done="everything answers"),
)
def up() -> None:
    """Start MLflow, the Dagster UI and daemon, the API and the web app; return when all of them answer."""
    from housing_assets.services import ServiceError  # noqa: PLC0415
    from housing_assets.services import up as start  # noqa: PLC0415

    settings = load_settings()
    try:
        with console.status("starting") as status:
            started = start(settings, lambda name, what: status.update(f"{name}: {what}"))
    except ServiceError as error:
        fail(str(error))
    table = Table("service", "address", title="Everything answers", title_justify="left")
    for service in started:
        table.add_row(service.name, service.url or "(no page)")
    console.print(table)
    console.print(f"logs: {settings.home.resolve() / 'services'}   stop: make down")


@app.command(
    rich_help_panel=SERVICES,
    epilog=epilog(("housing down", "also ends what a killed `housing up` left")),
)
def down() -> None:
    """Stop everything that `housing up` started."""
    from housing_assets.services import down as stop  # noqa: PLC0415

    console.print("stopped" if stop(load_settings()) else "nothing was running")


@app.command(
    rich_help_panel=SERVICES,
    epilog=epilog(
        ("housing status", "which services run"),
        done="all of them run",
        failed="1: one does not, or nothing runs",
    ),
)
def status() -> None:
    """Show each service's state; exit 1 unless all of them run."""
    from housing_assets.services import is_up, states  # noqa: PLC0415

    settings = load_settings()
    if not is_up(settings):
        fail("nothing is running: make up starts the services")
    found = states(settings)
    for name, state in found.items():
        console.print(f"{name:<20} {state}")
    if set(found.values()) != {"RUNNING"}:
        raise typer.Exit(1)


app.command("run", rich_help_panel=SERVICES, epilog=containers_cli.RUN_EPILOG)(containers_cli.run_part)
app.command("probe", rich_help_panel=SERVICES, epilog=containers_cli.PROBE_EPILOG)(containers_cli.probe_part)
app.add_typer(release_cli.app, rich_help_panel=OPERATIONS)
app.add_typer(alerts_cli.app, rich_help_panel=OPERATIONS)
app.command(rich_help_panel=OPERATIONS, epilog=monitor_cli.EPILOG)(monitor_cli.monitor)
app.command(rich_help_panel=OPERATIONS, epilog=doctor_cli.EPILOG)(doctor_cli.doctor)
