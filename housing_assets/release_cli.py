"""`housing release`: what serves, how it came to that, and how to change it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from housing_assets.command_help import epilog
from housing_assets.completion import complete_version
from housing_assets.settings import Settings

if TYPE_CHECKING:
    from housing_assets.deployment.target import DeploymentTarget, TargetStatus

app = typer.Typer(
    name="release",
    help="What serves, how it came to that, and how to change it.",
    epilog=epilog(
        ("housing release status", "what serves"), ("housing release rollback", "the version before again")
    ),
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
console = Console()

FOLLOW_SECONDS = 10.0
CHECK_SECONDS = 30.0
LOOK_SECONDS = 0.25

VersionArgument = Annotated[
    int,
    typer.Argument(min=1, help="Version of the registered model.", autocompletion=complete_version),
]
ReasonOption = Annotated[str, typer.Option(help="Why; it is kept in the history.")]


@app.command(
    epilog=epilog(
        ("housing release status", "what serves, and what is being tried out"),
        done="every process serves what is released",
        failed="1: they differ, or the release cannot be read",
    )
)
def status() -> None:
    """Show the released versions and what each process serves; exit 1 when they differ."""
    with _clear_errors():
        found = _target(_settings()).status()
    _show(found)
    if found.problems or set(found.serving) - {found.stable}:
        raise typer.Exit(1)


@app.command(epilog=epilog(("housing release history --limit 5", "the last five changes")))
def history(
    limit: Annotated[int, typer.Option(min=1, help="How many changes to show, the latest first.")] = 20,
) -> None:
    """Show who changed the release, when, and why."""
    with _clear_errors():
        changes = _target(_settings()).history()
    if not changes:
        console.print("nothing was released yet")
        return
    table = Table("when (UTC)", "what", "version", "by", "why")
    for entry in list(reversed(changes))[:limit]:
        table.add_row(
            f"{entry.at:%Y-%m-%d %H:%M:%S}", entry.action, str(entry.version), entry.by, entry.reason
        )
    console.print(table)


@app.command(
    epilog=epilog(
        ("housing release promote 7", "a version that the promotion gate let pass"),
        ("housing release promote 7 --force --reason 'the gate compared old data'", "one that it did not"),
        done="the version serves",
    )
)
def promote(
    version: Annotated[
        int, typer.Argument(min=1, help="Version of the registered model.", autocompletion=complete_version)
    ],
    reason: ReasonOption = "promoted on the command line",
    force: Annotated[
        bool, typer.Option("--force", help="Also a version that the promotion gate did not let pass.")
    ] = False,
) -> None:
    """Let a version serve at once, without a trial next to the one that serves now."""
    from housing_assets.deployment import release  # noqa: PLC0415  (seconds to import, like those below)
    from housing_assets.deployment.preflight import (  # noqa: PLC0415
        judged_against,
        verified_bundle,
        version_tags,
    )
    from housing_assets.registry import RegistryResource  # noqa: PLC0415
    from housing_assets.storage import open_store  # noqa: PLC0415

    settings = _settings()
    with _clear_errors():
        target = _target(settings)
        models = RegistryResource(
            tracking_uri=settings.tracking_uri, model_name=settings.mlflow_model_name
        ).registry()
        tags = version_tags(models, version)
        if not force:
            judged_against(tags, version)
        verified_bundle(open_store(settings.storage_root), models.name, version, tags.get("bundle_sha256"))
        console.print(release.promote(target, version, release.this_person(), reason))
        _follow(settings, target)


@app.command(
    epilog=epilog(
        ("housing release deploy", "the candidate in `staging`"),
        ("housing release deploy --version 7", "another version"),
        done="the trial has ended, well or not; `housing release status` tells",
    ),
)
def deploy(
    version: Annotated[
        int | None,
        typer.Option(min=1, help="Version of the registered model.  [default: the one in `staging`]"),
    ] = None,
    outputs: Annotated[
        Path | None,
        typer.Option(help="File to append `promoted=true|false` and `version=N` to, as GitHub's steps do."),
    ] = None,
) -> None:
    """Try a version out next to the one that serves, then promote it or take it back: `deployment_job`."""
    import dagster as dg  # noqa: PLC0415

    from housing_assets.instance import prepare_instance, quieten_dagster  # noqa: PLC0415

    settings = _settings()
    quieten_dagster()
    from housing_assets import training  # noqa: PLC0415  (loads the whole graph)

    prepare_instance(settings)
    with _clear_errors():
        before = _target(settings).status().stable
        with dg.DagsterInstance.get() as instance:
            outcome = training.deploy(instance, version, on_message=console.print)
        found = _target(settings).status()
    if outputs is not None:
        promoted = str(found.stable != before).lower()
        with outputs.open("a", encoding="utf-8") as file:
            file.write(f"promoted={promoted}\nversion={found.stable or ''}\n")
    _show(found)
    if not outcome.success:
        _fail("\n".join(outcome.failures))


@app.command(
    epilog=epilog(("housing release check", "after a deployment"), done="every address answers"),
)
def check() -> None:
    """Ask every address of the service for a price; exit 1 unless the released version answers."""
    from housing_assets.deployment.cloud_run_smoke import smoke_test  # noqa: PLC0415
    from housing_assets.deployment.targets import service_addresses  # noqa: PLC0415

    settings = _settings()
    with _clear_errors():
        found = _target(settings).status()
        if found.stable is None:
            _fail("nothing was released yet: materialize registered_model")
            return
        for url, token in service_addresses(found, settings.fleet_urls, settings.api_key, settings.cloud_run):
            price = smoke_test(url, found.stable, token=token, seconds=CHECK_SECONDS)
            console.print(f"{url} answers ${price:,.0f} by version {found.stable}")


@app.command(
    epilog=epilog(
        ("housing release rollback --reason 'prices of islands are wrong'", "back to the version before"),
        done="the version before serves",
    )
)
def rollback(reason: ReasonOption = "rolled back on the command line") -> None:
    """End a trial or, when there is none, let the version before serve again."""
    from housing_assets.deployment import release  # noqa: PLC0415

    settings = _settings()
    with _clear_errors():
        target = _target(settings)
        console.print(release.roll_back(target, release.this_person(), reason))
        _follow(settings, target)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Say what went wrong in a line, and exit 1."""
    from housing_assets.deployment.target import DeploymentError  # noqa: PLC0415
    from housing_assets.storage import StorageError  # noqa: PLC0415

    try:
        yield
    except (DeploymentError, StorageError) as error:
        _fail(str(error))


