"""Requests and responses of the HTTP interface, with the examples its documentation shows."""

from collections.abc import Sequence
from datetime import date, datetime
from operator import attrgetter
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from housing_serving.features import CATEGORICAL_FEATURE, CATEGORIES, LIMITS, NUMERIC_FEATURES
from housing_serving.neighbours import NEAREST

MAX_INSTANCES = 1000
# Explaining a price takes a thousand times as long as predicting it.
MAX_EXPLAINED = 20
# A place has no more neighbours than the model looks at.
MAX_NEAREST = NEAREST[-1]


# The one string of each that all instances share.
_SHARED = {category: category for category in CATEGORIES}


def _canonical_category(value: object) -> str:
    # ASCII alone: other letters have these as their capitals.
    name = value.strip().upper() if isinstance(value, str) and value.isascii() else None
    if name not in _SHARED:
        choices = {"choices": ", ".join(CATEGORIES)}
        raise PydanticCustomError("unknown_category", "Input should be one of {choices}", choices)
    return _SHARED[name]


def _number(name: str, description: str, example: float) -> FieldInfo:
    minimum, maximum = LIMITS[name]
    field: FieldInfo = Field(ge=minimum, le=maximum, strict=True, description=description, examples=[example])
    return field


OceanProximity = Annotated[
    str,
    BeforeValidator(_canonical_category),
    Field(
        description="Where the block group lies; upper and lower case are the same.",
        examples=["NEAR BAY"],
        json_schema_extra={"enum": list(CATEGORIES)},
    ),
]


