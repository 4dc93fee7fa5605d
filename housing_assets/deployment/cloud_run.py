"""Cloud Run: one revision per model version, and the platform's traffic split instead of a fleet's record.

The record of what was released lies in the service's annotations: one update, guarded by the service's etag,
changes traffic and record or neither.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from housing_assets.deployment.cloud_run_settings import CloudRunSettings
from housing_assets.deployment.cloud_run_smoke import id_token, smoke_test
from housing_assets.deployment.release_record import promoted, rolled_back, with_canary, without_canary
from housing_assets.deployment.target import (
    DeploymentConflict,
    DeploymentError,
    Reading,
    TargetStatus,
    TargetUnavailable,
    refuse_other_stable,
    trial_goes_on,
)
from housing_serving.releases import Change, ReleaseRecord

if TYPE_CHECKING:
    from housing_assets.deployment.cloud_run_service import Deployed

# What is said of a change; annotations are no place for long texts.
MAX_REASON = 300
# How often a withdrawal is tried again that somebody else's change got in the way of.
WITHDRAW_ATTEMPTS = 5


class CloudRunTarget:
    """Deploys revisions of one Cloud Run service.

    The first release, where there is no service yet, has to give its revision all the traffic: there is no
    service without. Who may call is granted only when that revision has passed its smoke test.
    """

    name = "cloud-run"

    def __init__(self, settings: CloudRunSettings) -> None:
        # Google's clients take half a second to import.
        from housing_assets.deployment.cloud_monitoring import CloudMonitoring  # noqa: PLC0415
        from housing_assets.deployment.cloud_run_api import CloudRunApi  # noqa: PLC0415
        from housing_assets.deployment.cloud_run_revisions import Revisions  # noqa: PLC0415

        self._settings = settings
        self._api = CloudRunApi(settings)
        self._revisions = Revisions(self._api, settings)
        self._metrics = CloudMonitoring(settings)

    def status(self) -> TargetStatus:
        """What was released, and where the traffic really goes, in percent."""
        seen = self._api.read()
        if seen is None:
            return TargetStatus(stable=None)
        serving: dict[int, float] = {}
        problems = [seen.problem] if seen.problem else []
        for route in (route for route in seen.reached if route.percent):
            if route.version is None:
                problems.append(
                    f"{route.percent} % of the traffic goes to {route.revision}, which was not released"
                )
            else:
                serving[route.version] = serving.get(route.version, 0.0) + route.percent
        record = seen.record
        return TargetStatus(
            stable=record.stable_version if record else None,
            canary=record.canary_version if record else None,
            canary_percent=record.canary_percent if record else 0.0,
            previous=record.previous_version if record else None,
            canary_owner=record.canary_owner if record else None,
            serving=serving,
            url=seen.url or None,
            problems=tuple(problems),
        )

    def start_canary(
        self, version: int, percent: float, *, stable: int | None, owner: str, change: Change
    ) -> None:
        """Make a revision of the version, test it by its tag URL, and give it a share of the traffic.

        Cloud Run splits in whole percent: at least one.
        """
        seen = self._api.read()
        record = seen.record if seen else None
        if record is not None and (record.canary_version, record.canary_owner) == (version, owner):
            return  # this deployment's own, from before it was interrupted
        _refuse_other(record, stable)
        if record is not None and record.stable_version == version:
            raise DeploymentError(f"version {version} serves already, there is nothing to try out")
        with self._prepared(seen, version, stable) as prepared:
            if prepared.record is not None:
                share = min(max(round(percent), 1), 100)
                self._revisions.lead(prepared, with_canary(prepared.record, share, owner, _short(change)))

    def read(self) -> Reading:
        """What Cloud Monitoring counted; it knows no prices."""
        seen, record = self._released()
        canary = record.canary_version
        stable_revision = self._revisions.of(seen, record.stable_version)
        return Reading(
            self._metrics.counts(stable_revision),
            None if canary is None else self._metrics.counts(self._revisions.of(seen, canary)),
        )

    def promote(self, version: int, *, stable: int | None, owner: str | None, change: Change) -> None:
        """Let a version's revision answer everything; one that is no canary is made and tested first."""
        seen = self._api.read()
        record = seen.record if seen else None
        served = (record.stable_version, record.canary_version) if record is not None else None
        if seen is not None and record is not None and served == (version, None):
            return self._renew(seen, record, change)
        if seen is not None and record is not None and record.canary_version is not None:
            _refuse_other_stable(record, stable)
            if owner is None or (record.canary_version, record.canary_owner) != (version, owner):
                raise trial_goes_on(record.canary_version, record.canary_owner)
            return self._promote(seen, change)
        _refuse_other(record, stable)
        if record is not None and owner is not None:
            raise DeploymentConflict(f"the trial of version {version} was ended by somebody else")
        with self._prepared(seen, version, stable) as prepared:
            return self._promote(prepared, change)

    def abort_canary(self, version: int, *, change: Change) -> None:
        """Let the stable version's revision answer everything again."""
        for attempt in range(WITHDRAW_ATTEMPTS):
            seen = self._api.read()
            if seen is None or seen.record is None or seen.record.canary_version != version:
                return
            try:
                self._revisions.lead(seen, without_canary(seen.record, _short(change)))
            except DeploymentConflict:
                # A canary that does badly has to go, whoever else changes something.
                if attempt == WITHDRAW_ATTEMPTS - 1:
                    raise
            else:
                return

    def roll_back(self, *, stable: int, change: Change) -> int:
        """Let the revision before answer everything again: it still exists, so it takes seconds."""
        seen, record = self._released()
        _refuse_other_stable(record, stable)
        if record.previous_version is None:
            raise DeploymentError(f"there is no version before version {stable} to go back to")
        if record.previous_version != change.version:
            raise DeploymentConflict(
                f"version {record.previous_version} is what rollback restores, not version {change.version}"
            )
        self._revisions.lead(seen, rolled_back(record, _short(change)))
        return change.version

    def history(self) -> tuple[Change, ...]:
        """What was changed, the latest last."""
        seen = self._api.read()
        return seen.record.history if seen and seen.record else ()

    def _released(self) -> tuple["Deployed", ReleaseRecord]:
        seen = self._api.read()
        if seen is None or seen.record is None:
            raise DeploymentError("nothing was released yet: materialize registered_model first")
        return seen, seen.record

    def _promote(self, seen: "Deployed", change: Change) -> None:
        if self._settings.invokers:
            # Before the traffic: a deployment that finds its version serving leaves it at that.
            self._api.let_invoke(self._settings.invokers)
        self._revisions.lead(seen, promoted(seen.record, _short(change)))

    def _renew(self, seen: "Deployed", record: ReleaseRecord, change: Change) -> None:
        """Serve the version from a new revision, when the one that serves is of another image or values."""
        version = record.stable_version
        if self._revisions.is_current(seen, version):
            return
        try:
            with self._prepared(seen, version, version) as prepared:
                self._revisions.lead(prepared, promoted(record, _short(change)))
        except DeploymentError:
            # The version's tag goes back to the revision that serves.
            with suppress(DeploymentError):
                self._revisions.put_back(seen, record)
            raise

    @contextmanager
    def _prepared(self, seen: "Deployed | None", version: int, stable: int | None) -> Iterator["Deployed"]:
        """The service with a tested revision of the version, which is withdrawn when anything fails."""
        until = time.monotonic() + self._settings.ready_seconds
        plan = self._revisions.add(seen, version)
        try:
            self._api.wait_until_ready(plan.revision, until)
            tested = self._tested(version)
            _refuse_other(tested.record, stable)
            yield tested
        except TargetUnavailable:
            raise  # nothing could be withdrawn; started again, the deployment goes on from there
        except DeploymentError:
            # What another deployment has tagged is not this one's to withdraw.
            if not plan.routed:
                with suppress(DeploymentError):
                    self._revisions.remove(version)
            # A deployment that was faster takes the tag away, and this one's test fails for that.
            now = self._api.read()
            _refuse_other(now.record if now else None, stable)
            raise

    def _tested(self, version: int) -> "Deployed":
        seen = self._reached()
        token = None if self._settings.anonymous else id_token(seen.url)
        smoke_test(seen.tag_url(version), version, token=token, seconds=self._settings.smoke_seconds)
        return self._reached()

    def _reached(self) -> "Deployed":
        seen = self._api.read()
        if seen is None:
            raise DeploymentConflict(f"{self._settings.service_path} was deleted by somebody else")
        return seen


def _short(change: Change) -> Change:
    return change.model_copy(update={"reason": change.reason[:MAX_REASON]})


def _refuse_other_stable(record: ReleaseRecord | None, expected: int | None) -> None:
    refuse_other_stable(record.stable_version if record else None, expected)


def _refuse_other(record: ReleaseRecord | None, stable: int | None) -> None:
    """Let nobody go on who believes something else about the service, or while a version is tried out."""
    _refuse_other_stable(record, stable)
    if record is not None and record.canary_version is not None:
        raise trial_goes_on(record.canary_version, record.canary_owner)
