"""`housing run` and `housing probe`: one part of the system in the foreground, and whether it is well."""

from enum import StrEnum
from typing import Annotated

import typer

from housing_assets.command_help import epilog

RUN_EPILOG = epilog(("housing run webserver", "the Dagster UI on PORT"), done="it was stopped")
PROBE_EPILOG = epilog(
    ("housing probe daemon", "in the container that runs it"), done="it is well", failed="1: it is not"
)


class Part(StrEnum):
    """What runs in one container."""

    WEBSERVER = "webserver"
    DAEMON = "daemon"
    CODE = "code"
    MLFLOW = "mlflow"


PartArgument = Annotated[Part, typer.Argument(help="Which part.", show_default=False)]


def run_part(part: PartArgument) -> None:
    """Run one part of the system in the foreground, on HOST and PORT, as a container does."""
    from housing_assets.cli import load_settings  # noqa: PLC0415  (it imports this module)
    from housing_assets.containers import run  # noqa: PLC0415

    run(part, load_settings())


def probe_part(part: PartArgument) -> None:
    """Say whether the part that runs in this container is well; exit 1 when it is not."""
    from housing_assets.cli import fail, load_settings  # noqa: PLC0415
    from housing_assets.containers import problem  # noqa: PLC0415

    found = problem(part, load_settings())
    if found is not None:
        fail(found)
