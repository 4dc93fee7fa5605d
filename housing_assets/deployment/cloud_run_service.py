"""A Cloud Run service as a release sees it: its record, its routes, and the template of its revisions.

Google's types take half a second to import, so this module is imported when Cloud Run is the target.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.cloud import run_v2
from google.protobuf import duration_pb2

from housing_assets.deployment.cloud_run_settings import CloudRunSettings
from housing_assets.deployment.target import DeploymentError
from housing_serving.releases import ReleaseRecord, ReleaseUnreadable

# The record lies beside the traffic, so that one guarded update changes both or neither.
RECORD_ANNOTATION = "housing-release"
VERSION_LABEL = "housing-model-version"
CONFIGURATION_LABEL = "housing-configuration"
PORT = 8080
PROBE_SECONDS = 5
# The longest that Cloud Run lets a startup probe go on.
LONGEST_START_SECONDS = 240
INGRESS = {
    "internal": "INGRESS_TRAFFIC_INTERNAL_ONLY",
    "internal-and-cloud-load-balancing": "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER",
    "all": "INGRESS_TRAFFIC_ALL",
}


@dataclass(frozen=True)
class Route:
    """One revision's share of the traffic, in whole percent, and the tag it answers by in any case."""

    revision: str
    percent: int = 0
    tag: str = ""
    url: str = ""

    @property
    def version(self) -> int | None:
        """The model version of a revision that a release has put there."""
        found = re.fullmatch(r"v(\d+)", self.tag)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class Deployed:
    """The service as it was read.

    Attributes:
        service: What the Admin API said.
        record: What was released; None before the first release.
        wanted: The traffic as it was asked for.
        reached: The traffic as it flows.
    """

    service: Any
    record: ReleaseRecord | None
    wanted: tuple[Route, ...]
    reached: tuple[Route, ...]

    @property
    def url(self) -> str:
        """Where the service answers."""
        return str(self.service.uri)

    @property
    def problem(self) -> str | None:
        """What Cloud Run says is wrong with it."""
        condition = self.service.terminal_condition
        return str(condition.message) if condition.state.name == "CONDITION_FAILED" else None

    def route(self, version: int) -> Route | None:
        """The route that was asked for a version."""
        return next((route for route in self.wanted if route.version == version), None)

    def tag_url(self, version: int) -> str:
        """Where the version's revision alone answers.

        Raises:
            DeploymentError: nowhere.
        """
        for route in self.reached:
            if route.version == version and route.url:
                return route.url
        raise DeploymentError(f"Cloud Run gave the revision of version {version} no tag URL: try again")


def deployed(service: Any) -> Deployed:  # noqa: ANN401  (Google's types are not checked)
    """Read what the Admin API says of the service.

    Raises:
        DeploymentError: the release record in its annotations is none.
    """
    data = service.annotations.get(RECORD_ANNOTATION)
    try:
        origin = f"annotation {RECORD_ANNOTATION} of {service.name}"
        record = ReleaseRecord.parse(data.encode(), origin) if data else None
    except ReleaseUnreadable as error:
        raise DeploymentError(str(error)) from error
    latest = service.latest_ready_revision
    # Without any target, Cloud Run sends everything to the latest revision that is ready.
    targets = service.traffic or [run_v2.TrafficTarget(percent=100)]
    wanted = tuple(_route(target, latest) for target in targets if target.revision or latest)
    return Deployed(
        service, record, wanted, tuple(_route(status, latest) for status in service.traffic_statuses)
    )


def _route(target: Any, latest: str) -> Route:  # noqa: ANN401  (a target or a status)
    # A route to "the latest" would let the next revision have the traffic before it was tried out.
    revision = short_name(target.revision or latest)
    return Route(revision, target.percent, target.tag, getattr(target, "uri", ""))


def tag_of(version: int) -> str:
    """The tag of a version's revision."""
    return f"v{version}"


