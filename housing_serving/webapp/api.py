"""The API as the web app asks it: typed answers, time limits, and two kinds of trouble."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import requests
from pydantic import BaseModel, ValidationError

from housing_serving.error_body import ErrorBody, ErrorResponse
from housing_serving.schemas import (
    ExplanationResponse,
    InstanceExplanation,
    ModelInfo,
    MonitoringStatus,
    NearestBlockGroups,
    PredictionResponse,
    PromotionReport,
    Readiness,
    ReleaseHistory,
)

M = TypeVar("M", bound=BaseModel)
Instance = Mapping[str, Any]

# Seconds to connect, and between two pieces of an answer.
TIMEOUTS = (2.0, 15.0)
PROBE_TIMEOUTS = (2.0, 4.0)


class ApiUnavailable(Exception):
    """No answer, or one that says to come back later; the message says which."""


class ApiRefused(Exception):
    """The API answers, and says no."""

    def __init__(self, error: ErrorBody) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True)
class PriceApi:
    """The prediction API at an address; safe to share between threads."""

    url: str
    key: str | None = None

    def ready_version(self) -> str | None:
        """The version that answers; None while the API has no model.

        Raises:
            ApiUnavailable: it does not answer.
        """
        response = self._send("GET", "/health/ready", PROBE_TIMEOUTS)
        if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            return None
        return self._parsed(response, Readiness).model_version

    def predict(self, instances: Sequence[Instance]) -> PredictionResponse:
        """Prices of 1 to 1000 block groups.

        Raises:
            ApiUnavailable: there is no answer now.
            ApiRefused: the instances are not what the API takes.
        """
        return self._ask(PredictionResponse, "/api/v1/predict", {"instances": list(instances)})

    def explain(self, instance: Instance) -> InstanceExplanation:
        """Why a block group has its price; raises as `predict` does."""
        answer = self._ask(ExplanationResponse, "/api/v1/explain", {"instances": [instance]})
        return answer.explanations[0]

    def nearest(self, longitude: float, latitude: float) -> NearestBlockGroups:
        """The block groups around a place; raises as `predict` does."""
        place = f"longitude={longitude}&latitude={latitude}"
        return self._ask(NearestBlockGroups, f"/api/v1/block-groups/nearest?{place}")

    def model_info(self) -> ModelInfo:
        """The model that answers; raises as `predict` does."""
        return self._ask(ModelInfo, "/api/v1/model/info")

    def releases(self) -> ReleaseHistory:
        """What was released when; raises as `predict` does."""
        return self._ask(ReleaseHistory, "/api/v1/model/releases")

    def evaluation(self) -> PromotionReport:
        """How the model was judged; raises as `predict` does."""
        return self._ask(PromotionReport, "/api/v1/model/evaluation")

    def monitoring(self) -> MonitoringStatus:
        """What monitoring found; raises as `predict` does."""
        return self._ask(MonitoringStatus, "/api/v1/model/monitoring")

    def _ask(self, model: type[M], path: str, body: Mapping[str, Any] | None = None) -> M:
        response = self._send("GET" if body is None else "POST", path, TIMEOUTS, body)
        return self._parsed(response, model)

    def _send(
        self, method: str, path: str, timeouts: tuple[float, float], body: Mapping[str, Any] | None = None
    ) -> requests.Response:
        headers = {} if self.key is None else {"X-API-Key": self.key}
        try:
            return requests.request(
                method,
                f"{self.url}{path}",
                json=body,
                headers=headers,
                timeout=timeouts,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise ApiUnavailable(f"{self.url} does not answer") from error

    def _parsed(self, response: requests.Response, model: type[M]) -> M:
        kind: type[BaseModel] = model if response.ok else ErrorResponse
        try:
            answer = kind.model_validate_json(response.content)
        except ValidationError as error:
            what = f"{self.url} answers {response.status_code} with something else than the price API would"
            raise ApiUnavailable(what) from error
        if isinstance(answer, model):
            return answer
        assert isinstance(answer, ErrorResponse)  # noqa: S101  (there is no third kind)
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ApiUnavailable(answer.error.message)
        raise ApiRefused(answer.error)
