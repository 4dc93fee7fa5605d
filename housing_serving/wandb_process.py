"""`python -m housing_serving.wandb_process`: logs lines of JSON from standard input to a W&B run.

Started by the service where WANDB_API_KEY is set. It ends with its input, so it does not outlive the service.
"""

import argparse
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from housing_serving.log_format import configure_logging

if TYPE_CHECKING:
    from wandb import Run

# Run as a program, this module has another name.
logger = logging.getLogger("housing_serving.wandb_process")

INIT_TIMEOUT_SECONDS = 30.0
# What is not uploaded so long after the end is given up.
FINISH_TIMEOUT_SECONDS = 5.0
# Between two attempts to start a run.
RETRY_SECONDS = 300.0


class WandbUnavailable(Exception):
    """W&B does not take a run; the message names the server and what to do."""


def main() -> None:
    """Log until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--project", "--entity", "--folder", "--deployment", "--model-name"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    configure_logging()
    # A signal may reach the whole group; the service, by closing the input, decides when the end has come.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        run = log_lines(sys.stdin.buffer, arguments)
        if run is not None:
            run.finish()
    except Exception:  # the client raises several types that share no base
        logger.exception("W&B failed, no more aggregates are logged")
        sys.exit(1)


def log_lines(lines: IO[bytes], arguments: argparse.Namespace) -> "Run | None":
    """Log each line; start the run with the first one that W&B takes it for."""
    run: Run | None = None
    next_attempt = 0.0
    problem = ""
    for line in lines:
        if run is None and time.monotonic() >= next_attempt:
            try:
                run = start_run(arguments)
            except WandbUnavailable as error:
                if str(error) != problem:
                    logger.warning("no aggregates in W&B", extra={"reason": str(error)})
                problem = str(error)
                next_attempt = time.monotonic() + RETRY_SECONDS
            else:
                logger.info("W&B run started", extra={"run": run.id, "project": arguments.project})
        if run is not None:
            _log(run, line)
    return run


def start_run(arguments: argparse.Namespace) -> "Run":
    """A run of this process; never with a prompt. wandb reads WANDB_API_KEY itself.

    Raises:
        WandbUnavailable: the server cannot be reached or refuses the key, or the folder cannot be written.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb  # noqa: PLC0415  (a second to import)

    folder = Path(arguments.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return wandb.init(
            project=arguments.project,
            entity=arguments.entity or None,
            dir=folder,
            job_type="api-inference",
            config={"deployment": arguments.deployment, "model_name": arguments.model_name},
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                save_code=False,
                x_disable_stats=True,
                init_timeout=INIT_TIMEOUT_SECONDS,
                finish_timeout=FINISH_TIMEOUT_SECONDS,
            ),
        )
    except OSError as error:
        raise WandbUnavailable(f"{folder} cannot be written ({error.strerror}): set HOUSING_HOME") from error
    except wandb.errors.Error as error:
        server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
        raise WandbUnavailable(
            f"W&B at {server} did not take a run for project {arguments.project}: check WANDB_API_KEY, "
            "WANDB_ENTITY and the network, or unset WANDB_API_KEY"
        ) from error


def _log(run: "Run", line: bytes) -> None:
    entry = json.loads(line)
    version = entry["model_version"]
    run.config.update({"model_version": version}, allow_val_change=True)
    run.log({f"version_{version}/{name}": value for name, value in entry["values"].items()})


if __name__ == "__main__":
    main()
