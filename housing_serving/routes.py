"""The HTTP routes: check, call the bundle, answer."""

import time
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from housing_serving.error_body import ErrorDetail, ErrorResponse
from housing_serving.errors import (
    REQUEST_ID,
    Ending,
    ExplanationUnavailable,
    ModelNotReady,
    NeighboursUnavailable,
    NotRecorded,
    RecordsUnavailable,
    answer_to,
)
from housing_serving.middleware import STARTED
from housing_serving.neighbours import KM_PER_DEGREE, TRAITS
from housing_serving.prediction_log import Answer
from housing_serving.records import FRESH_SECONDS, RecordsUnreadable
from housing_serving.request_body import read_json_body
from housing_serving.schemas import (
    DeepHealth,
    ExplanationRequest,
    ExplanationResponse,
    FeatureInfo,
    Health,
    ModelInfo,
    MonitoringStatus,
    NearbyBlockGroup,
    NearestBlockGroups,
    NearestQuery,
    PredictionLogHealth,
    PredictionRequest,
    PredictionResponse,
    PromotionReport,
    Readiness,
    ReleaseChange,
    ReleaseHealth,
    ReleaseHistory,
    ServiceInfo,
    SourceHealth,
)
from housing_serving.service import Service
from housing_serving.sources import LoadedModel

Responses = dict[int | str, dict[str, Any]]


# Every answer carries it.
ANSWER_HEADERS = {
    "X-Request-ID": {
        "description": "The id of this request in the service's log.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    }
}
# Only while there is a canary.
TRACK_HEADER = "X-Model-Track"
PREDICTION_HEADERS = {
    **ANSWER_HEADERS,
    TRACK_HEADER: {
        "description": "Whether the stable version answered, or one that is tried out; only there during "
        "such a trial.",
        "schema": {"type": "string", "enum": ["stable", "canary"]},
    },
}
OK: Responses = {int(HTTPStatus.OK): {"headers": ANSWER_HEADERS}}


def _errors(*statuses: HTTPStatus) -> Responses:
    return {
        int(status): {"model": ErrorResponse, "description": status.phrase, "headers": ANSWER_HEADERS}
        for status in statuses
    }


NO_MODEL = _errors(HTTPStatus.SERVICE_UNAVAILABLE)
NO_RECORDS = _errors(HTTPStatus.SERVICE_UNAVAILABLE)
NO_EXPLANATION = NO_NEIGHBOURS = _errors(HTTPStatus.CONFLICT)
REFUSED = _errors(
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)


RELEASE_TROUBLE = frozenset({"incomplete", "unreadable"})
PREDICT = "/api/v1/predict"
EXPLAIN = "/api/v1/explain"


class DirectRoute(APIRoute):
    """A route that hands the request to its endpoint as it is.

    FastAPI would parse the body into a dictionary, validate that, and serialise a response model: several
    times the cost of a prediction. What is documented does not change by this.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint itself."""
        return self.endpoint


EVERYWHERE = OK | _errors(HTTPStatus.INTERNAL_SERVER_ERROR)
router = APIRouter(responses=EVERYWHERE)
direct = APIRouter(route_class=DirectRoute, responses=EVERYWHERE)


async def the_service(request: Request) -> Service:
    """What the application consists of."""
    service: Service = request.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(the_service)]


async def loaded_model(service: ServiceOf) -> LoadedModel:
    """The loaded model.

    Raises:
        ModelNotReady: there is none yet.
    """
    if service.slot.model is None:
        raise _not_ready(service)
    return service.slot.model


LoadedModelOf = Annotated[LoadedModel, Depends(loaded_model)]


RequestId = Annotated[
    str,
    Header(
        alias="X-Request-ID",
        description="Your id for this request, for the service's log: up to 64 letters, digits, `.`, `_` "
        "and `-`. Any other is replaced; the answer has the one that counts.",
        examples=["6f1c1c0f4e0b4b0f8b7f3f3f1d2c9a55"],  # pragma: allowlist secret
    ),
]


async def documented_request(body: PredictionRequest, x_request_id: RequestId = "") -> None:
    """What `predict` and the middleware read from the request themselves."""


async def documented_explanation_request(body: ExplanationRequest, x_request_id: RequestId = "") -> None:
    """What `explain` and the middleware read from the request themselves."""


