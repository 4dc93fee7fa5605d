"""A fleet: any number of API processes that follow one release record in their storage root."""

from collections.abc import Sequence

from housing_assets.deployment.fleet_metrics import FleetMetrics
from housing_assets.deployment.release_record import (
    ReleaseStore,
    Stored,
    promoted,
    rolled_back,
    with_canary,
    without_canary,
)
from housing_assets.deployment.target import (
    DeploymentConflict,
    DeploymentError,
    Reading,
    TargetStatus,
    named,
    refuse_other_stable,
    trial_goes_on,
)
from housing_assets.storage import ObjectStore
from housing_serving.releases import Change, ReleaseRecord


class FleetTarget:
    """Deploys by writing the release record; what the processes make of it, their metrics tell."""

    name = "fleet"

    def __init__(self, store: ObjectStore, urls: Sequence[str], api_key: str | None = None) -> None:
        self._release = ReleaseStore(store)
        self._urls = tuple(urls)
        self._metrics = FleetMetrics(urls, api_key)

    def status(self) -> TargetStatus:
        """What the record says, and what each process serves."""
        record = self._release.read().record
        serving, problems = self._metrics.serving()
        return TargetStatus(
            stable=record.stable_version if record else None,
            canary=record.canary_version if record else None,
            canary_percent=record.canary_percent if record else 0.0,
            previous=record.previous_version if record else None,
            canary_owner=record.canary_owner if record else None,
            serving=serving,
            url=self._urls[0] if self._urls else None,
            problems=problems,
        )

    def start_canary(
        self, version: int, percent: float, *, stable: int | None, owner: str, change: Change
    ) -> None:
        """Let a version answer some of the requests; without a stable version, nothing is to be done."""
        found = self._release.read()
        record = found.record
        if record is None:
            refuse_other_stable(None, stable)
            return
        if (record.canary_version, record.canary_owner) == (version, owner):
            return  # this deployment's own, from before it was interrupted
        refuse_other_stable(record.stable_version, stable)
        if record.canary_version is not None:
            raise trial_goes_on(record.canary_version, record.canary_owner)
        self._release.write(with_canary(record, percent, owner, change), found)

    def read(self) -> Reading:
        """What the metrics of all processes say."""
        record = _released(self._release.read())
        return self._metrics.read(record.stable_version, record.canary_version)

    def promote(self, version: int, *, stable: int | None, owner: str | None, change: Change) -> None:
        """Let a version answer everything."""
        found = self._release.read()
        record = found.record
        if record is None:
            refuse_other_stable(None, stable)
        elif (record.stable_version, record.canary_version) == (version, None):
            return
        else:
            refuse_other_stable(record.stable_version, stable)
            _refuse_other_canary(record, version, owner)
        self._release.write(promoted(record, change), found)

    def abort_canary(self, version: int, *, change: Change) -> None:
        """Let the stable version answer everything again."""
        found = self._release.read()
        if found.record is not None and found.record.canary_version == version:
            self._release.write(without_canary(found.record, change), found)

    def roll_back(self, *, stable: int, change: Change) -> int:
        """Let the version before serve again."""
        found = self._release.read()
        record = _released(found)
        refuse_other_stable(record.stable_version, stable)
        if record.previous_version != change.version:
            raise DeploymentConflict(
                f"{named(record.previous_version)} is what rollback restores, not version {change.version}"
            )
        self._release.write(rolled_back(record, change), found)
        return change.version

    def history(self) -> tuple[Change, ...]:
        """What was changed, the latest last."""
        record = self._release.read().record
        return record.history if record else ()


def _released(found: Stored) -> ReleaseRecord:
    if found.record is None:
        raise DeploymentError("nothing was released yet: materialize registered_model first")
    return found.record


def _refuse_other_canary(record: ReleaseRecord, version: int, owner: str | None) -> None:
    mine = None if owner is None else version
    if record.canary_version == mine and record.canary_owner == owner:
        return
    if record.canary_version is None:
        raise DeploymentConflict(f"the trial of version {version} was ended by somebody else")
    raise trial_goes_on(record.canary_version, record.canary_owner)
