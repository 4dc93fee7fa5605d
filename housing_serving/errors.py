"""Errors as clients see them: one JSON shape for every status, never the text of an exception."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from housing_serving.error_body import ErrorBody, ErrorDetail, ErrorResponse

REQUEST_ID = "housing_serving.request_id"
# A full batch can be wrong in ten thousand places; nobody reads more than these.
MAX_DETAILS = 100
# Of a field's name, which is the caller's when it is unknown.
LONGEST_NAME = 100


class ServiceError(HTTPException):
    """An error with its status, its stable code and a message meant for the client."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        details: Sequence[ErrorDetail] = (),
    ) -> None:
        super().__init__(status, message, headers)
        self.code = code
        self.details = details


class ModelNotReady(ServiceError):
    """No model is loaded yet; the details say why, source by source."""

    def __init__(self, retry_seconds: float, details: Sequence[ErrorDetail] = ()) -> None:
        super().__init__(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "model_not_ready",
            "No model is loaded yet; the service keeps looking for one.",
            {"Retry-After": str(max(1, round(retry_seconds)))},
            details,
        )


class Ending(ServiceError):
    """The process is ending; it still answers what it is asked."""

    def __init__(self) -> None:
        super().__init__(
            HTTPStatus.SERVICE_UNAVAILABLE, "ending", "This process is ending; send new requests to another."
        )


class ExplanationUnavailable(ServiceError):
    """The model that serves predicts, but cannot explain."""

    def __init__(self, model_version: int) -> None:
        super().__init__(
            HTTPStatus.CONFLICT,
            "explanation_unavailable",
            f"Model version {model_version} was exported without what explanations need; it still predicts.",
        )


class NeighboursUnavailable(ServiceError):
    """The model that serves knows no block groups."""

    def __init__(self, model_version: int) -> None:
        super().__init__(
            HTTPStatus.CONFLICT,
            "neighbours_unavailable",
            f"Model version {model_version} was exported without known block groups; it still predicts.",
        )


class NotRecorded(ServiceError):
    """What is asked for was not written down."""

    def __init__(self, model_version: int) -> None:
        super().__init__(
            HTTPStatus.NOT_FOUND,
            "not_recorded",
            f"The storage root has no promotion report of model version {model_version}.",
        )


class RecordsUnavailable(ServiceError):
    """What is on record cannot be read."""

    def __init__(self, retry_seconds: float) -> None:
        super().__init__(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "records_unavailable",
            "What is on record cannot be read at the moment; the log of the service says why.",
            {"Retry-After": str(max(1, round(retry_seconds)))},
        )


class PayloadTooLarge(ServiceError):
    """The request body exceeds what is read."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "payload_too_large",
            f"The request body is larger than {limit} bytes; send fewer instances at once.",
        )


def error_response(
    scope: Mapping[str, Any],
    status: int,
    code: str,
    message: str,
    *,
    details: Sequence[ErrorDetail] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The response for an error; `scope` is the request's, for its id."""
    body = ErrorResponse(
        error=ErrorBody(code=code, message=message, details=list(details)), request_id=scope.get(REQUEST_ID)
    )
    return JSONResponse(body.model_dump(exclude_none=True), status, headers)


def internal_error(scope: Mapping[str, Any]) -> JSONResponse:
    """The response for a defect of the service; what happened is in its log under the request's id."""
    return error_response(
        scope,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal_error",
        "The service failed to answer; its log has the details under this request id.",
    )


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error of the framework and of the routes in the one shape."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException | RequestValidationError)  # noqa: S101  (registered for these)
        return answer_to(error, request.scope)

    app.add_exception_handler(HTTPException, answer)
    app.add_exception_handler(RequestValidationError, answer)


def answer_to(error: HTTPException | RequestValidationError, scope: Mapping[str, Any]) -> JSONResponse:
    """The response to a request that was refused."""
    if isinstance(error, RequestValidationError):
        return _invalid_request(error, scope)
    status = HTTPStatus(error.status_code)
    if isinstance(error, ServiceError):
        details, headers = error.details, error.headers
        return error_response(scope, status, error.code, error.detail, details=details, headers=headers)
    code = status.phrase.lower().replace(" ", "_")
    return error_response(scope, status, code, f"{status.phrase}.", headers=error.headers)


def _invalid_request(error: RequestValidationError, scope: Mapping[str, Any]) -> JSONResponse:
    problems = error.errors()
    details = [_detail(problem) for problem in problems[:MAX_DETAILS]]
    count = f"{len(problems)} field is" if len(problems) == 1 else f"{len(problems)} fields are"
    listed = f"; the first {MAX_DETAILS} are listed" if len(problems) > MAX_DETAILS else ""
    return error_response(
        scope,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid_request",
        f"{count} invalid{listed}.",
        details=details,
    )


def _detail(problem: Mapping[str, Any]) -> ErrorDetail:
    if problem["type"] == "json_invalid":
        return ErrorDetail(field="body", message="The body is not valid JSON.", type="json_invalid")
    # The first part says "body" of every field.
    field = ".".join(str(part) for part in problem["loc"][1:]) or "body"
    return ErrorDetail(field=field[:LONGEST_NAME], message=problem["msg"], type=problem["type"])
