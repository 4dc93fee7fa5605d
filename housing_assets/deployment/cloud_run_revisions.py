"""Which revision stands for a model version, and how traffic is led to it."""

import re
from contextlib import suppress
from dataclasses import dataclass, replace

from housing_assets.deployment.cloud_run_api import CloudRunApi
from housing_assets.deployment.cloud_run_errors import OperationFailed
from housing_assets.deployment.cloud_run_service import (
    CONFIGURATION_LABEL,
    VERSION_LABEL,
    Deployed,
    Route,
    configuration,
    shares,
    tag_of,
)
from housing_assets.deployment.cloud_run_settings import CloudRunSettings
from housing_assets.deployment.target import DeploymentConflict, DeploymentError
from housing_serving.releases import ReleaseRecord

# How often a change is tried again that somebody else's got in the way of, without being a release.
ATTEMPTS = 5


@dataclass(frozen=True)
class Plan:
    """A version's revision, and what is still to be done for it.

    Attributes:
        version: The version.
        revision: The revision's name.
        exists: Whether it was made already, by a deployment that was interrupted or an earlier one.
        routed: Whether it has its tag.
    """

    version: int
    revision: str
    exists: bool
    routed: bool


class Revisions:
    """The revisions of one service."""

    def __init__(self, api: CloudRunApi, settings: CloudRunSettings) -> None:
        self._api = api
        self._settings = settings

    def of(self, seen: Deployed, version: int) -> str:
        """The revision that a released version has.

        Raises:
            DeploymentError: none is left.
        """
        route = seen.route(version)
        if route is not None:
            return route.revision
        for name, labels, failed in self._api.revisions():
            if labels.get(VERSION_LABEL) == str(version) and not failed:
                return name
        raise DeploymentError(
            f"{self._settings.service} has no revision of version {version} any more: deploy that one again"
        )

    def plan(self, seen: Deployed | None, version: int) -> Plan:
        """Which revision is to stand for a version: one that is there, or else a new one."""
        if seen is None:
            return Plan(version, self._name(version, 1), exists=False, routed=False)
        route = seen.route(version)
        if route is not None and seen.record is not None and version in seen.record.previous_versions:
            return Plan(version, route.revision, exists=True, routed=True)  # it has served
        found = self._api.revisions()
        wanted = {VERSION_LABEL: str(version), CONFIGURATION_LABEL: configuration(self._settings, version)}
        for name, labels, failed in found:
            if wanted.items() <= labels.items() and not failed:
                return Plan(version, name, exists=True, routed=route is not None and route.revision == name)
        # A name cannot be used twice, not even for a revision that never became ready.
        pattern = re.compile(rf"{re.escape(self._settings.service)}-v{version}-(\d+)")
        attempts = [int(match[1]) for name, _, _ in found if (match := pattern.fullmatch(name))]
        return Plan(version, self._name(version, max(attempts, default=0) + 1), exists=False, routed=False)

    def add(self, seen: Deployed | None, version: int, attempts: int = ATTEMPTS) -> Plan:
        """Make a version's revision and give it its tag, and no traffic; it may not become ready.

        Raises:
            DeploymentConflict: somebody else released something meanwhile.
        """
        if seen is not None and seen.record is None and seen.service.reconciling:
            seen = self._api.settled()  # another first release may be about to make the service
        plan = self.plan(seen, version)
        try:
            self._add(seen, plan)
        except OperationFailed:
            return plan  # waiting for the revision says more about it
        except DeploymentConflict:
            now = self._api.settled()
            route = now.route(version) if now else None
            if route is not None and route.revision == plan.revision:
                return plan  # the answer to a first try got lost
            if attempts == 1 or _record(now) != _record(seen):
                raise
            return self.add(now, version, attempts - 1)
        return plan

    def _add(self, seen: Deployed | None, plan: Plan) -> None:
        if seen is None:
            # There is no service without a revision that gets everything.
            first = Route(plan.revision, 100, tag_of(plan.version))
            self._api.create(plan.version, plan.revision, first)
        elif not plan.routed:
            made = None if plan.exists else (plan.version, plan.revision)
            self._api.update(seen, _with_tag(seen, plan), seen.record, made)

    def remove(self, version: int, attempts: int = ATTEMPTS) -> None:
        """Take the tag of a version that was not released away again."""
        seen = self._api.read()
        route = seen.route(version) if seen else None
        if seen is None or route is None or route.percent:
            return
        if seen.record is not None and version in _released(seen.record):
            return
        try:
            self._change(seen, tuple(other for other in seen.wanted if other != route), seen.record)
        except DeploymentConflict:
            if attempts == 1:
                raise
            self.remove(version, attempts - 1)

    def lead(self, seen: Deployed, record: ReleaseRecord, attempts: int = ATTEMPTS) -> None:
        """Lead the traffic as a record says, and keep the record; if Cloud Run cannot, both are put back.

        Raises:
            DeploymentConflict: somebody else released something meanwhile; nothing was done.
            OperationFailed: Cloud Run could not carry it out.
        """
        try:
            self._change(seen, self._routes(seen, record), record)
        except DeploymentConflict:
            now = self._api.read()
            # Who only prepares a revision, or changes something else, is not in the way.
            if attempts == 1 or now is None or now.record != seen.record:
                raise
            self.lead(now, record, attempts - 1)
        except OperationFailed:
            with suppress(DeploymentError):
                self.put_back(seen, record)
            raise

    def is_current(self, seen: Deployed, version: int) -> bool:
        """Whether all the traffic of a version goes to a revision of today's values."""
        plan = self.plan(seen, version)
        return plan.routed and shares(seen.wanted).get(plan.revision, 0) > 0

    def put_back(self, before: Deployed, record: ReleaseRecord | None) -> None:
        """Lead the traffic as it was, unless somebody else has changed the record meanwhile."""
        now = self._api.read()
        if now is not None and now.record == record:
            self._change(now, before.wanted, before.record)

    def _change(self, seen: Deployed, routes: tuple[Route, ...], record: ReleaseRecord | None) -> None:
        try:
            self._api.update(seen, routes, record)
        except (DeploymentConflict, OperationFailed):
            # The answer got lost, or it is not the traffic that is wrong with the service: a revision that
            # never became ready stays its latest one.
            now = self._api.read()
            if now is None or now.record != record or shares(now.wanted) != shares(routes):
                raise
            now = self._api.settled()
            if now is None or shares(now.reached) != shares(routes):
                raise

    def _routes(self, seen: Deployed, record: ReleaseRecord) -> tuple[Route, ...]:
        canary = round(record.canary_percent)
        percents = {record.stable_version: 100 - canary}
        if record.canary_version is not None:
            percents[record.canary_version] = canary
        routes = [
            Route(self.of(seen, version), share, tag_of(version)) for version, share in percents.items()
        ]
        # Those before keep their tag, so that rollback finds them; so do tags that people have set.
        for route in seen.wanted:
            kept = route.version in record.previous_versions if route.version else route.tag
            if kept and route.version not in percents:
                routes.append(replace(route, percent=0))
        return tuple(routes)

    def _name(self, version: int, attempt: int) -> str:
        return f"{self._settings.service}-v{version}-{attempt}"


def _record(seen: Deployed | None) -> ReleaseRecord | None:
    return seen.record if seen else None


def _released(record: ReleaseRecord) -> set[int | None]:
    """The versions that a record names as serving, now or before."""
    return {record.stable_version, record.canary_version, *record.previous_versions}


def _with_tag(seen: Deployed, plan: Plan) -> tuple[Route, ...]:
    tag = tag_of(plan.version)
    if seen.record is None and not seen.service.latest_ready_revision:
        return (Route(plan.revision, 100, tag),)  # nothing serves there that could keep the traffic
    others = [replace(route, tag="") if route.tag == tag else route for route in seen.wanted]
    return (*(route for route in others if route.percent or route.tag), Route(plan.revision, 0, tag))
