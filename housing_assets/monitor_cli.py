"""`housing monitor`: what was served on one day, for a deployment without a daemon."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console

from housing_assets.command_help import epilog

EPILOG = epilog(
    ("housing monitor", "yesterday, as a workflow does that runs no daemon"),
    ("housing monitor --day 2026-11-24", "another day"),
    done="the reports of the day are stored",
)

console = Console()


def monitor(
    day: Annotated[
        str | None, typer.Option(help="UTC day to look at, as YYYY-MM-DD.  [default: yesterday]")
    ] = None,
) -> None:
    """Run `monitoring_job` for one UTC day: its table, its drift, and how right its prices were."""
    import dagster as dg  # noqa: PLC0415  (seconds to import)

    from housing_assets.cli import fail, load_settings  # noqa: PLC0415  (it imports this module)
    from housing_assets.instance import prepare_instance, quieten_dagster  # noqa: PLC0415
    from housing_assets.partitions import DAYS  # noqa: PLC0415

    settings = load_settings()
    key = day or f"{datetime.now(UTC) - timedelta(days=1):{DAYS.fmt}}"
    if not DAYS.has_partition_key(key):
        fail(f"{key!r} is no day: give one from {DAYS.get_first_partition_key()} to today, as YYYY-MM-DD")
    quieten_dagster()
    from housing_assets import training  # noqa: PLC0415  (loads the whole graph)

    prepare_instance(settings)
    with dg.DagsterInstance.get() as instance:
        outcome = training.monitor(instance, key, on_message=lambda text: console.print(text, soft_wrap=True))
    if not outcome.success:
        fail("\n".join(outcome.failures))
    console.print(f"{key}: {outcome.metadata['prediction_log'].get('dagster/row_count', 0)} predictions")
