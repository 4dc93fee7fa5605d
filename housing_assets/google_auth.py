"""How MLflow's client signs in to a tracking server on Cloud Run: with an ID token of the service account.

MLflow finds it by `MLFLOW_TRACKING_AUTH=google-id-token` (an entry point of the package).
"""

import time
from urllib.parse import urlsplit

import requests
from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider
from requests.auth import AuthBase

from housing_assets.deployment.cloud_run_smoke import id_token

NAME = "google-id-token"
# Tokens are good for an hour; a long request must not meet the end of one.
FRESH_SECONDS = 45 * 60


class GoogleIdToken(AuthBase):
    """Adds a token for the server that is asked, and makes a new one in time."""

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[str | None, float]] = {}

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """The request with its token; without, where the credentials cannot make one."""
        address = urlsplit(str(request.url))
        audience = f"{address.scheme}://{address.netloc}"
        token, made = self._tokens.get(audience, (None, 0.0))
        if token is None or time.monotonic() - made > FRESH_SECONDS:
            token = id_token(audience)
            self._tokens[audience] = (token, time.monotonic())
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        return request


class GoogleAuthProvider(RequestAuthProvider):  # type: ignore[misc]
    """MLflow's view of it."""

    def __init__(self) -> None:
        self._auth = GoogleIdToken()

    def get_name(self) -> str:
        """What MLFLOW_TRACKING_AUTH says."""
        return NAME

    def get_auth(self) -> AuthBase:
        """Signs each request."""
        return self._auth
