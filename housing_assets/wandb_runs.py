"""W&B runs of the graph: one per step, offline without a key, artifacts as references with checksums."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housing_assets.ml.report import StepReport
from housing_assets.storage import StoredObject

if TYPE_CHECKING:
    import wandb
    from wandb import Run


INIT_TIMEOUT_SECONDS = 30.0


class WandbUnavailable(RuntimeError):
    """W&B does not take a run; the message names the server and what to do."""


def start_run(
    *,
    project: str,
    entity: str | None,
    online: bool,
    folder: Path,
    name: str,
    group: str,
    job_type: str,
    tags: list[str],
) -> "Run":
    """Start a run of its own; never with a prompt. Online, wandb reads WANDB_API_KEY itself.

    Raises:
        WandbUnavailable: the server cannot be reached or refuses the key.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb  # noqa: PLC0415  (a second to import)

    folder.mkdir(parents=True, exist_ok=True)
    try:
        return wandb.init(
            project=project,
            entity=entity,
            mode="online" if online else "offline",
            dir=folder,
            name=name,
            group=group,
            job_type=job_type,
            tags=tags,
            reinit="create_new",
            settings=quiet_settings(),
        )
    except wandb.errors.Error as error:
        raise unavailable(project, "a run") from error


def quiet_settings(**changes: Any) -> "wandb.Settings":  # noqa: ANN401  (passed on to wandb)
    """Settings of every run: nothing is printed, and of the machine and the code nothing is sent."""
    import wandb  # noqa: PLC0415

    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        save_code=False,
        x_disable_stats=True,
        init_timeout=INIT_TIMEOUT_SECONDS,
        **changes,
    )


def unavailable(project: str, what: str) -> WandbUnavailable:
    """The error to raise where the server did not take `what` for a project."""
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    return WandbUnavailable(
        f"W&B at {server} did not take {what} for project {project}: check WANDB_API_KEY, WANDB_ENTITY "
        "and the network, or unset WANDB_API_KEY to record offline"
    )


def log_report(run: "Run", report: StepReport) -> None:
    """Parameters as config, metrics as summary, figures as images, tables as tables."""
    import wandb  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    run.config.update(report.params, allow_val_change=True)
    media: dict[str, Any] = {
        name: wandb.Image(Image.open(io.BytesIO(png)), file_type="png")
        for name, png in report.figures.items()
    }
    media |= {name: wandb.Table(dataframe=table) for name, table in report.tables.items()}
    run.log({**report.metrics, **media})
    run.summary.update(report.metrics)


def log_reference(run: "Run", name: str, kind: str, stored: StoredObject) -> None:
    """An artifact that points to the stored object, with its checksum, instead of a copy of it."""
    import wandb  # noqa: PLC0415

    metadata = {"uri": stored.uri, "sha256": stored.sha256, "size_bytes": stored.size}
    artifact = wandb.Artifact(name, type=kind, metadata=metadata)
    uri = stored.uri if "://" in stored.uri else Path(stored.uri).resolve().as_uri()
    artifact.add_reference(uri, checksum=True)
    run.log_artifact(artifact)
