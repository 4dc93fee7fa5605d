"""The web app as people run it: a process of its own, beside an API process on a real storage root."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import requests

from housing_assets.deployment.fleet import FleetTarget
from housing_assets.ml.export import bundle_files
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.intervals import Interval
from housing_assets.ml.metrics import regression_metrics
from housing_assets.ml.preprocessing import FeatureSettings, fit_preprocessing
from housing_assets.ml.promotion import PromotionRules, decide
from housing_assets.ml.split import split
from housing_assets.ml.training import fit_model, predict
from housing_assets.monitoring.findings import Finding, Report, report_name
from housing_assets.storage import open_store
from housing_assets_tests.conftest import free_port
from housing_assets_tests.ml.block_groups import block_groups
from housing_serving.bundle import MANIFEST_FILE, Bundle, read_manifest
from housing_serving.features import TARGET
from housing_serving.releases import change
from housing_serving.settings import ServingSettings
from housing_serving.webapp.settings import WebappSettings

PATIENCE_SECONDS = 60.0
MODEL = "housing_price_model"
DAY = date(2026, 11, 21)


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Return once a condition holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


def write_storage(root: Path, rows: int, trees: int) -> None:
    """A storage root with a trained version 1, judged and monitored, and the same model as version 2."""
    store = open_store(str(root))
    train, test = split(block_groups(rows))
    files = trained_files(train, trees, test)
    bundle = Bundle.from_files(files, origin="the test's bundle")
    decision = decide(bundle, None, test, 0.0, PromotionRules(resamples=200))
    manifest = read_manifest(files[MANIFEST_FILE], "the test's bundle")
    for version in (1, 2):
        prefix = f"models/{MODEL}/{version}"
        judged = replace(decision, candidate_version=version)
        store.write(f"{prefix}/promotion.json", judged.to_json().encode())
        own = manifest.model_copy(update={"model_version": version}).to_json()
        for name, data in {**files, MANIFEST_FILE: own}.items():
            store.write(f"{prefix}/{name}", data)
    store.write(report_name("drift", DAY), drift_report().to_json())


def trained_files(train: Any, trees: int, test: Any) -> dict[str, bytes]:
    """The bundle of a boosted model on all features."""
    preprocessing = fit_preprocessing(
        BedroomImputer("median").fit(train), train, FeatureSettings(n_clusters=6, remote_share=0.0)
    )
    pipeline = fit_model(preprocessing, train, "LightGBM", {"n_estimators": trees, "learning_rate": 0.1})
    predicted, actual = predict(pipeline, test), test[TARGET].to_numpy(dtype=float)
    return bundle_files(
        pipeline,
        train,
        model_name=MODEL,
        model_version=1,
        algorithm="LightGBM",
        snapshot="2026-11-22",
        data_hash="d" * 64,
        git_commit="ebe5dd9",
        created_at=datetime(2026, 11, 22, 2, 0, tzinfo=UTC),
        metrics=regression_metrics(actual, predicted),
        interval=Interval(0.9, -75_000.0, 85_000.0, highest=500_001.0),
    )


def drift_report() -> Report:
    """One finding in a day's predictions."""
    finding = Finding(
        cause="drift:median_income",
        severity="warning",
        subject="median_income",
        value=0.31,
        threshold=0.2,
        text="median_income was 18 % higher than in training (PSI 0.31, the limit is 0.2).",
        action="Train on newer data.",
        retrain=True,
    )
    return Report(
        day=DAY,
        kind="drift",
        model_versions=["1"],
        rows=20_640,
        findings=[finding],
        created_at=datetime(2026, 11, 22, 1, 0, tzinfo=UTC),
    )


@dataclass
class Api:
    """An API process that can be stopped, frozen, and started again at the same address."""

    home: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and return when it is ready."""
        variables = {
            "PORT": str(self.port),
            "HOUSING_HOME": str(self.home),
            "HOUSING_DRAIN_SECONDS": "0",
            "HOUSING_PREDICTION_LOG": "false",
        }
        self.process = started("housing_serving", self.home.parent, variables)
        wait_until(lambda: answers(f"{self.url}/health/ready"), "the API is not ready")

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            stop(self.process)
            self.process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it accept connections and answer none."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def release(self, version: int) -> None:
        """Let a version serve, and return when it does."""
        target = FleetTarget(open_store(str(self.home / "storage")), [self.url])
        step = change("promote", version, "ann", "better on every check")
        target.promote(version, stable=target.status().stable, owner=None, change=step)
        wait_until(lambda: self.version() == version, f"version {version} does not serve")

    def version(self) -> int:
        """That serves."""
        return int(requests.get(f"{self.url}/health/ready", timeout=10).json()["model_version"])


@contextmanager
def running_webapp(folder: Path, api_url: str) -> Iterator[str]:
    """A web app that answers; its address."""
    port = free_port()
    variables = {"WEBAPP_PORT": str(port), "HOUSING_API_URL": api_url}
    process = started("housing_serving.webapp", folder, variables)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/_stcore/health"), "the web app does not answer")
        yield url
    finally:
        stop(process)


def started(module: str, folder: Path, variables: dict[str, str]) -> "subprocess.Popen[bytes]":
    """A program of the package with these settings and no others; its output goes to a file of its name."""
    known = {*ServingSettings.model_fields, *WebappSettings.model_fields}
    inherited = {name: value for name, value in os.environ.items() if name.lower() not in known}
    with (folder / f"{module}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module],
            env=inherited | variables,
            cwd=folder,
            stdout=log,
            stderr=log,
        )


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End it in order, or else at once."""
    process.terminate()
    try:
        process.wait(30)
    finally:
        process.kill()
        process.wait()
