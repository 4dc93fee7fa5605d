"""What a day's monitoring found, as the JSON that the reports store and that alerts and retraining read."""

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Kind = Literal["drift", "performance"]
Severity = Literal["warning", "critical"]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Finding(_Part):
    """One thing that is wrong, by its cause: the same cause on the next day is the same trouble."""

    # Stable over days and versions, such as `drift:median_income` or `performance:within_10_percent`.
    cause: Annotated[str, Field(pattern=r"^(drift|performance):[A-Za-z0-9_.:<>= -]+$")]
    severity: Severity
    # The feature, metric or segment that it is about.
    subject: Annotated[str, Field(min_length=1)]
    # What was measured, and the limit it went beyond, in the same unit.
    value: float
    threshold: float
    # One sentence for people.
    text: Annotated[str, Field(min_length=1)]
    # What to do about it.
    action: Annotated[str, Field(min_length=1)]
    # Whether a training on newer data would help.
    retrain: bool
    # Whether it takes labels to find it: a day without them does not say that it is gone.
    from_labels: bool = False


class Report(_Part):
    """The findings of one UTC day."""

    day: date
    kind: Kind
    # The versions that answered, sorted by number.
    model_versions: list[str]
    # Predictions the report is about.
    rows: Annotated[int, Field(ge=0)]
    # Those of them whose true price is known; labels come late, and the report is then made again.
    labels: Annotated[int, Field(ge=0)] = 0
    findings: list[Finding]
    created_at: AwareDatetime

    @model_validator(mode="after")
    def _causes_are_its_own(self) -> Self:
        causes = [finding.cause for finding in self.findings]
        if repeated := sorted({cause for cause in causes if causes.count(cause) > 1}):
            raise ValueError(f"a cause may be found once a day, these repeat: {', '.join(repeated)}")
        if foreign := sorted(cause for cause in causes if not cause.startswith(f"{self.kind}:")):
            raise ValueError(f"a {self.kind} report cannot find {', '.join(foreign)}")
        return self

    def to_json(self) -> bytes:
        """The bytes that are stored, indented for people."""
        return self.model_dump_json(indent=2).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            pydantic.ValidationError: it is no such report; the message names each wrong field.
        """
        return cls.model_validate_json(data)


def report_name(kind: Kind, day: date) -> str:
    """The object name of a day's report under the storage root."""
    return f"monitoring/reports/{kind}/{day.isoformat()}.json"