def _target(settings: Settings) -> "DeploymentTarget":
    # Not by way of the resource: Dagster takes seconds to import, and a rollback is urgent.
    from housing_assets.deployment.targets import open_target  # noqa: PLC0415
    from housing_assets.storage import open_store  # noqa: PLC0415

    store = open_store(settings.storage_root)
    return open_target(store, settings.fleet_urls, settings.api_key, settings.cloud_run)


def _settings() -> Settings:
    from housing_assets.cli import load_settings  # noqa: PLC0415  (it imports this module)

    return load_settings()


def _fail(message: str) -> None:
    from housing_assets.cli import fail  # noqa: PLC0415

    fail(message)


def _follow(settings: Settings, target: "DeploymentTarget") -> None:
    """Wait until every process serves what is released, let the registry say the same, and show both."""
    deadline = time.monotonic() + FOLLOW_SECONDS
    with console.status("waiting for the processes"):
        found = target.status()
        while set(found.serving) - {found.stable} and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            found = target.status()
    _show(found)
    with console.status("telling the registry"):
        for line in _aligned(settings, found):
            console.print(f"registry: {line}")


def _aligned(settings: Settings, found: "TargetStatus") -> list[str]:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    from housing_assets.deployment.aliases import align_aliases  # noqa: PLC0415
    from housing_assets.registry import RegistryResource  # noqa: PLC0415

    try:
        models = RegistryResource(
            tracking_uri=settings.tracking_uri, model_name=settings.mlflow_model_name
        ).registry()
        return align_aliases(models, found.stable, found.previous)
    except MlflowException as error:
        return [f"not told ({error.message}); the sensor keep_release_in_step does it later"]


def _show(found: "TargetStatus") -> None:
    if found.stable is None:
        console.print("nothing was released yet: materialize registered_model; make up releases it then")
    table = Table(show_header=False, box=None)
    table.add_row("serves", "-" if found.stable is None else f"version {found.stable}")
    if found.canary is not None:
        table.add_row(
            "tried out",
            f"version {found.canary} on {found.canary_percent:g} % of the requests, by {found.canary_owner}",
        )
    table.add_row("rollback restores", "-" if found.previous is None else f"version {found.previous}")
    for version, processes in sorted(found.serving.items()):
        table.add_row("processes", f"{processes:g} serve version {version}")
    for problem in found.problems:
        table.add_row("[yellow]problem[/]", problem)
    console.print(table)