def shares(routes: Iterable[Route]) -> dict[str, int]:
    """Percent by revision, of those that get any."""
    percents: dict[str, int] = {}
    for route in routes:
        if route.percent:
            percents[route.revision] = percents.get(route.revision, 0) + route.percent
    return percents


def short_name(path: str) -> str:
    """A resource's own name, of its full one."""
    return path.rpartition("/")[2]


def traffic(routes: Iterable[Route]) -> list[Any]:
    """Routes as the Admin API takes them."""
    kind = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
    return [
        run_v2.TrafficTarget(type_=kind, revision=route.revision, percent=route.percent, tag=route.tag)
        for route in routes
    ]


def template(settings: CloudRunSettings, version: int, revision: str) -> Any:  # noqa: ANN401  (Google's type)
    """What a revision is made of: the service's image, pinned to one model version."""
    made = _template(settings, version)
    made.revision = revision
    made.labels = {VERSION_LABEL: str(version), CONFIGURATION_LABEL: configuration(settings, version)}
    return made


def configuration(settings: CloudRunSettings, version: int) -> str:
    """A short hash of everything a version's revision is made of."""
    return hashlib.sha256(run_v2.RevisionTemplate.to_json(_template(settings, version)).encode()).hexdigest()[
        :16
    ]


def _template(settings: CloudRunSettings, version: int) -> Any:  # noqa: ANN401  (Google's type)
    tries = max(1, round(min(settings.ready_seconds, LONGEST_START_SECONDS) / PROBE_SECONDS))
    container = run_v2.Container(
        image=settings.image,
        ports=[run_v2.ContainerPort(container_port=PORT)],
        env=[run_v2.EnvVar(name=name, value=value) for name, value in environment(settings, version).items()],
        resources=run_v2.ResourceRequirements(
            limits={"cpu": settings.cpu, "memory": settings.memory},
            # The prediction log is written after the answers, when a throttled instance would stand still.
            cpu_idle=False,
            startup_cpu_boost=True,
        ),
        # Ready means that the version is loaded: no request meets a revision that has no model yet.
        startup_probe=run_v2.Probe(
            http_get=run_v2.HTTPGetAction(path="/health/ready", port=PORT),
            period_seconds=PROBE_SECONDS,
            timeout_seconds=PROBE_SECONDS,
            failure_threshold=tries,
        ),
        liveness_probe=run_v2.Probe(http_get=run_v2.HTTPGetAction(path="/health", port=PORT)),
    )
    return run_v2.RevisionTemplate(
        containers=[container],
        scaling=run_v2.RevisionScaling(max_instance_count=settings.max_instances),
        service_account=settings.service_account or "",
        timeout=duration_pb2.Duration(seconds=60),
    )


def environment(settings: CloudRunSettings, version: int) -> dict[str, str]:
    """The variables that pin a revision to its version.

    There is no MLFLOW_TRACKING_URI: the registry's alias would win over the pinned version.
    """
    return {
        "HOUSING_DEPLOYMENT": "gcp",
        "GCP_PROJECT_ID": settings.project,
        "GCS_BUCKET_NAME": settings.bucket,
        "GCS_MODEL_PATH": f"models/{settings.model_name}/{version}",
        "MLFLOW_MODEL_NAME": settings.model_name,
        "HOST": "0.0.0.0",  # noqa: S104  (of the container; what gets there, ingress and IAM decide)
    }


def apply_settings(service: Any, settings: CloudRunSettings) -> tuple[str, ...]:  # noqa: ANN401  (Google's type)
    """Put what is configured for the whole service into it; returns the names of those fields."""
    service.ingress = run_v2.IngressTraffic[INGRESS[settings.ingress]]
    service.invoker_iam_disabled = False
    # Of the service: minimum instances of a revision would run for every tag that is kept for rollback.
    service.scaling = run_v2.ServiceScaling(min_instance_count=settings.min_instances)
    return ("ingress", "invoker_iam_disabled", "scaling")
