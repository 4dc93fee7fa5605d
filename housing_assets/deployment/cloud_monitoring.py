"""What Cloud Monitoring counted per revision: requests, errors and latencies.

Asked by the documented `timeSeries.list`, since Google's client speaks gRPC only. The Prometheus interface
would know the service's own metrics, prices among them, but only with a collector in every instance; what
Cloud Run itself measures is there in any case.
"""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import requests
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession

from housing_assets.deployment.cloud_run_api import credentials
from housing_assets.deployment.cloud_run_settings import CloudRunSettings
from housing_assets.deployment.target import Counts, DeploymentError, Histogram, TargetUnavailable
from housing_serving.features import FloatArray

REQUESTS = "run.googleapis.com/request_count"
LATENCIES = "run.googleapis.com/request_latencies"
TIMEOUT_SECONDS = 30.0
NOTHING_YET = Histogram(np.array([1.0, np.inf]), np.zeros(2), 0.0)

Json = Mapping[str, Any]


class CloudMonitoring:
    """Counts from the moment it is made, so that its totals never fall.

    Cloud Run samples once a minute, and what it sampled can be read up to three minutes later.
    """

    def __init__(self, settings: CloudRunSettings) -> None:
        self._settings = settings
        self._since = datetime.now(UTC)
        self._session = AuthorizedSession(credentials(settings))
        self._asked_at = -np.inf
        self._series: tuple[list[Json], list[Json]] = ([], [])

    def counts(self, revision: str) -> Counts:
        """What a revision has answered.

        Raises:
            TargetUnavailable: Cloud Monitoring cannot be asked now.
            DeploymentError: whoever deploys may not ask it.
        """
        if time.monotonic() - self._asked_at >= self._settings.metrics_seconds:
            self._series = (self._list(REQUESTS), self._list(LATENCIES))
            self._asked_at = time.monotonic()
        answered, latencies = ([item for item in series if _of(item, revision)] for series in self._series)
        errors = sum(_total(item) for item in answered if _class(item) == "5xx")
        return Counts(sum(map(_total, answered)), errors, _histogram(latencies))

    def _list(self, metric: str) -> list[Json]:
        # Without aggregation: aligned periods would move with every look, and totals with them.
        labels = {"service_name": self._settings.service, "location": self._settings.region}
        resource = " AND ".join(f'resource.labels.{name}="{value}"' for name, value in labels.items())
        parameters = {
            # What callers did wrong says nothing about a version, and would hide what went wrong in it.
            "filter": f'metric.type="{metric}" AND resource.type="cloud_run_revision" AND {resource} '
            'AND metric.labels.response_code_class!="4xx"',
            "interval.startTime": self._since.isoformat(),
            "interval.endTime": datetime.now(UTC).isoformat(),
        }
        found: list[Json] = []
        while True:
            page = self._get(parameters)
            found += page.get("timeSeries", [])
            if not page.get("nextPageToken"):
                return found
            parameters["pageToken"] = page["nextPageToken"]

    def _get(self, parameters: Mapping[str, str]) -> Json:
        project = self._settings.project
        url = f"{self._settings.monitoring_endpoint.rstrip('/')}/v3/projects/{project}/timeSeries"
        try:
            answer = self._session.get(url, params=parameters, timeout=TIMEOUT_SECONDS)
            if answer.status_code == 403:
                raise DeploymentError(
                    f"cannot read the metrics of {project}: grant whoever deploys roles/monitoring.viewer, "
                    f"and enable monitoring.googleapis.com ({answer.text[:200]})"
                )
            answer.raise_for_status()
            page: Json = answer.json()
        except (requests.RequestException, GoogleAuthError, ValueError) as error:
            raise TargetUnavailable(f"Cloud Monitoring cannot be asked now: {error}") from error
        return page


def _of(series: Json, revision: str) -> bool:
    return bool(series["resource"]["labels"]["revision_name"] == revision)


def _class(series: Json) -> str:
    return str(series["metric"].get("labels", {}).get("response_code_class", ""))


def _total(series: Json) -> float:
    return sum(float(point["value"]["int64Value"]) for point in series["points"])


def _histogram(series: Iterable[Json]) -> Histogram:
    """The sum of all distributions, which Cloud Run measures in milliseconds."""
    summed = NOTHING_YET
    for point in (point for item in series for point in item["points"]):
        value = point["value"]["distributionValue"]
        if not int(value.get("count", 0)):
            continue
        bounds = upper_bounds(value["bucketOptions"]) / 1000
        counts = np.zeros(len(bounds))
        found = [float(count) for count in value.get("bucketCounts", [])]
        # Trailing buckets without any are left out.
        counts[: len(found)] = found
        total = float(value.get("mean", 0.0)) * float(value["count"]) / 1000
        if not summed.size:
            summed = Histogram(bounds, counts, total)
        elif np.array_equal(summed.bounds, bounds):
            summed = Histogram(bounds, summed.counts + counts, summed.total + total)
        else:
            raise TargetUnavailable("Cloud Monitoring changed the buckets of its latencies: start again")
    return summed


def upper_bounds(options: Json) -> FloatArray:
    """The upper bounds of a distribution's buckets, infinity last."""
    if "exponentialBuckets" in options:
        spec = options["exponentialBuckets"]
        powers = np.arange(int(spec["numFiniteBuckets"]) + 1)
        finite = float(spec["scale"]) * float(spec["growthFactor"]) ** powers
    elif "linearBuckets" in options:
        spec = options["linearBuckets"]
        finite = float(spec.get("offset", 0)) + float(spec["width"]) * np.arange(
            int(spec["numFiniteBuckets"]) + 1
        )
    else:
        finite = np.array([float(bound) for bound in options["explicitBuckets"]["bounds"]])
    return np.append(finite, np.inf)