class HousingInstance(BaseModel):
    """One census block group, in raw units."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "longitude": -122.23,
                "latitude": 37.88,
                "housing_median_age": 41,
                "total_rooms": 880,
                "total_bedrooms": 129,
                "population": 322,
                "households": 126,
                "median_income": 8.3252,
                "ocean_proximity": "NEAR BAY",
            }
        },
    )

    longitude: Annotated[float, _number("longitude", "Degrees east; California is negative.", -122.23)]
    latitude: Annotated[float, _number("latitude", "Degrees north.", 37.88)]
    housing_median_age: Annotated[float, _number("housing_median_age", "Years.", 41)]
    total_rooms: Annotated[float, _number("total_rooms", "Rooms of all homes in the block group.", 880)]
    total_bedrooms: Annotated[
        float | None,
        _number(
            "total_bedrooms", "Bedrooms of all homes; estimated from the rest when null or left out.", 129
        ),
    ] = None
    population: Annotated[float, _number("population", "People.", 322)]
    households: Annotated[float, _number("households", "Occupied homes.", 126)]
    median_income: Annotated[float, _number("median_income", "Tens of thousands of dollars a year.", 8.3252)]
    ocean_proximity: OceanProximity


class PredictionRequest(BaseModel):
    """Block groups to price."""

    model_config = ConfigDict(extra="forbid")

    instances: Annotated[list[HousingInstance], Field(min_length=1, max_length=MAX_INSTANCES)]


class ExplanationRequest(PredictionRequest):
    """Block groups whose prices are to be explained."""

    instances: Annotated[list[HousingInstance], Field(min_length=1, max_length=MAX_EXPLAINED)]


class ConfidenceInterval(BaseModel):
    """Where the price lies with the given probability, for homes like those of the training data."""

    lower: float = Field(description="Dollars, never below zero.", examples=[331200.0])
    upper: float = Field(description="Dollars.", examples=[523400.0])
    level: float = Field(examples=[0.9])


class PredictionWarning(BaseModel):
    """A value that the model can price, but saw nothing like in training: trust the price less."""

    field: str = Field(examples=["median_income"])
    code: Literal["below_training_range", "above_training_range", "unseen_category"] = Field(
        examples=["above_training_range"]
    )
    message: str = Field(
        description="For people.", examples=["18.2 is above 15.0001, the highest in training."]
    )


class Prediction(BaseModel):
    """The answer to one instance."""

    predicted_price: float = Field(description="Dollars.", examples=[427300.0])
    confidence_interval: ConfidenceInterval
    warnings: list[PredictionWarning] = Field(
        description="Empty when every value lies within what the model was trained on.", examples=[[]]
    )


class PredictionResponse(BaseModel):
    """One prediction per instance, in the order of the request."""

    predictions: list[Prediction]
    model_version: str = Field(description="The version that answered.", examples=["1"])


class Contribution(BaseModel):
    """How far one input, with everything computed from it alone, moves a price away from the base value."""

    feature: str = Field(
        description="An input, a ratio of two inputs, or `location`: the coordinates and everything that is "
        "computed from them.",
        examples=["median_income"],
    )
    value: float | str | None = Field(
        description="Of the input, as it was sent; null for ratios, `location`, and unknown bedrooms.",
        examples=[8.3252],
    )
    contribution: float = Field(
        description="Dollars, negative where it lowers the price.", examples=[220500.0]
    )


class InstanceExplanation(BaseModel):
    """Why one instance has its price: `base_value` and all contributions add up to it."""

    predicted_price: float = Field(description="Dollars, as `predict` answers.", examples=[427300.0])
    base_value: float = Field(
        description="Dollars; the model's mean over what it was trained on.", examples=[206800.0]
    )
    contributions: list[Contribution] = Field(
        description="Of every input, largest first, whatever their sign."
    )


class ExplanationResponse(BaseModel):
    """One explanation per instance, in the order of the request."""

    explanations: list[InstanceExplanation]
    model_version: str = Field(description="The version that answered.", examples=["1"])


class FeatureInfo(BaseModel):
    """A numeric feature and the range the model was trained on."""

    name: str = Field(examples=["median_income"])
    minimum: float = Field(examples=[0.4999])
    maximum: float = Field(examples=[15.0001])
    nullable: bool = Field(examples=[False])


class ModelInfo(BaseModel):
    """The model that answers, as its bundle describes it."""

    status: str = Field(examples=["ready"])
    model_loaded: bool = Field(examples=[True])
    model_name: str = Field(examples=["housing_price_model"])
    model_version: str = Field(examples=["1"])
    algorithm: str = Field(examples=["RandomForest"])
    target: str = Field(examples=["median_house_value"])
    snapshot: str = Field(examples=["2025-01-05"])
    data_hash: str = Field(examples=["2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"])
    git_commit: str = Field(examples=["ebe5dd9"])
    created_at: datetime = Field(examples=["2025-01-05T02:00:00Z"])
    metrics: dict[str, float] = Field(examples=[{"mae": 31800.5, "r2": 0.83, "wmape": 15.2}])
    features: list[FeatureInfo]
    categories: list[str] = Field(description="Categories seen in training.", examples=[list(CATEGORIES)])
    imputation: str = Field(description="How null bedrooms are estimated.", examples=["ratio_boosting"])
    interval_level: float = Field(examples=[0.9])
    libraries: dict[str, str] = Field(examples=[{"numpy": "2.4.0"}])
    source: str = Field(description="Which source answered: mlflow, gcs or local.", examples=["gcs"])
    uri: str = Field(
        description="Where the bundle was loaded from.", examples=["gs://bucket/models/housing_price_model/1"]
    )


class NearestQuery(BaseModel):
    """A place, and how many block groups around it are asked for."""

    model_config = ConfigDict(extra="forbid")

    longitude: float = Field(
        ge=LIMITS["longitude"][0], le=LIMITS["longitude"][1], description="Degrees east.", examples=[-122.23]
    )
    latitude: float = Field(
        ge=LIMITS["latitude"][0], le=LIMITS["latitude"][1], description="Degrees north.", examples=[37.88]
    )
    limit: int = Field(10, ge=1, le=MAX_NEAREST, description="At most so many.", examples=[10])


class NearbyBlockGroup(BaseModel):
    """A block group whose price the model learned from."""

    longitude: float = Field(description="Degrees east.", examples=[-122.22])
    latitude: float = Field(description="Degrees north.", examples=[37.86])
    distance_km: float = Field(
        description="From the place; a degree of longitude counts as four fifths of one of latitude.",
        examples=[2.4],
    )
    median_house_value: float = Field(description="Dollars.", examples=[358500.0])
    median_income: float = Field(description="Tens of thousands of dollars a year.", examples=[8.3014])
    housing_median_age: float = Field(description="Years.", examples=[21.0])
    rooms_per_household: float = Field(examples=[6.2])
    population_per_household: float = Field(examples=[2.1])
    bedrooms_per_room: float = Field(examples=[0.16])


class NearestBlockGroups(BaseModel):
    """The block groups nearest to a place, the nearest first."""

    block_groups: list[NearbyBlockGroup]
    model_version: str = Field(description="The version that learned from them.", examples=["1"])


class ReleaseChange(BaseModel):
    """One step of a release."""

    action: Literal["canary", "promote", "abort", "rollback"] = Field(
        description="A trial began, a version serves, a trial was ended, or the version before serves again.",
        examples=["promote"],
    )
    version: int = Field(examples=[2])
    at: datetime = Field(examples=["2025-01-05T02:00:00Z"])
    by: str = Field(description="Who did it.", examples=["release_model"])
    reason: str = Field(examples=["better on every check"])


class ReleaseHistory(BaseModel):
    """What was released when, and why."""

    stable_version: int | None = Field(description="Null before the first release.", examples=[2])
    canary_version: int | None = Field(examples=[None])
    canary_percent: float = Field(description="Its share of the requests.", examples=[0.0])
    previous_version: int | None = Field(description="What rollback restores.", examples=[1])
    changes: list[ReleaseChange] = Field(description="The latest first, at most 50.")


class PromotionCheck(BaseModel):
    """One condition that a version had to meet."""

    name: str = Field(examples=["r2"])
    passed: bool = Field(examples=[True])
    found: float | None = Field(examples=[0.8996])
    limit: float | None = Field(examples=[0.7])
    detail: str = Field(examples=["R² is 0.900, at least 0.700 is asked"])


class SegmentErrors(BaseModel):
    """Errors on a part of the test rows."""

    name: str = Field(examples=["ocean_proximity INLAND"])
    rows: int = Field(examples=[1297])
    mae: float | None = Field(description="Mean absolute error, dollars.", examples=[17200.0])
    wmape: float | None = Field(
        description="Sum of absolute errors in percent of the sum of prices.", examples=[13.8]
    )
    champion_mae: float | None = Field(description="Of the version before, dollars.", examples=[18100.0])
    judged: bool = Field(description="False where it has too few rows.", examples=[True])
    passed: bool = Field(examples=[True])


class PromotionReport(BaseModel):
    """How a version was judged on the test set, next to the version that was in production."""

    candidate_version: int = Field(description="The version that was judged.", examples=[2])
    champion_version: int | None = Field(
        description="The version that was in production; null for the first.", examples=[1]
    )
    snapshot: str = Field(examples=["2025-01-05"])
    promote: bool = Field(description="Whether it met every condition.", examples=[True])
    reason: str = Field(examples=["better than version 1 on every check"])
    test_rows: int = Field(examples=[4117])
    checks: list[PromotionCheck]
    segments: list[SegmentErrors]


class MonitoringFinding(BaseModel):
    """One thing that monitoring found."""

    severity: Literal["warning", "critical"] = Field(examples=["warning"])
    subject: str = Field(description="The feature, metric or segment.", examples=["median_income"])
    value: float = Field(examples=[0.31])
    threshold: float = Field(examples=[0.2])
    text: str = Field(examples=["median_income of version 1 has moved: PSI 0.31."])
    action: str = Field(description="What to do about it.", examples=["Train on newer data."])


class MonitoringReport(BaseModel):
    """What monitoring found on one UTC day."""

    kind: Literal["drift", "performance"] = Field(examples=["drift"])
    day: date = Field(examples=["2025-01-05"])
    model_versions: list[str] = Field(description="Those that answered on it.", examples=[["1"]])
    rows: int = Field(description="Predictions it is about.", examples=[20000])
    labels: int = Field(0, description="Those whose true price is known.", examples=[0])
    findings: list[MonitoringFinding]
    created_at: datetime = Field(examples=["2025-01-06T02:00:00Z"])


class MonitoringStatus(BaseModel):
    """The newest report of each kind; empty before the first."""

    reports: list[MonitoringReport]


class Health(BaseModel):
    """Liveness: the process answers."""

    status: str = Field(examples=["healthy"])
    model_loaded: bool = Field(examples=[True])
    version: str = Field(description="Of the service, not of the model.", examples=["0.1.0"])


class Readiness(BaseModel):
    """Readiness: predictions are answered."""

    status: str = Field(examples=["ready"])
    model_version: str = Field(examples=["1"])


class SourceHealth(BaseModel):
    """A place that models come from."""

    name: str = Field(examples=["mlflow"])
    target: str = Field(examples=["http://mlflow:5000 housing_price_model@production"])
    state: str = Field(
        description="serving, ready (one before it serves), empty, unavailable, open (not asked again before "
        "a pause is over) or unasked.",
        examples=["serving"],
    )
    detail: str | None = Field(description="What is wrong, and what to do.", examples=[None])
    checked_at: datetime | None = Field(examples=["2025-01-05T02:00:00Z"])


class ReleaseHealth(BaseModel):
    """How this process stands to the release record of its storage root."""

    state: str = Field(
        description="off (one bundle is pinned by the settings), unasked, none (nothing was released yet), "
        "followed, incomplete (a version it names cannot be loaded) or unreadable.",
        examples=["followed"],
    )
    stable_version: int | None = Field(description="As the record says.", examples=[2])
    canary_version: int | None = Field(
        description="The version that is being tried out, if one is.", examples=[3]
    )
    canary_percent: float = Field(description="Its share of the requests.", examples=[10.0])
    detail: str | None = Field(description="What is wrong, and what to do.", examples=[None])
    checked_at: datetime | None = Field(examples=["2025-01-05T02:00:00Z"])


class PredictionLogHealth(BaseModel):
    """The writer of the prediction log."""

    enabled: bool = Field(examples=[True])
    healthy: bool = Field(examples=[True])
    buffered_rows: int = Field(examples=[120])
    dropped_rows: int = Field(description="Since the process started.", examples=[0])
    problem: str | None = Field(examples=[None])


class DeepHealth(BaseModel):
    """The service and everything it depends on."""

    status: str = Field(examples=["healthy"])
    model_version: str = Field(examples=["1"])
    sources: list[SourceHealth]
    release: ReleaseHealth
    prediction_log: PredictionLogHealth


class ServiceInfo(BaseModel):
    """What this service is and where to look next."""

    name: str = Field(examples=["housing-price-api"])
    version: str = Field(examples=["0.1.0"])
    description: str = Field(
        examples=["Prices of Californian census block groups, with an interval for each."]
    )
    docs_url: str = Field(examples=["/docs"])
    health_url: str = Field(examples=["/health"])


_numbers_of = attrgetter(*NUMERIC_FEATURES)


def instance_columns(instances: Sequence[HousingInstance]) -> dict[str, NDArray[Any]]:
    """The instances as the bundle takes them: one array per raw feature, null bedrooms as NaN."""
    # numpy turns None into NaN here.
    numbers = np.array([_numbers_of(instance) for instance in instances], dtype=np.float64)
    columns: dict[str, NDArray[Any]] = dict(zip(NUMERIC_FEATURES, numbers.T.copy(), strict=True))
    categories = [instance.ocean_proximity for instance in instances]
    columns[CATEGORICAL_FEATURE] = np.array(categories, dtype=object)
    return columns
