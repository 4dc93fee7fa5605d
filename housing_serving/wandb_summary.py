"""Aggregates of what the service answered, for a W&B run, where a key is given.

W&B's client runs in a process of its own and is never waited for: its memory, its retries and the hook with
which it holds up the end of a process stay there.
"""

import importlib.util
import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from housing_serving.answers import AnswerBatch
from housing_serving.features import FloatArray
from housing_serving.settings import ServingSettings

logger = logging.getLogger(__name__)

# Latencies in seconds are counted in bins two per cent wide: a long interval takes no more memory.
LATENCY_BINS = np.geomspace(1e-5, 100.0, 801)


@dataclass
class VersionSummary:
    """What one model version answered in an interval."""

    predictions: int = 0
    price_sum: float = 0.0
    price_min: float = float("inf")
    price_max: float = float("-inf")
    requests: int = 0
    latency_sum: float = 0.0
    latency_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(LATENCY_BINS), np.int64))

    def add(self, price: FloatArray, latency_seconds: FloatArray) -> None:
        """Count prices of instances, at least one, and latencies of requests."""
        self.predictions += len(price)
        self.price_sum += float(price.sum())
        self.price_min = min(self.price_min, float(price.min()))
        self.price_max = max(self.price_max, float(price.max()))
        self.requests += len(latency_seconds)
        self.latency_sum += float(latency_seconds.sum())
        places = np.minimum(np.searchsorted(LATENCY_BINS, latency_seconds), len(LATENCY_BINS) - 1)
        self.latency_counts += np.bincount(places, minlength=len(LATENCY_BINS))

    def values(self) -> dict[str, float]:
        """The numbers as they are logged; prices in dollars, latencies in milliseconds."""
        return {
            "predictions": self.predictions,
            "requests": self.requests,
            "price_mean": self.price_sum / self.predictions,
            "price_min": self.price_min,
            "price_max": self.price_max,
            "latency_ms_mean": 1e3 * self.latency_sum / self.requests,
            "latency_ms_p50": 1e3 * self._latency_quantile(0.5),
            "latency_ms_p99": 1e3 * self._latency_quantile(0.99),
        }

    def _latency_quantile(self, share: float) -> float:
        # The upper end of the bin, at most two per cent too much.
        return float(LATENCY_BINS[np.searchsorted(np.cumsum(self.latency_counts), share * self.requests)])


class WandbSummary:
    """Adds up answers and hands the sums to the process that talks to W&B. Not for several threads."""

    def __init__(self, settings: ServingSettings, key: str) -> None:
        self._settings = settings
        self._key = key
        self._versions: dict[str, VersionSummary] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: int | None = None
        self._failing = False

    def start(self) -> None:
        """Start the process."""
        command = [
            *(sys.executable, "-m", "housing_serving.wandb_process"),
            *("--project", self._settings.wandb_project, "--entity", self._settings.wandb_entity or ""),
            *("--folder", str((self._settings.housing_home / "wandb").resolve())),
            *("--deployment", self._settings.housing_deployment),
            *("--model-name", self._settings.mlflow_model_name),
        ]
        environment = os.environ | {"WANDB_API_KEY": self._key}
        read_end, self._pipe = os.pipe()
        try:
            self._process = subprocess.Popen(command, stdin=read_end, env=environment)  # noqa: S603  (ours)
        except OSError as error:
            logger.warning("the process for W&B cannot be started", extra={"reason": error.strerror})
        finally:
            os.close(read_end)
        os.set_blocking(self._pipe, False)

    def add(self, batch: AnswerBatch) -> None:
        """Count the answers of a batch."""
        first = batch.instance == 0
        for version in set(batch.model_version.tolist()):
            chosen = batch.model_version == version
            summary = self._versions.setdefault(version, VersionSummary())
            summary.add(batch.price[chosen], batch.latency_seconds[chosen & first])

    def send(self) -> None:
        """Hand over the sums of the interval that ends now, and begin another."""
        versions, self._versions = self._versions, {}
        if self._pipe is None:
            return
        for version, summary in versions.items():
            line = json.dumps({"model_version": version, "values": summary.values()}).encode() + b"\n"
            try:
                # So short a write to a pipe is done whole or not at all, and never waits.
                os.write(self._pipe, line)
            except OSError as error:
                if not self._failing:
                    logger.warning("aggregates for W&B are lost", extra={"reason": error.strerror})
                self._failing = True
            else:
                self._failing = False

    def end(self) -> None:
        """Let the process finish the run; does not wait for it."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def join(self, timeout_seconds: float) -> None:
        """Wait until it has, then kill it."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            logger.warning("W&B did not finish the run in time, its last numbers may be missing")
            self._process.kill()
            self._process.wait()


def open_wandb_summary(settings: ServingSettings) -> WandbSummary | None:
    """The summary where a key is set and W&B's client is installed; a warning says where only one is."""
    if settings.wandb_api_key is None:
        return None
    if importlib.util.find_spec("wandb") is None:
        logger.warning(
            "WANDB_API_KEY is set but wandb is not installed: "
            "install housing-assets[serving-wandb], or unset WANDB_API_KEY"
        )
        return None
    return WandbSummary(settings, settings.wandb_api_key.get_secret_value())
