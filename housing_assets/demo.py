"""What `housing demo` does: train, serve, ask for one price, and sum up where to look next."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import requests
import yaml
from rich.console import Console
from rich.table import Table

from housing_assets.deployment.smoke import EXAMPLE
from housing_assets.instance import prepare_instance, quieten_dagster
from housing_assets.mlflow_runs import MlflowRuns, TrackingUnavailable
from housing_assets.orphans import fail_orphans
from housing_assets.partitions import SNAPSHOTS, latest_snapshot
from housing_assets.settings import Deployment, Settings
from housing_assets.storage import open_store

if TYPE_CHECKING:
    from housing_assets.training import Outcome

READY_TIMEOUT_SECONDS = 60.0
LOOPBACK = "127.0.0.1"


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why and what to do."""


class WrongOption(DemoError):
    """What was asked for cannot be: a snapshot that does not exist, a file that holds no configuration."""


def run_demo(settings: Settings, console: Console) -> None:
    """Train, serve, post one request, and print a summary.

    Raises:
        DemoError: training failed, or the service did not answer.
    """
    started = time.monotonic()
    outcome = run_training(settings, console)
    version = str(outcome.metadata["registered_model"]["model_version"])
    with console.status("starting the prediction service"), running_service(settings, version) as url:
        answer = requests.post(f"{url}/api/v1/predict", json={"instances": [EXAMPLE]}, timeout=30)
    if answer.status_code != requests.codes.ok:
        raise DemoError(f"the service answered {answer.status_code}: {answer.text}")
    body = answer.json()
    if body["model_version"] != version:
        raise DemoError(f"version {version} was registered, but version {body['model_version']} answered")
    summarize(console, outcome, body, time.monotonic() - started, settings)


def run_training(
    settings: Settings, console: Console, snapshot: str | None = None, config: Path | None = None
) -> "Outcome":
    """Execute the training job with a line per finished step.

    Raises:
        WrongOption: the snapshot is unknown, or the configuration is not readable or does not fit.
        DemoError: a step failed.
    """
    from housing_assets.training import train  # noqa: PLC0415  (loads the whole graph)

    key = snapshot or latest_snapshot()
    if not SNAPSHOTS.has_partition_key(key):
        raise WrongOption(f"{key!r} is no snapshot: give a Sunday from 2025-01-05 to {latest_snapshot()}")
    prepare_instance(settings)
    quieten_dagster()
    console.print(f"Training on snapshot [bold]{key}[/], stored under {settings.storage_root}")
    with dg.DagsterInstance.get() as instance, console.status("loading the asset graph") as spinner:
        close_killed_runs(settings, instance)
        try:
            outcome = train(
                instance,
                key,
                run_config_of(config),
                on_step=lambda step, seconds: console.print(f"  [green]✓[/] {step:<46}{seconds:7.1f} s"),
                on_message=lambda message: spinner.update(message[:100]),
            )
        except dg.DagsterInvalidConfigError as error:
            raise WrongOption(f"{config} does not fit the assets: {error}") from error
    if not outcome.success:
        raise DemoError("training failed\n" + "\n".join(outcome.failures))
    return outcome


def close_killed_runs(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Report runs that were killed earlier as failed, in Dagster and MLflow: no daemon may be there to do it.

    Raises:
        DemoError: the tracking server does not answer.
    """
    killed = fail_orphans(instance)
    if not killed:
        return
    try:
        runs = MlflowRuns(
            settings.tracking_uri, settings.mlflow_experiment, open_store(settings.storage_root)
        )
    except TrackingUnavailable as error:
        raise DemoError(str(error)) from error
    for run_id in killed:
        runs.close_parent(run_id, "FAILED")


def run_config_of(path: Path | None) -> dict[str, Any]:
    """The run configuration in a YAML file, as the launchpad of the Dagster UI shows it."""
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise WrongOption(f"{path} is not a readable YAML file: {error}") from error
    if not isinstance(content, dict):
        raise WrongOption(
            f"{path} must hold a mapping, for example ops: {{sweep_result: {{config: {{n_trials: 60}}}}}}"
        )
    return content


@contextmanager
def running_service(settings: Settings, version: str) -> Iterator[str]:
    """The prediction service with one model version, in a process of its own; yields its URL once ready.

    Raises:
        DemoError: it ended or did not become ready.
    """
    port = free_port(settings.port)
    process = subprocess.Popen(
        [sys.executable, "-m", "housing_serving"],
        env=service_environment(settings, port, version),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = f"http://{LOOPBACK}:{port}"
    try:
        wait_until_ready(process, url)
        yield url
    finally:
        process.terminate()
        process.communicate(timeout=30)


def service_environment(settings: Settings, port: int, version: str) -> Mapping[str, str]:
    """This environment, with the service's port and the version it is to serve; nothing may be in the way."""
    bundle = f"models/{settings.mlflow_model_name}/{version}"
    if settings.deployment is Deployment.GCP:
        model = {"GCS_MODEL_PATH": bundle, "LOCAL_MODEL_PATH": ""}
    else:
        model = {"LOCAL_MODEL_PATH": f"{settings.storage_root}/{bundle}"}
    home = str(settings.home.resolve())
    # An alias would win over the version, a key be needed, and the demo's request is no traffic to watch.
    off = {"MLFLOW_TRACKING_URI": "", "HOUSING_API_KEYS": "", "HOUSING_PREDICTION_LOG": "false"}
    return {**os.environ, **off, **model, "HOST": LOOPBACK, "PORT": str(port), "HOUSING_HOME": home}


def wait_until_ready(process: "subprocess.Popen[str]", url: str) -> None:
    """Return once `/health/ready` says 200."""
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoError(f"the service ended with code {process.returncode}: {process.communicate()[1]}")
        try:
            if requests.get(f"{url}/health/ready", timeout=2).status_code == requests.codes.ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.1)
    raise DemoError(f"the service at {url} was not ready within {READY_TIMEOUT_SECONDS:.0f} s")


def free_port(preferred: int) -> int:
    """The preferred port, or any free one while that is taken."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("no free port")


def summarize(
    console: Console, outcome: "Outcome", answer: dict[str, Any], seconds: float, settings: Settings
) -> None:
    """Metrics, the price, and where to look next."""
    model = outcome.metadata["registered_model"]
    table = Table(title=f"Version {answer['model_version']}: {model['algorithm']}", title_justify="left")
    for name in ("metric", "test set"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, unit in (("rmse", "$"), ("mae", "$"), ("r2", ""), ("mape", "%"), ("within_10pct", "%")):
        value = float(str(model[name]))
        table.add_row(name, f"${value:,.0f}" if unit == "$" else f"{value:.4g}{unit and ' ' + unit}")
    price = answer["predictions"][0]
    interval = price["confidence_interval"]
    console.print()
    console.print(table)
    console.print(
        f"A block group in the Berkeley hills: [bold]${price['predicted_price']:,.0f}[/] "
        f"({interval['level']:.0%} interval ${interval['lower']:,.0f} to ${interval['upper']:,.0f}; "
        "published value $452,600)",
        soft_wrap=True,
    )
    console.print(
        f"\n{len(outcome.metadata)} assets in {seconds:.0f} s. Where to look next:\n"
        f"  make up      web app http://{LOOPBACK}:{settings.webapp_port}, "
        f"Dagster UI http://{LOOPBACK}:{settings.dagster_port}, "
        f"MLflow http://{LOOPBACK}:{settings.mlflow_port}, API http://{LOOPBACK}:{settings.port}/docs\n"
        f"  files        {settings.storage_root}\n"
        "  make serve   the prediction service alone",
        soft_wrap=True,
    )
