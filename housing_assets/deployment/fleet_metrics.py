"""What the processes of a fleet say of themselves, read from each of their `/metrics` pages."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import requests
from prometheus_client.parser import text_string_to_metric_families

from housing_assets.deployment.target import Counts, Histogram, Reading, TargetUnavailable
from housing_serving.releases import Track

TIMEOUT_SECONDS = 5.0
REQUESTS = "housing_release_requests_total"
LATENCY = "housing_release_request_duration_seconds"
PRICES = "housing_release_price_dollars"
DIFFERENCES = "housing_release_price_difference_dollars_total"
SERVING = "housing_models_serving"
UNLOADABLE = "housing_release_unloadable_models"
_TOTALS = (REQUESTS, DIFFERENCES, f"{LATENCY}_bucket", f"{LATENCY}_sum", f"{PRICES}_bucket", f"{PRICES}_sum")


class Series(NamedTuple):
    """One sample's name and labels."""

    name: str
    labels: frozenset[tuple[str, str]]


class FleetMetrics:
    """Reads the processes behind some URLs; those behind one URL answer for each other."""

    def __init__(self, urls: Sequence[str], api_key: str | None = None) -> None:
        self._headers = {"X-API-Key": api_key} if api_key else {}
        self._pages = [f"{url.rstrip('/')}/metrics" for url in urls]
        # Counters begin again with their process: what they had is kept, as Prometheus does.
        self._last: dict[tuple[str, Series], float] = {}
        self._totals: dict[Series, float] = {}

    def serving(self) -> tuple[Mapping[int, float], tuple[str, ...]]:
        """Processes by the version that answers most of their requests, and what is wrong."""
        versions: dict[int, float] = {}
        problems = []
        for page, samples in self._fetch().items():
            if isinstance(samples, str):
                problems.append(samples)
                continue
            for series, value in samples.items():
                labels = dict(series.labels)
                if series.name == SERVING and labels["track"] == "stable" and value:
                    version = int(labels["model_version"])
                    versions[version] = versions.get(version, 0) + value
                if series.name == UNLOADABLE and value:
                    problems.append(
                        f"{value:.0f} process(es) behind {page.removesuffix('/metrics')} cannot load version "
                        f"{labels['model_version']}: their logs and /health/deep say why"
                    )
        return versions, tuple(problems)

    def read(self, stable: int, canary: int | None) -> Reading:
        """What both versions have answered so far.

        Raises:
            TargetUnavailable: no process could be asked.
        """
        fetched = self._fetch()
        problems = [samples for samples in fetched.values() if isinstance(samples, str)]
        if len(problems) == len(fetched):
            raise TargetUnavailable("; ".join(problems) or "no address of an API process is configured")
        unloadable: dict[str, int] = {}
        for page, samples in fetched.items():
            if isinstance(samples, str):
                continue
            self._add(page, samples)
            failing = samples.get(_series(UNLOADABLE, model_version=str(canary)), 0.0)
            if failing:
                unloadable[page.removesuffix("/metrics")] = int(failing)
        return Reading(
            self._counts("stable", stable),
            None if canary is None else self._counts("canary", canary),
            unloadable,
        )

    def _fetch(self) -> dict[str, dict[Series, float] | str]:
        """The samples of each page, or what is wrong with it."""
        if not self._pages:
            return {}
        with ThreadPoolExecutor(len(self._pages)) as threads:
            return dict(zip(self._pages, threads.map(self._samples, self._pages), strict=True))

    def _samples(self, page: str) -> dict[Series, float] | str:
        try:
            answer = requests.get(page, headers=self._headers, timeout=TIMEOUT_SECONDS)
            answer.raise_for_status()
            return dict(_housing_samples(answer.text))
        except (requests.RequestException, ValueError) as error:
            return f"{page} cannot be read ({type(error).__name__}): check that the API runs there"

    def _add(self, page: str, samples: Mapping[Series, float]) -> None:
        for series, value in samples.items():
            if series.name not in _TOTALS:
                continue
            last = self._last.get((page, series), 0.0)
            self._totals[series] = self._totals.get(series, 0.0) + (value if value < last else value - last)
            self._last[page, series] = value

    def _counts(self, track: Track, version: int) -> Counts:
        labels = {"track": track, "model_version": str(version)}
        answered = self._totals.get(_series(REQUESTS, **labels, outcome="ok"), 0.0)
        failed = self._totals.get(_series(REQUESTS, **labels, outcome="error"), 0.0)
        return Counts(
            requests=answered + failed,
            errors=failed,
            latencies=self._histogram(LATENCY, labels),
            prices=self._histogram(PRICES, labels),
            price_difference=self._totals.get(_series(DIFFERENCES, model_version=str(version)), 0.0),
        )

    def _histogram(self, name: str, labels: Mapping[str, str]) -> Histogram:
        cumulative = {}
        for series, value in self._totals.items():
            found = dict(series.labels)
            if series.name == f"{name}_bucket" and labels.items() <= found.items():
                cumulative[float(found["le"])] = value
        # A process that has answered nothing yet shows no buckets at all.
        bounds = np.array(sorted(cumulative) or [1.0, np.inf])
        reached = np.array([cumulative.get(bound, 0.0) for bound in bounds.tolist()])
        return Histogram(
            bounds, np.diff(reached, prepend=0.0), self._totals.get(_series(f"{name}_sum", **labels), 0.0)
        )


def _series(name: str, **labels: str) -> Series:
    return Series(name, frozenset(labels.items()))


def _housing_samples(text: str) -> Iterable[tuple[Series, float]]:
    for family in text_string_to_metric_families(text):
        if family.name.startswith("housing_"):
            for sample in family.samples:
                yield Series(sample.name, frozenset(sample.labels.items())), sample.value