@direct.post(
    PREDICT,
    tags=["prediction"],
    summary="Price block groups",
    response_model=PredictionResponse,
    responses=NO_MODEL | REFUSED | {int(HTTPStatus.OK): {"headers": PREDICTION_HEADERS}},
    # For the documentation; a direct route solves no dependencies.
    dependencies=[Depends(documented_request)],
)
async def predict(request: Request) -> Response:
    """Price 1 to 1000 block groups at once; the answers come in the order of the instances.

    A value outside what the model was trained on is answered with a warning; an impossible one is refused.
    """
    service: Service = request.app.state.service
    if service.slot.model is None:
        raise _not_ready(service)
    body = await read_json_body(request)
    scope = request.scope
    answered = await service.pricing.answer(body, scope[REQUEST_ID])
    priced = answered.priced
    manifest = priced.model.bundle.manifest
    version = str(manifest.model_version)
    service.metrics.predicted(version, len(priced.predictions.price))
    service.log.record(
        Answer(
            request_id=scope[REQUEST_ID],
            answered_at=time.time(),
            latency_seconds=time.perf_counter() - scope[STARTED],
            model_version=version,
            level=manifest.interval.level,
            columns=priced.columns,
            predictions=priced.predictions,
        )
    )
    track = None if answered.track is None else {TRACK_HEADER: answered.track}
    return Response(answered.body, media_type="application/json", headers=track)


@direct.post(
    EXPLAIN,
    tags=["prediction"],
    summary="Explain prices",
    response_model=ExplanationResponse,
    responses=NO_MODEL | NO_EXPLANATION | REFUSED,
    dependencies=[Depends(documented_explanation_request)],
)
async def explain(request: Request) -> Response:
    """Say how far each input moves the prices of 1 to 20 block groups; the answers come in their order.

    `base_value` and the contributions, which are exact Shapley values in dollars, add up to the price. The
    stable version answers, also while another one is tried out. Explanations are not in the prediction log.
    """
    service: Service = request.app.state.service
    model = service.slot.model
    if model is None:
        raise _not_ready(service)
    version = model.bundle.manifest.model_version
    if not model.bundle.explainable:
        raise ExplanationUnavailable(version)
    explained = await service.explaining.answer(await read_json_body(request), model)
    service.metrics.explained(str(version), explained.rows)
    return Response(explained.body, media_type="application/json")


async def answer_directly(scope: Scope, receive: Receive, send: Send) -> None:
    """`predict` as an application of its own, for requests that need no routing."""
    request = Request(scope, receive)
    # As the router does: the route's path labels the metrics.
    scope["route"] = direct.routes[0]
    try:
        response = await predict(request)
    except (HTTPException, RequestValidationError) as error:
        response = answer_to(error, scope)
    await response(scope, receive, send)


@router.get("/api/v1/model/info", tags=["model"], summary="The model that answers", responses=NO_MODEL)
async def model_info(model: LoadedModelOf) -> ModelInfo:
    """Version, origin, quality and training ranges of the loaded model."""
    manifest = model.bundle.manifest
    return ModelInfo(
        status="ready",
        model_loaded=True,
        model_name=manifest.model_name,
        model_version=str(manifest.model_version),
        algorithm=manifest.algorithm,
        target=manifest.target,
        snapshot=manifest.snapshot,
        data_hash=manifest.data_hash,
        git_commit=manifest.git_commit,
        created_at=manifest.created_at,
        metrics=manifest.metrics,
        features=[FeatureInfo(**feature.model_dump()) for feature in manifest.features],
        categories=list(manifest.categories),
        imputation=manifest.imputer.strategy,
        interval_level=manifest.interval.level,
        libraries=manifest.libraries,
        source=model.source,
        uri=model.uri,
    )


@router.get("/api/v1/model/releases", tags=["model"], summary="What was released when")
async def model_releases(service: ServiceOf) -> ReleaseHistory:
    """The versions of the release record that this process follows, and the steps that led there."""
    record = service.release.record
    if record is None:
        return ReleaseHistory(
            stable_version=None, canary_version=None, canary_percent=0.0, previous_version=None, changes=[]
        )
    return ReleaseHistory(
        stable_version=record.stable_version,
        canary_version=record.canary_version,
        canary_percent=record.canary_percent,
        previous_version=record.previous_version,
        changes=[ReleaseChange(**change.model_dump()) for change in reversed(record.history)],
    )


@router.get(
    "/api/v1/model/evaluation",
    tags=["model"],
    summary="How the model was judged",
    responses=NO_MODEL | _errors(HTTPStatus.NOT_FOUND),
)
async def model_evaluation(model: LoadedModelOf, service: ServiceOf) -> PromotionReport:
    """The scores of the loaded model on the test set, and the conditions that it had to meet."""
    version = model.bundle.manifest.model_version
    try:
        report = await service.records.promotion_report(version)
    except RecordsUnreadable as error:
        raise RecordsUnavailable(FRESH_SECONDS) from error
    if report is None:
        raise NotRecorded(version)
    return report


