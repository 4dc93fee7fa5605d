"""The release record: one small JSON object that says which versions a fleet is to serve.

Reading and its arithmetic only; `housing_assets.deployment` writes it, with a generation precondition.
"""

import zlib
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

RELEASE_RECORD = "releases/housing-price-api.json"
# As many changes as the record remembers: it stays small.
MAX_HISTORY = 50

Version = Annotated[int, Field(ge=1)]
Action = Literal["canary", "promote", "abort", "rollback"]
Track = Literal["stable", "canary"]


class ReleaseUnreadable(Exception):
    """The release record is not one; the message says what is wrong with it."""


class Change(BaseModel):
    """One change of the record: what, to which version, when, who and why."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # canary: it gets a share of the requests. promote: it serves. abort: the canary is gone. rollback: the
    # version before serves again.
    action: Action
    version: Version
    at: AwareDatetime
    by: str
    reason: str


class ReleaseRecord(BaseModel):
    """The desired state of a fleet.

    Fields of a later release are ignored, so that a fleet can be upgraded process by process.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    stable_version: Version
    # Answers `canary_percent` of the requests; which ones, `track_of` says.
    canary_version: Version | None = None
    canary_percent: Annotated[float, Field(ge=0, le=100)] = 0.0
    # What rollback restores, the latest last.
    previous_versions: tuple[Version, ...] = ()
    # Who watches the canary; a run that starts again after a crash knows its own by it.
    canary_owner: str | None = None
    # The latest last.
    history: tuple[Change, ...] = ()

    @model_validator(mode="after")
    def _canary_is_another_version(self) -> Self:
        if self.canary_version == self.stable_version:
            raise ValueError("canary_version is the stable version")
        return self

    @classmethod
    def parse(cls, data: bytes, origin: str) -> Self:
        """The record in an object's bytes; `origin` names it in errors.

        Raises:
            ReleaseUnreadable: it is not a release record.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(map(str, problem["loc"])) or "record"
            raise ReleaseUnreadable(
                f"{origin} states no stable_version that can be served ({field}: {problem['msg']}): "
                "release a version again"
            ) from error

    @property
    def previous_version(self) -> int | None:
        """What rollback restores."""
        return self.previous_versions[-1] if self.previous_versions else None

    def to_json(self) -> bytes:
        """The bytes of the object: indented, for people who look at it."""
        return self.model_dump_json(indent=2).encode() + b"\n"


def track_of(request_id: str, canary_percent: float) -> Track:
    """Who answers a request: the same in every process, whichever gets it.

    The hash is uniform over ids, and a request that is canary at some percentage stays so at a higher one.
    """
    return "canary" if zlib.crc32(request_id.encode()) % 10_000 < canary_percent * 100 else "stable"


def change(action: Action, version: int, by: str, reason: str) -> Change:
    """A change that happens now."""
    return Change(action=action, version=version, at=datetime.now(UTC), by=by, reason=reason)
