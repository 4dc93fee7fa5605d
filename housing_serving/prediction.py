"""From the bytes of a request to the bytes of its answer.

The body is validated as it is parsed, in one pass, and the answer is written as JSON without building a
response model per instance: for small requests that is most of the work.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from housing_serving.bundle import Predictions
from housing_serving.domain import Departure
from housing_serving.features import Columns
from housing_serving.schemas import (
    ExplanationRequest,
    HousingInstance,
    PredictionRequest,
    instance_columns,
)
from housing_serving.sources import LoadedModel

Request = TypeVar("Request", bound=PredictionRequest)

_PREDICTION = TypeAdapter(PredictionRequest)
_EXPLANATION = TypeAdapter(ExplanationRequest)
# Twice what the largest request has; complaining about each further one would keep other callers waiting.
MAX_KEYS = 20_000
LONGEST_QUOTE = 50


class Priced(NamedTuple):
    """Instances, the model that priced them, its prices, and what was unusual about them."""

    model: LoadedModel
    columns: Columns
    predictions: Predictions
    departures: Sequence[Departure]


def price(instances: Sequence[HousingInstance], model: LoadedModel) -> Priced:
    """Price the instances of one or more requests."""
    columns = instance_columns(instances)
    predictions = model.bundle.predict(columns)
    return Priced(model, columns, predictions, model.bundle.domain.departures(columns))


def parse(body: bytes) -> PredictionRequest:
    """The request for prices in a body.

    Raises:
        RequestValidationError: the body is not what the schema says; every problem is listed.
    """
    return _parsed(_PREDICTION, body)


def parse_explanation(body: bytes) -> ExplanationRequest:
    """The request for explanations in a body; raises as `parse` does."""
    return _parsed(_EXPLANATION, body)


def _parsed(schema: TypeAdapter[Request], body: bytes) -> Request:
    # Every key is followed by one colon, and no valid value contains any.
    colons = body.count(b":")
    if colons > MAX_KEYS:
        raise RequestValidationError([_problem("too_many_keys", f"The body has more than {MAX_KEYS} keys")])
    try:
        request = schema.validate_json(body)
    except ValidationError as error:
        # By way of JSON: `errors()` takes ten times as long, and there may be thousands.
        problems = orjson.loads(error.json(include_url=False, include_context=False, include_input=False))
        raise RequestValidationError(
            [{**problem, "loc": ("body", *problem["loc"])} for problem in problems]
        ) from error
    # A key that comes twice is legal JSON whose last value wins, here and not everywhere: refused rather than
    # guessed.
    if colons != 1 + sum(len(instance.model_fields_set) for instance in request.instances):
        message = f"The key {_repeated_key(body)[:LONGEST_QUOTE]} comes twice in one object"
        raise RequestValidationError([_problem("repeated_key", message)])
    return request


def _problem(kind: str, message: str) -> dict[str, Any]:
    return {"type": kind, "loc": ("body",), "msg": message}


def _repeated_key(body: bytes) -> str:
    repeated: list[str] = []

    def note_repeated(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                repeated.append(name)
            seen.add(name)

    json.loads(body, object_pairs_hook=note_repeated)
    return repeated[0]


def response_body(priced: Priced) -> bytes:
    """The answer as JSON."""
    warnings: dict[int, list[dict[str, str]]] = {}
    for found in priced.departures:
        warning = {"field": found.field, "code": found.code, "message": found.message}
        warnings.setdefault(found.row, []).append(warning)
    manifest, predictions = priced.model.bundle.manifest, priced.predictions
    prices, lowers, uppers = predictions.price, predictions.lower, predictions.upper
    rows = zip(prices.tolist(), lowers.tolist(), uppers.tolist(), strict=True)
    level = manifest.interval.level
    answers = [
        {
            "predicted_price": middle,
            "confidence_interval": {"lower": lower, "upper": upper, "level": level},
            "warnings": warnings.get(row, []),
        }
        for row, (middle, lower, upper) in enumerate(rows)
    ]
    return orjson.dumps({"predictions": answers, "model_version": str(manifest.model_version)})