@router.get("/api/v1/model/monitoring", tags=["model"], summary="What monitoring found", responses=NO_RECORDS)
async def model_monitoring(service: ServiceOf) -> MonitoringStatus:
    """The newest report on drift, and the newest on errors once labels have come."""
    try:
        return MonitoringStatus(reports=await service.records.monitoring_reports())
    except RecordsUnreadable as error:
        raise RecordsUnavailable(FRESH_SECONDS) from error


@router.get(
    "/api/v1/block-groups/nearest",
    tags=["model"],
    summary="Block groups around a place",
    responses=NO_MODEL | NO_NEIGHBOURS | _errors(HTTPStatus.UNPROCESSABLE_ENTITY),
)
async def nearest_block_groups(
    model: LoadedModelOf, place: Annotated[NearestQuery, Query()]
) -> NearestBlockGroups:
    """The block groups nearest to a place, with the prices that the model learned from."""
    manifest, neighbourhood = model.bundle.manifest, model.bundle.neighbourhood
    if neighbourhood is None:
        raise NeighboursUnavailable(manifest.model_version)
    found, distances = neighbourhood.index.nearest(np.array([place.latitude]), np.array([place.longitude]))
    block_groups = [
        NearbyBlockGroup(
            longitude=float(neighbourhood.longitude[one]),
            latitude=float(neighbourhood.latitude[one]),
            distance_km=round(distance * KM_PER_DEGREE, 3),
            median_house_value=float(neighbourhood.price[one]),
            **dict(zip(TRAITS, neighbourhood.traits[:, one].tolist(), strict=True)),
        )
        for one, distance in zip(found[0].tolist(), distances[0].tolist(), strict=True)
    ]
    return NearestBlockGroups(
        block_groups=block_groups[: place.limit], model_version=str(manifest.model_version)
    )


@router.get("/health", tags=["health"], summary="Liveness")
async def health(request: Request, service: ServiceOf) -> Health:
    """200 as long as the process answers; `degraded` means that no model is loaded yet."""
    loaded = service.slot.model is not None
    status = "healthy" if loaded else "degraded"
    return Health(status=status, model_loaded=loaded, version=request.app.version)


@router.get("/health/ready", tags=["health"], summary="Readiness", responses=NO_MODEL)
async def ready(model: LoadedModelOf, service: ServiceOf) -> Readiness:
    """200 once predictions are answered, 503 before, and again while the process is ending."""
    if service.draining:
        raise Ending
    return Readiness(status="ready", model_version=str(model.bundle.manifest.model_version))


@router.get("/health/deep", tags=["health"], summary="Every dependency", responses=NO_MODEL)
async def deep(service: ServiceOf) -> DeepHealth:
    """Each model source, the release record and the prediction log; `degraded` for what prices survive.

    503 without a model, with the reason of each source among the details.
    """
    model, statuses = service.slot.model, service.slot.sources()
    if model is None:
        reasons = [f"{status.state}: {status.detail or status.target}" for status in statuses]
        raise _not_ready(service, reasons)
    log, release = service.log.status(), service.release.status
    well = service.slot.serves_first_choice and log.healthy and release.state not in RELEASE_TROUBLE
    return DeepHealth(
        status="healthy" if well else "degraded",
        model_version=str(model.bundle.manifest.model_version),
        sources=[SourceHealth.model_validate(status, from_attributes=True) for status in statuses],
        release=ReleaseHealth.model_validate(release, from_attributes=True),
        prediction_log=PredictionLogHealth.model_validate(log, from_attributes=True),
    )


@router.get(
    "/metrics",
    tags=["service"],
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "headers": ANSWER_HEADERS}},
)
async def metrics(service: ServiceOf) -> Response:
    """Counts, latencies and distributions of all workers, in Prometheus' text format."""
    service.metrics.sources_changed(service.slot.sources())
    body, kind = await run_in_threadpool(service.metrics.exposition)
    return Response(body, media_type=kind)


@router.get("/", tags=["service"], summary="What this service is")
async def service_info(request: Request) -> ServiceInfo:
    """Name, version and where to look next."""
    app = request.app
    return ServiceInfo(
        name=app.title,
        version=app.version,
        description=app.description,
        docs_url="/docs",
        health_url="/health",
    )


def _not_ready(service: Service, reasons: Sequence[str] | None = None) -> ModelNotReady:
    statuses = service.slot.sources()
    # Addresses are for operators: without `reasons`, only how each source stands.
    messages = reasons or [f"The source is {status.state}." for status in statuses]
    details = [
        ErrorDetail(field=status.name, message=message, type=f"source_{status.state}")
        for status, message in zip(statuses, messages, strict=True)
    ]
    return ModelNotReady(service.slot.retry_seconds, details)
