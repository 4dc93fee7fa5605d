"""The application factory: routes, errors, middleware and the task that keeps looking for a model."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version

from fastapi import FastAPI

from housing_serving.errors import install_error_handlers
from housing_serving.middleware import BodyLimit, RequestLog
from housing_serving.model_slot import ModelSlot
from housing_serving.routes import router
from housing_serving.settings import ServingSettings

# A thousand instances take about a quarter of it.
MAX_BODY_BYTES = 1024 * 1024
# A local model is there at once; a slow bucket must not keep the service from listening.
FIRST_LOOK_SECONDS = 3.0


def create_app(settings: ServingSettings) -> FastAPI:
    """The service for these settings; the model is loaded when it starts, not here."""
    app = FastAPI(
        title="housing-price-api",
        version=version("housing-assets"),
        description="Prices of Californian census block groups, with an interval for each.",
        lifespan=_lifespan,
    )
    app.state.model_slot = ModelSlot(settings)
    app.include_router(router)
    install_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, limit=MAX_BODY_BYTES)
    app.add_middleware(RequestLog)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    slot: ModelSlot = app.state.model_slot
    filling = asyncio.create_task(slot.fill())
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(slot.looked.wait(), FIRST_LOOK_SECONDS)
    try:
        yield
    finally:
        filling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await filling
