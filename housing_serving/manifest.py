"""`bundle.json`: what a model bundle says about itself, typed and checked."""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from housing_serving.features import NUMERIC_FEATURES, FeatureSpec
from housing_serving.neighbours import Neighbourhood

FORMAT_VERSION: Final = 4
MANIFEST_FILE = "bundle.json"
MODEL_FILE = "model.onnx"
# The block groups whose prices are features, and the model of how far off a price may be; both optional.
NEIGHBOURS_FILE = "block_groups.npz"
SPREAD_FILE = "spread.onnx"
# The file an imputer of each kind is stored in; a constant lives in the manifest.
IMPUTER_FILES: Mapping[str, str] = {"neighbours": "imputer.npz", "compiled": "imputer.onnx"}
# The model in the form that explanations need; older bundles have none.
EXPLANATION_FILE = "explanation.npz"


# The manifest's own checksum, beside its fields: one wrong digit in it would be a wrong price.
CHECKSUM = "sha256"


def checksum(content: Mapping[str, Any]) -> str:
    """The sha256 of a manifest's content without its checksum, however it is spaced and ordered."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _plain_file_name(name: str) -> str:
    # A bundle comes from outside: a name that is a path could read anything the process may read.
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise ValueError(f"{name!r} is not a plain file name")
    return name


def _as_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


FileName = Annotated[str, AfterValidator(_plain_file_name)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
UtcDatetime = Annotated[AwareDatetime, AfterValidator(_as_utc)]


class _Part(BaseModel):
    # The text below a field is its description in the documentation.
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class FeatureRange(_Part):
    """One numeric feature as the training rows had it."""

    name: str
    minimum: float
    maximum: float
    nullable: bool = False


class Preprocessing(_Part):
    """The fitted values of the feature matrix."""

    categories: tuple[str, ...]
    cluster_centers: tuple[tuple[float, float], ...]
    """Rows of (latitude, longitude)."""
    gamma: Annotated[float, Field(gt=0)]
    ratios: bool = True
    rotations: Annotated[int, Field(ge=0)] = 0
    cities: tuple[tuple[str, float, float], ...] = ()
    """Rows of (name, latitude, longitude)."""
    neighbours: bool = False
    """Whether the prices of block groups nearby are features; they are in a file of their own."""
    reach: Annotated[float, Field(gt=0)] | None = None
    """Degrees of latitude within which a few of these must be for a place to be known; none: without end."""

    def spec(self, neighbourhood: Neighbourhood | None = None) -> FeatureSpec:
        """The same values as the feature code takes them."""
        return FeatureSpec(
            self.categories,
            self.cluster_centers,
            self.gamma,
            self.ratios,
            self.rotations,
            self.cities,
            neighbourhood,
            self.reach,
        )


class ImputerSpec(_Part):
    """How null bedrooms are filled."""

    strategy: str
    """The published strategy's name, for people; `kind` is what the reader acts on."""
    kind: Literal["constant", "neighbours", "compiled"]
    value: float | None = None
    """What a constant imputer fills in."""
    per_household: bool = False
    """Whether a compiled imputer answers bedrooms per household instead of bedrooms."""

    @model_validator(mode="after")
    def _constant_has_a_value(self) -> Self:
        if (self.kind == "constant") != (self.value is not None):
            raise ValueError("value is given for the kind constant, and only for it")
        return self


class SegmentInterval(_Part):
    """How intervals did on the test rows of one `ocean_proximity`."""

    category: str
    rows: Annotated[int, Field(ge=1)]
    coverage: Annotated[float, Field(ge=0, le=1)]
    """Share of the prices that lay inside."""
    width: Annotated[float, Field(ge=0)]
    """Dollars, on average."""


class IntervalSpec(_Part):
    """A price's interval: from `price + lower_offset` (never below zero) to `price + upper_offset`.

    Where it is `scaled`, the offsets are multiples of what the spread model answers, in dollars.
    """

    level: Annotated[float, Field(gt=0, lt=1)]
    lower_offset: Annotated[float, Field(le=0)]
    upper_offset: Annotated[float, Field(ge=0)]
    scaled: bool = False
    """Whether the offsets are multiples of what the spread model answers."""
    least_spread: Annotated[float, Field(ge=0)] = 0.0
    """Dollars; no row is surer than this."""
    highest: Annotated[float, Field(gt=0)] | None = None
    """Dollars; no interval reaches further, unless its price does."""
    segments: tuple[SegmentInterval, ...] = ()
    """How they did on the test rows."""


class BundleManifest(_Part):
    """Everything a bundle states about its model and its own files."""

    format_version: Literal[4] = FORMAT_VERSION
    model_name: str
    model_version: Annotated[int, Field(ge=1)]
    algorithm: str
    """The model family."""
    snapshot: str
    """The Sunday whose rows it was trained on."""
    data_hash: str
    """sha256 of the training rows; monitoring finds them by it."""
    git_commit: str
    """Of the code that trained it."""
    target: str
    created_at: UtcDatetime
    metrics: dict[str, float]
    """Scores on the test rows, by name."""
    features: tuple[FeatureRange, ...]
    """Training ranges of the numeric features, in the order of the feature contract."""
    categories: tuple[str, ...]
    """Categories seen in training."""
    preprocessing: Preprocessing
    imputer: ImputerSpec
    interval: IntervalSpec
    libraries: dict[str, str]
    """Versions of the libraries that trained it, by name."""
    files: dict[FileName, Sha256]
    """sha256 of every other file of the bundle, by its name."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        names = tuple(feature.name for feature in self.features)
        if names != NUMERIC_FEATURES:
            raise ValueError(f"features are {names}, this reader's contract is {NUMERIC_FEATURES}")
        needed = {MODEL_FILE} | ({self.imputer_file} if self.imputer_file else set())
        needed |= {NEIGHBOURS_FILE} if self.preprocessing.neighbours else set()
        needed |= {SPREAD_FILE} if self.interval.scaled else set()
        if missing := needed - self.files.keys():
            raise ValueError(f"files does not list {', '.join(sorted(missing))}")
        if MANIFEST_FILE in self.files:
            raise ValueError(f"files lists {MANIFEST_FILE}, which cannot hold its own hash")
        return self

    @property
    def imputer_file(self) -> str | None:
        """Name of the file the imputer is stored in, if it has one."""
        return IMPUTER_FILES.get(self.imputer.kind)

    def to_json(self) -> bytes:
        """The bytes of `bundle.json`: indented, so that two bundles can be compared line by line."""
        content = json.loads(self.model_dump_json(exclude_none=True))
        sealed = {**content, CHECKSUM: checksum(content)}
        return json.dumps(sealed, indent=2).encode() + b"\n"
