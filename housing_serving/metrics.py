"""What the service says about itself to Prometheus, right with one process and with several.

With several, PROMETHEUS_MULTIPROC_DIR names a folder that is theirs alone, set before this module is
imported: each process keeps its numbers there, and whichever answers a scrape adds them up.
"""

import os
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from housing_serving.answers import AnswerBatch
from housing_serving.features import (
    CATEGORICAL_FEATURE,
    CATEGORIES,
    NULLABLE_FEATURE,
    NUMERIC_FEATURES,
    FloatArray,
)
from housing_serving.model_slot import SourceState, SourceStatus
from housing_serving.prediction import Priced
from housing_serving.releases import Track
from housing_serving.sources import LoadedModel

# How the gauges of several processes become one.
GaugeMode = Literal["livemax", "livesum", "livemostrecent"]

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# The route of every path that no route matches: a scanner must not be able to make new series.
UNMATCHED = "unmatched"
SOURCE_STATES: tuple[str, ...] = get_args(SourceState)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"

# Seconds: an answer in process takes a fraction of a millisecond, a client gives up after ten seconds.
LATENCY_BOUNDS = (
    *(0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
COUNT_BOUNDS = (30, 100, 200, 300, 400, 500, 650, 800, 1000, 1500, 2500, 5000)
# Dense where Californian block groups are: fixed, so that any two periods can be compared.
FEATURE_BOUNDS: dict[str, Sequence[float]] = {
    "longitude": range(-124, -113),
    "latitude": range(33, 43),
    "housing_median_age": (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 52, 80),
    "total_rooms": (100, 500, 1000, 1500, 2000, 2500, 3000, 4000, 5000, 7500, 10_000, 20_000),
    "total_bedrooms": COUNT_BOUNDS,
    "population": (100, 300, 500, 800, 1000, 1200, 1500, 2000, 3000, 5000, 10_000),
    "households": COUNT_BOUNDS,
    "median_income": (1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8, 10, 15),
}
# Dollars.
PRICE_BOUNDS = (
    *(50_000, 75_000, 100_000, 125_000, 150_000, 175_000, 200_000),
    *(250_000, 300_000, 350_000, 400_000, 450_000, 500_000, 750_000),
)


class BulkHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def observe_many(self, amounts: FloatArray) -> None:
        """The same as `observe` with each of them."""
        # A bucket holds what is at most its bound; NaN, sorted last, is in none.
        places = np.searchsorted(self._upper_bounds, amounts, side="left")
        counts = np.bincount(places, minlength=len(self._buckets) + 1)[: len(self._buckets)]
        self._sum.inc(float(amounts.sum()))
        for place in np.flatnonzero(counts).tolist():
            self._buckets[place].inc(float(counts[place]))


class _AllProcesses(MultiProcessCollector):
    """The numbers of all processes that share the folder, gauges only of those that still run."""

    def __init__(self, registry: CollectorRegistry, folder: Path) -> None:
        super().__init__(registry, str(folder))  # type: ignore[no-untyped-call]
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Everything in the folder, added up."""
        _forget_processes(self._folder, lambda pid: not _runs(pid))
        # A file is empty for the moment between its creation and its first entry.
        files = [str(path) for path in self._folder.glob("*.db") if _size(path)]
        metrics: Iterable[Metric] = self.merge(files)  # type: ignore[no-untyped-call]
        return metrics


def _forget_processes(folder: Path, chosen: Callable[[int], bool]) -> None:
    """Drop the live gauges of some processes. What was counted stays: a total never goes down."""
    for path in folder.glob("gauge_live*_*.db"):
        if chosen(int(path.stem.rpartition("_")[2])):
            path.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        # Its id may belong to another user's process by now.
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        # Another process has just forgotten a third one.
        return 0


class Metrics:
    """The metrics of one process, one instance in each; `exposition` is that of all processes.

    Raises:
        RuntimeError: PROMETHEUS_MULTIPROC_DIR was set or unset after prometheus_client was imported.
    """

    def __init__(self) -> None:
        folder = os.environ.get(MULTIPROCESS_FOLDER)
        self._folder = Path(folder) if folder else None
        if bool(folder) != values.ValueClass._multiprocess:
            raise RuntimeError(
                f"set {MULTIPROCESS_FOLDER} before prometheus_client is imported, then leave it"
            )
        # The time at which a series began doubles the exposition, and only exists with one process.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        if self._folder is not None:
            # A process that had the same id may have left its gauges.
            self.close()
            self._exposed = CollectorRegistry()
            _AllProcesses(self._exposed, self._folder)
        else:
            self._exposed = self._registry
            ProcessCollector(registry=self._registry)
        self._define_request_metrics()
        self._define_model_metrics()
        self._define_release_metrics()
        self._define_answer_metrics()
        self._define_log_metrics()

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, text, labels, namespace="housing", registry=self._registry)

    def _gauge(self, name: str, text: str, mode: GaugeMode, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(name, text, labels, namespace="housing", registry=self._registry, multiprocess_mode=mode)

    def _histogram(
        self, name: str, text: str, bounds: Sequence[float], labels: Sequence[str] = ()
    ) -> BulkHistogram:
        return BulkHistogram(name, text, labels, namespace="housing", registry=self._registry, buckets=bounds)

    def _define_request_metrics(self) -> None:
        self._requests = self._counter("requests", "Answered HTTP requests.", ("method", "route", "status"))
        self._latency = self._histogram(
            "request_duration_seconds", "Time from request to answer.", LATENCY_BOUNDS, ("route",)
        )
        self._in_flight = self._gauge("requests_in_flight", "Requests that are being answered.", "livesum")
        # Looking up label children costs more than counting.
        self._request_series: dict[tuple[str, str, int], tuple[Counter, BulkHistogram]] = {}

    def _define_model_metrics(self) -> None:
        self._model_info = self._gauge(
            "model_info",
            "1 for the model that answers, 0 for those it replaced.",
            "livemax",
            ("version", "source", "snapshot", "algorithm"),
        )
        self._models_loaded = self._gauge("models_loaded", "Processes that have a model.", "livesum")
        self._model_created = self._gauge(
            "model_created_timestamp_seconds",
            "When the model that answers was trained; NaN without one.",
            "livemostrecent",
        )
        self._model_loaded = self._gauge(
            "model_loaded_timestamp_seconds",
            "When the model that answers was loaded; NaN without one.",
            "livemostrecent",
        )
        self._source_state = self._gauge(
            "source_state", "1 for the state a model source is in.", "livemostrecent", ("source", "state")
        )
        self._current_model: Gauge | None = None
        self._models_loaded.set(0)
        if self._folder is None:
            # Zero would be an age of half a century. Several processes show nothing until it is set.
            self._model_created.set(float("nan"))
            self._model_loaded.set(float("nan"))

    def _define_release_metrics(self) -> None:
        self._serving = self._gauge(
            "models_serving", "Processes by the versions they serve.", "livesum", ("track", "model_version")
        )
        self._unloadable = self._gauge(
            "release_unloadable_models",
            "Processes that cannot load a version the release record names.",
            "livesum",
            ("model_version",),
        )
        self._track_requests = self._counter(
            "release_requests",
            "Requests while there is a canary, by who was to answer and whether it did.",
            ("track", "model_version", "outcome"),
        )
        self._track_latency = self._histogram(
            "release_request_duration_seconds",
            "Time to price a request while there is a canary, by who was to do it.",
            LATENCY_BOUNDS,
            ("track", "model_version"),
        )
        self._track_prices = self._histogram(
            "release_price_dollars",
            "Prices of what the canary was asked, as both versions predict them.",
            PRICE_BOUNDS,
            ("track", "model_version"),
        )
        self._track_differences = self._counter(
            "release_price_difference_dollars",
            "Sum of the absolute differences between the two versions' prices of what the canary was asked.",
            ("model_version",),
        )
        self._served: dict[Track, str] = {}
        self._not_loaded: set[str] = set()

    def _define_answer_metrics(self) -> None:
        self._predictions = self._counter("predictions", "Priced instances.", ("model_version",))
        self._explanations = self._counter("explanations", "Explained instances.", ("model_version",))
        self._prediction_series: dict[str, Counter] = {}
        self._features = {
            name: self._histogram(f"feature_{name}", f"Values of {name} as sent.", FEATURE_BOUNDS[name])
            for name in NUMERIC_FEATURES
        }
        self._nulls = self._counter(
            f"feature_{NULLABLE_FEATURE}_null", f"Instances without {NULLABLE_FEATURE}."
        )
        self._categories = self._counter(
            f"feature_{CATEGORICAL_FEATURE}", f"Instances by {CATEGORICAL_FEATURE}.", ("category",)
        )
        self._prices = self._histogram("predicted_price_dollars", "Predicted prices.", PRICE_BOUNDS)

    def _define_log_metrics(self) -> None:
        self._log_written = self._counter("prediction_log_written_rows", "Rows stored.")
        self._log_dropped = self._counter(
            "prediction_log_dropped_rows", "Rows that will never be stored.", ("reason",)
        )
        self._log_failures = self._counter("prediction_log_failed_writes", "Attempts to store that failed.")
        self._log_buffered = self._gauge(
            "prediction_log_buffered_rows", "Rows in memory that are still to be stored.", "livesum"
        )

    def request_started(self) -> None:
        """A request has arrived."""
        self._in_flight.inc()

    def request_finished(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request that had started was answered, or given up.

        Args:
            method: The HTTP method; unusual ones are counted together.
            route: The template of the route, `UNMATCHED` where there is none.
            status: The HTTP status.
            seconds: From its start to the end of its answer.
        """
        self._in_flight.dec()
        try:
            requests, latency = self._request_series[method, route, status]
        except KeyError:
            requests, latency = self._new_request_series(method, route, status)
        requests.inc()
        latency.observe(seconds)

    def _new_request_series(self, method: str, route: str, status: int) -> tuple[Counter, BulkHistogram]:
        name = method if method in METHODS else OTHER
        series = self._requests.labels(name, route, str(status)), self._latency.labels(route)
        if name == method:
            # Methods that a client makes up must not fill the memory either.
            self._request_series[method, route, status] = series
        return series

    def predicted(self, version: str, count: int) -> None:
        """So many instances were priced by this model version."""
        try:
            series = self._prediction_series[version]
        except KeyError:
            series = self._prediction_series[version] = self._predictions.labels(version)
        series.inc(count)

    def explained(self, version: str, count: int) -> None:
        """The prices of so many instances were explained by this model version."""
        self._explanations.labels(version).inc(count)

    def observe_answers(self, batch: AnswerBatch) -> None:
        """Distributions of what was asked and answered. Not for the event loop: it takes its time."""
        for name, histogram in self._features.items():
            amounts = batch.columns[name]
            if name == NULLABLE_FEATURE:
                known = ~np.isnan(amounts)
                self._nulls.inc(int(len(amounts) - known.sum()))
                amounts = amounts[known]
            histogram.observe_many(amounts)
        for category, count in Tally(batch.columns[CATEGORICAL_FEATURE].tolist()).items():
            self._categories.labels(category if category in CATEGORIES else OTHER).inc(count)
        self._prices.observe_many(batch.price)

    def model_changed(self, model: LoadedModel) -> None:
        """From now on this model answers."""
        manifest = model.bundle.manifest
        current = self._model_info.labels(
            str(manifest.model_version), model.source, manifest.snapshot, manifest.algorithm
        )
        if self._current_model is not None:
            self._current_model.set(0)
        current.set(1)
        self._current_model = current
        self._models_loaded.set(1)
        self._serves("stable", model)
        self._model_created.set(manifest.created_at.timestamp())
        self._model_loaded.set(time.time())

    def release_changed(self, stable: LoadedModel, canary: LoadedModel | None) -> None:
        """From now on these versions answer."""
        self._serves("stable", stable)
        self._serves("canary", canary)

    def release_failed(self, versions: Iterable[int]) -> None:
        """These versions, and no others, are to be served and cannot be loaded."""
        failed = {str(version) for version in versions}
        for version in failed ^ self._not_loaded:
            self._unloadable.labels(version).set(version in failed)
        self._not_loaded = failed

    def tracked(self, track: Track, model: LoadedModel, seconds: float) -> None:
        """A request was priced, while there is a canary."""
        labels = track, _version(model)
        self._track_requests.labels(*labels, "ok").inc()
        self._track_latency.labels(*labels).observe(seconds)

    def compared(self, canary: Priced, stable: LoadedModel, price: FloatArray) -> None:
        """What the canary has priced, the stable version prices so."""
        version = _version(canary.model)
        self._track_prices.labels("canary", version).observe_many(canary.predictions.price)
        self._track_prices.labels("stable", _version(stable)).observe_many(price)
        difference = float(np.abs(canary.predictions.price - price).sum())
        self._track_differences.labels(version).inc(difference)

    def track_failed(self, track: Track, model: LoadedModel, seconds: float) -> None:
        """A request could not be priced by whom it should have been, while there is a canary."""
        labels = track, _version(model)
        self._track_requests.labels(*labels, "error").inc()
        self._track_latency.labels(*labels).observe(seconds)

    def _serves(self, track: Track, model: LoadedModel | None) -> None:
        version = _version(model) if model else None
        before = self._served.get(track)
        if before == version:
            return
        if before is not None:
            self._serving.labels(track, before).set(0)
            del self._served[track]
        if version is not None:
            self._serving.labels(track, version).set(1)
            self._served[track] = version

    def sources_changed(self, sources: Sequence[SourceStatus]) -> None:
        """The model sources are in these states; of several processes the last one to say so counts."""
        for source in sources:
            for state in SOURCE_STATES:
                self._source_state.labels(source.name, state).set(state == source.state)

    def log_written(self, rows: int) -> None:
        """Rows of the prediction log were stored."""
        self._log_written.inc(rows)

    def log_dropped(self, reason: str, rows: int) -> None:
        """Rows of the prediction log are lost."""
        self._log_dropped.labels(reason).inc(rows)

    def log_write_failed(self) -> None:
        """An attempt to store rows failed; they are kept for another."""
        self._log_failures.inc()

    def log_buffered(self, rows: int) -> None:
        """So many rows are waiting to be stored."""
        self._log_buffered.set(rows)

    def exposition(self) -> tuple[bytes, str]:
        """The metrics of all processes as Prometheus reads them, and their content type.

        It takes milliseconds; not for the event loop.
        """
        return generate_latest(self._exposed), CONTENT_TYPE_PLAIN_0_0_4

    def close(self) -> None:
        """This process ends: its share of the gauges goes, what it counted stays."""
        if self._folder is not None:
            own = os.getpid()
            _forget_processes(self._folder, lambda pid: pid == own)


def _version(model: LoadedModel) -> str:
    return str(model.bundle.manifest.model_version)
