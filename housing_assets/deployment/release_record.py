"""Changing the release record: the steps of a release, and the store that lets only one writer win."""

from collections.abc import Mapping
from dataclasses import dataclass

from housing_assets.deployment.target import DeploymentConflict, DeploymentError
from housing_assets.storage import ObjectConflict, ObjectMissing, ObjectStore
from housing_serving.releases import MAX_HISTORY, RELEASE_RECORD, Change, ReleaseRecord, ReleaseUnreadable

# What rollback can go back through.
MAX_PREVIOUS = 10


@dataclass(frozen=True)
class Stored:
    """A record as it lies in the storage root; no record and no generation before the first release."""

    record: ReleaseRecord | None
    generation: int | None


class ReleaseStore:
    """The release record of one storage root."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read(self) -> Stored:
        """The record and the generation it has.

        Raises:
            DeploymentError: what lies there is no release record.
        """
        try:
            # In this order: a record that changes in between has a newer generation than the one kept.
            generation = self._store.info(RELEASE_RECORD).generation
            data = self._store.read(RELEASE_RECORD)
        except ObjectMissing:
            return Stored(None, None)
        try:
            return Stored(ReleaseRecord.parse(data, self._store.uri(RELEASE_RECORD)), generation)
        except ReleaseUnreadable as error:
            raise DeploymentError(str(error)) from error

    def write(self, record: ReleaseRecord, over: Stored) -> None:
        """Put a record in the place of the one that was read.

        Raises:
            DeploymentConflict: another writer was first; the record is theirs.
        """
        absent = over.generation is None
        try:
            self._store.write(
                RELEASE_RECORD, record.to_json(), if_absent=absent, if_generation=over.generation
            )
        except ObjectConflict as error:
            raise DeploymentConflict(
                f"{self._store.uri(RELEASE_RECORD)} was changed by somebody else at the same time: look at "
                "`housing release status`, then try again if you still want to"
            ) from error


def with_canary(record: ReleaseRecord, percent: float, owner: str, change: Change) -> ReleaseRecord:
    """The change's version gets a share of the requests."""
    canary = {"canary_version": change.version, "canary_percent": percent, "canary_owner": owner}
    return _changed(record, change, canary)


def without_canary(record: ReleaseRecord, change: Change) -> ReleaseRecord:
    """The stable version answers everything again."""
    return _changed(record, change, _NO_CANARY)


def promoted(record: ReleaseRecord | None, change: Change) -> ReleaseRecord:
    """The change's version answers everything; the one before it is what rollback restores."""
    if record is None:
        return ReleaseRecord(stable_version=change.version, history=(change,))
    # A version stands there once: two in turn would make rollback go back and forth.
    before = [version for version in record.previous_versions if version != change.version]
    if record.stable_version != change.version:
        before = [version for version in before if version != record.stable_version]
        before.append(record.stable_version)
    previous = tuple(before[-MAX_PREVIOUS:])
    return _changed(
        record, change, {"stable_version": change.version, "previous_versions": previous, **_NO_CANARY}
    )


def rolled_back(record: ReleaseRecord, change: Change) -> ReleaseRecord:
    """The version before answers everything, and the next rollback goes one further back."""
    return _changed(
        record,
        change,
        {
            "stable_version": change.version,
            "previous_versions": record.previous_versions[:-1],
            **_NO_CANARY,
        },
    )


_NO_CANARY: Mapping[str, object] = {"canary_version": None, "canary_percent": 0.0, "canary_owner": None}


def _changed(record: ReleaseRecord, change: Change, values: Mapping[str, object]) -> ReleaseRecord:
    history = (*record.history, change)[-MAX_HISTORY:]
    return ReleaseRecord.model_validate({**record.model_dump(), **values, "history": history})
