"""The application: routes, errors, and what surrounds every request."""

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from housing_serving import docs_page
from housing_serving.api_document import complete
from housing_serving.errors import install_error_handlers
from housing_serving.log_format import configure_logging
from housing_serving.middleware import Surroundings
from housing_serving.parent import end_with_parent
from housing_serving.routes import PREDICT, answer_directly, direct, router
from housing_serving.security import protections
from housing_serving.service import Service
from housing_serving.settings import ServingSettings


class PriceApi(FastAPI):
    """A FastAPI application whose predictions take the shortest way.

    Routing, dependencies, telemetry and several exception handlers cost more than a prediction does, and no
    prediction needs them. Its route is declared like any other, for the documentation and for whatever comes
    to its path by another method.
    """

    def __init__(self, settings: ServingSettings) -> None:
        super().__init__(
            title="housing-price-api",
            version=version("housing-assets"),
            description="Prices of Californian census block groups, with an interval for each.",
            lifespan=_lifespan,
            # A path with a slash too many is unknown; the redirect would go to whatever host a caller names.
            redirect_slashes=False,
            # Both would load their pages' programs from the internet.
            docs_url=None,
            redoc_url=None,
            # Clients that are generated from the document name their methods so.
            generate_unique_id_function=lambda route: route.name,
        )
        self._document: dict[str, Any] | None = None
        self._protected_by = {
            "keys": settings.housing_api_keys is not None,
            "rate_limit": settings.housing_rate_limit is not None,
        }
        service = self.state.service = Service(settings)
        self.include_router(direct)
        self.include_router(router)
        self.include_router(docs_page.router)
        install_error_handlers(self)
        predictions: ASGIApp = answer_directly
        # From the outside in.
        for middleware in reversed([Middleware(Surroundings, service=service), *protections(settings)]):
            self.add_middleware(middleware.cls, *middleware.args, **middleware.kwargs)
            predictions = middleware.cls(predictions, *middleware.args, **middleware.kwargs)
        self._predictions = predictions

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if self._document is None:
            self._document = complete(super().openapi(), **self._protected_by)
        return self._document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"] == PREDICT and scope["method"] == "POST":
            scope["app"] = self
            await self._predictions(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: ServingSettings) -> PriceApi:
    """The service for these settings; the model is loaded when it starts, not here."""
    return PriceApi(settings)


def from_environment() -> PriceApi:
    """The service as each worker process makes it."""
    settings = ServingSettings.load()
    configure_logging(settings.housing_log_level)
    if settings.web_concurrency > 1:
        end_with_parent()
    return create_app(settings)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    async with service.running():
        yield
