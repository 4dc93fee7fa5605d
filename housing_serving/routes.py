"""The HTTP routes: check, call the bundle, answer."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool

from housing_serving.errors import ErrorResponse, ModelNotReady
from housing_serving.model_slot import ModelSlot
from housing_serving.schemas import (
    FeatureInfo,
    Health,
    ModelInfo,
    PredictionRequest,
    PredictionResponse,
    Readiness,
    ServiceInfo,
    instance_columns,
    prediction_list,
)
from housing_serving.sources import LoadedModel

# A batch above this many rows would hold up other requests for milliseconds, so it runs in a thread.
INLINE_ROWS = 200
# Searching the training rows for neighbours costs a millisecond per row without bedrooms.
INLINE_NULL_ROWS = 5

Responses = dict[int | str, dict[str, Any]]


def _errors(*statuses: HTTPStatus) -> Responses:
    return {int(status): {"model": ErrorResponse, "description": status.phrase} for status in statuses}


NO_MODEL = _errors(HTTPStatus.SERVICE_UNAVAILABLE)

router = APIRouter(responses=_errors(HTTPStatus.INTERNAL_SERVER_ERROR))


async def model_slot(request: Request) -> ModelSlot:
    """The application's model slot."""
    slot: ModelSlot = request.app.state.model_slot
    return slot


async def loaded_model(slot: Annotated[ModelSlot, Depends(model_slot)]) -> LoadedModel:
    """The loaded model.

    Raises:
        ModelNotReady: there is none yet.
    """
    if slot.model is None:
        raise ModelNotReady(slot.retry_seconds)
    return slot.model


ModelSlotOf = Annotated[ModelSlot, Depends(model_slot)]
LoadedModelOf = Annotated[LoadedModel, Depends(loaded_model)]


@router.post(
    "/api/v1/predict",
    tags=["prediction"],
    summary="Price block groups",
    responses=NO_MODEL
    | _errors(HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY),
)
async def predict(request: PredictionRequest, model: LoadedModelOf) -> PredictionResponse:
    """Price 1 to 1000 block groups at once; the answers come in the order of the instances."""
    if _is_small(request):
        return _predict(request, model)
    return await run_in_threadpool(_predict, request, model)


def _is_small(request: PredictionRequest) -> bool:
    nulls = sum(instance.total_bedrooms is None for instance in request.instances)
    return len(request.instances) <= INLINE_ROWS and nulls <= INLINE_NULL_ROWS


def _predict(request: PredictionRequest, model: LoadedModel) -> PredictionResponse:
    manifest = model.bundle.manifest
    predictions = model.bundle.predict(instance_columns(request.instances))
    return PredictionResponse(
        predictions=prediction_list(predictions, manifest.interval.level),
        model_version=str(manifest.model_version),
    )


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
    )


@router.get("/health", tags=["health"], summary="Liveness")
async def health(request: Request, slot: ModelSlotOf) -> Health:
    """200 as long as the process answers; `degraded` means that no model is loaded yet."""
    loaded = slot.model is not None
    status = "healthy" if loaded else "degraded"
    return Health(status=status, model_loaded=loaded, version=request.app.version)


@router.get("/health/ready", tags=["health"], summary="Readiness", responses=NO_MODEL)
async def ready(model: LoadedModelOf) -> Readiness:
    """200 once predictions are answered, 503 before."""
    return Readiness(status="ready", model_version=str(model.bundle.manifest.model_version))


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
