"""The OpenAPI document: what FastAPI derives from the routes, completed by what surrounds them all."""

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from housing_serving.error_body import ErrorDetail
from housing_serving.errors import (
    REQUEST_ID,
    Ending,
    ExplanationUnavailable,
    ModelNotReady,
    NeighboursUnavailable,
    NotRecorded,
    PayloadTooLarge,
    RecordsUnavailable,
    ServiceError,
    answer_to,
    internal_error,
)
from housing_serving.request_body import MAX_BODY_BYTES, BodyTooSlow, NotJson
from housing_serving.schemas import MAX_EXPLAINED, MAX_INSTANCES
from housing_serving.security import RATE_LIMIT_HEADERS, TooManyRequests, Unauthorized, has_limit, needs_key

Json = dict[str, Any]

DESCRIPTION = f"""
Prices of Californian census block groups, each with an interval that holds the true price with a stated
probability.

- **Units**: US dollars of 1990; `median_income` in tens of thousands of dollars a year.
- **Limits**: 1 to {MAX_INSTANCES} instances, of which at most {MAX_EXPLAINED} are explained at once, and
  {MAX_BODY_BYTES // 1024} KiB in a request.
- **Errors** have one shape whatever their status: `error.code` is stable and meant for programs,
  `error.message` for people, and `error.details` names each field that is wrong.
- **Request ids**: every answer, log line and logged prediction carries the id of its request.
"""
TAGS = [
    {"name": "prediction", "description": "Prices of block groups, and why they are so."},
    {"name": "model", "description": "The model that answers."},
    {"name": "health", "description": "Probes for load balancers and operators."},
    {"name": "service", "description": "The service about itself."},
]
# Paths whose errors are their own.
NEAREST = "/api/v1/block-groups/nearest"
EVALUATION = "/api/v1/model/evaluation"
MONITORING = "/api/v1/model/monitoring"
METRICS_EXAMPLE = """# HELP housing_requests_total Answered HTTP requests.
# TYPE housing_requests_total counter
housing_requests_total{method="POST",route="/api/v1/predict",status="200"} 1042.0
"""
_SECURITY_SCHEMES = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "One of the API keys."},
    "BearerToken": {"type": "http", "scheme": "bearer", "description": "The same keys, as bearer tokens."},
}
_RATE_LIMIT_TEXTS = (
    "Requests in a window.",
    "Requests left in this window.",
    "Seconds until the next window begins.",
)


def complete(document: Json, *, keys: bool, rate_limit: bool) -> Json:
    """Add examples, headers, and the protections that are on.

    Raises:
        LookupError: a field of a schema has no example.
    """
    document["info"] |= {
        "title": "House price API",
        "description": DESCRIPTION.strip(),
        "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
    }
    document["tags"] = TAGS
    components = document["components"]
    if keys:
        components["securitySchemes"] = _SECURITY_SCHEMES
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if keys and needs_key(path):
                operation["security"] = [{name: []} for name in _SECURITY_SCHEMES]
                _declare(operation, HTTPStatus.UNAUTHORIZED)
            limited = rate_limit and has_limit(path)
            if limited:
                _declare(operation, HTTPStatus.TOO_MANY_REQUESTS)
            _complete_operation(path, operation, components["schemas"], limited)
    return document


def _declare(operation: Json, status: HTTPStatus) -> None:
    like_any_other = operation["responses"]["500"]
    operation["responses"][str(int(status))] = like_any_other | {"description": status.phrase}


def _complete_operation(path: str, operation: Json, schemas: Json, limited: bool) -> None:
    if "requestBody" in operation:
        media = operation["requestBody"]["content"]["application/json"]
        media["examples"] = _request_examples(schemas["HousingInstance"])
    responses = operation["responses"] = dict(sorted(operation["responses"].items()))
    for status, response in responses.items():
        response["headers"] = response.get("headers", {}) | _headers(status, limited)
        response["content"] = {
            kind: media | _examples(path, status, kind, media, schemas)
            for kind, media in response["content"].items()
        }


def _headers(status: str, limited: bool) -> Json:
    headers: Json = {}
    if status == "401":
        headers["WWW-Authenticate"] = {"description": "How to authenticate.", "schema": {"type": "string"}}
    if status in ("429", "503"):
        text = "Seconds to wait before the next try."
        headers["Retry-After"] = {"description": text, "schema": {"type": "integer"}}
    if limited:
        for name, text in zip(RATE_LIMIT_HEADERS, _RATE_LIMIT_TEXTS, strict=True):
            headers[name] = {"description": text, "schema": {"type": "integer"}}
    return headers


def _examples(path: str, status: str, kind: str, media: Json, schemas: Json) -> Json:
    if status != "200":
        return {"examples": _error_examples(path, int(status))}
    return {"example": METRICS_EXAMPLE if kind == "text/plain" else _example(media["schema"], schemas)}


def _example(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:  # noqa: ANN401  (any JSON)
    """An instance of a schema, put together from the examples of its fields."""
    if "example" in schema:
        return schema["example"]
    if "examples" in schema:
        return schema["examples"][0]
    if "$ref" in schema:
        return _example(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if schema.get("type") == "array":
        return [_example(schema["items"], schemas)]
    if "properties" in schema:
        return {name: _example(field, schemas) for name, field in schema["properties"].items()}
    raise LookupError(f"no example: {schema}")


def _request_examples(schema: Json) -> Json:
    # In the order of the fields, which the schema's own example has lost.
    instance = {name: schema["example"][name] for name in schema["properties"]}
    unknown = instance | {"total_bedrooms": None}
    inland = instance | {
        "longitude": -119.77,
        "latitude": 36.74,
        "median_income": 3.1,
        "ocean_proximity": "INLAND",
    }
    return {
        "one": {"summary": "One block group", "value": {"instances": [instance]}},
        "unknown_bedrooms": {"summary": "Bedrooms not known", "value": {"instances": [unknown]}},
        "several": {"summary": "Several at once", "value": {"instances": [instance, inland]}},
    }


def _error_examples(path: str, status: int) -> Json:
    """What the service really answers, by the error's code."""
    scope = {REQUEST_ID: "6f1c1c0f4e0b4b0f8b7f3f3f1d2c9a55"}
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        responses = [internal_error(scope)]
    else:
        responses = [answer_to(error, scope) for error in _errors(path) if error.status_code == status]
    bodies = [json.loads(bytes(response.body)) for response in responses]
    return {body["error"]["code"]: {"summary": body["error"]["message"], "value": body} for body in bodies}


def _errors(path: str) -> Iterable[ServiceError]:
    yield Unauthorized()
    yield BodyTooSlow()
    yield NeighboursUnavailable(1) if path == NEAREST else ExplanationUnavailable(1)
    yield NotRecorded(1)
    yield PayloadTooLarge(MAX_BODY_BYTES)
    yield NotJson()
    too_far_east = ErrorDetail(
        field="longitude" if path == NEAREST else "instances.0.longitude",
        message="Input should be less than or equal to -114",
        type="less_than_equal",
    )
    yield ServiceError(
        HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", "1 field is invalid.", details=[too_far_east]
    )
    yield TooManyRequests(12)
    looking = ErrorDetail(field="local", message="The source is unavailable.", type="source_unavailable")
    if path != MONITORING:
        yield ModelNotReady(5, [looking])
    if path in (EVALUATION, MONITORING):
        yield RecordsUnavailable(5)
    if path == "/health/ready":
        yield Ending()
