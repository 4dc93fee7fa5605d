"""W&B runs of the graph: one per step, offline without a key, artifacts as references with checksums."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housing_assets.ml.report import StepReport
from housing_assets.storage import StoredObject

if TYPE_CHECKING:
    from wandb import Run


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
    """Start a run of its own; never with a prompt. Online, wandb reads WANDB_API_KEY itself."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb  # noqa: PLC0415  (a second to import)

    folder.mkdir(parents=True, exist_ok=True)
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
        settings=wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True
        ),
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
