"""The `housing` command: demo, train, serve, up, down, status, release, alerts, exporter."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from housing_assets import alerts_cli, release_cli
from housing_assets.settings import Settings

app = typer.Typer(
    name="housing",
    help="A house-price model as a Dagster asset graph, from raw census rows to a served price.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
)
app.add_typer(release_cli.app)
app.add_typer(alerts_cli.app)
console = Console()

SnapshotOption = Annotated[
    str | None,
    typer.Option(help="Weekly snapshot to train on, a Sunday as YYYY-MM-DD.  [default: the newest]"),
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
        for problem in error.errors():
            place = ".".join(str(part) for part in problem["loc"])
            fail(f"{place + ': ' if place else ''}{problem['msg'].removeprefix('Value error, ')}", code=2)
        raise


def fail(message: str, code: int = 1) -> None:
    """Say what went wrong on stderr, and exit."""
    Console(stderr=True, highlight=False).print(f"[bold red]error[/] {message}", soft_wrap=True)
    raise typer.Exit(code)


@app.command()
def demo() -> None:
    """Train on the newest snapshot, serve the registered model, and ask it for one price."""
    from housing_assets.demo import DemoError, run_demo  # noqa: PLC0415  (seconds to import)

    try:
        run_demo(load_settings(), console)
    except DemoError as error:
        fail(str(error))


@app.command()
def train(snapshot: SnapshotOption = None, config: ConfigOption = None) -> None:
    """Run `training_job` for one snapshot: from source rows to a version in `staging`."""
    from housing_assets.demo import DemoError, run_training  # noqa: PLC0415

    try:
        outcome = run_training(load_settings(), console, snapshot, config)
    except DemoError as error:
        fail(str(error))
    else:
        console.print(f"registered version [bold]{outcome.metadata['registered_model']['model_version']}[/]")


@app.command()
def serve() -> None:
    """Answer price requests on PORT with the newest model of the storage root."""
    load_settings()
    os.execv(sys.executable, [sys.executable, "-m", "housing_serving"])  # noqa: S606


@app.command()
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


@app.command()
def up() -> None:
    """Start MLflow, the Dagster UI and daemon, and the API; return when all of them answer."""
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


@app.command()
def down() -> None:
    """Stop everything that `housing up` started."""
    from housing_assets.services import down as stop  # noqa: PLC0415

    console.print("stopped" if stop(load_settings()) else "nothing was running")


@app.command()
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
