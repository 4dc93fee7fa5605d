"""The smoke test of a revision that gets no traffic yet: it is ready, prices, and is the right version."""

import math
from collections.abc import Callable

import requests
import tenacity

from housing_assets.deployment.target import DeploymentError

TIMEOUT_SECONDS = 10.0
CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
# A block group in the Berkeley hills, without bedrooms: imputation has to work as well.
EXAMPLE = {
    "longitude": -122.23,
    "latitude": 37.88,
    "housing_median_age": 41,
    "total_rooms": 880,
    "total_bedrooms": None,
    "population": 322,
    "households": 126,
    "median_income": 8.3252,
    "ocean_proximity": "NEAR BAY",
}
UNKNOWN_CALLER = (
    "whoever deploys needs roles/run.invoker, and credentials that can make ID tokens: a service account's"
)
HINTS = {
    401: UNKNOWN_CALLER,
    403: UNKNOWN_CALLER,
    404: "either the URL is not known everywhere yet, or ingress lets nobody in from here: deploy from the "
    "project's network, or set CLOUD_RUN_INGRESS",
}


class SmokeTestFailed(DeploymentError):
    """A revision does not answer as it should; the message says what it does."""


def smoke_test(url: str, version: int, *, token: str | None, seconds: float) -> float:
    """Ask a revision for its readiness and for one price, which is returned.

    Raises:
        SmokeTestFailed: it did not answer within so many seconds, or not with what it should.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # A new URL takes a moment to be known everywhere, and a new instance to start.
    asking = tenacity.Retrying(
        stop=tenacity.stop_after_delay(seconds),
        wait=tenacity.wait_exponential(0.25, max=5.0),
        retry=tenacity.retry_if_exception_type((requests.RequestException, _NotYet)),
        reraise=True,
    )

    def ask(request: Callable[[], requests.Response]) -> dict[str, object]:
        try:
            answer: requests.Response = asking(_answer, request)
            body = answer.json()
        except (requests.RequestException, _NotYet, ValueError) as error:
            raise SmokeTestFailed(f"the smoke test of version {version} failed: {error}") from error
        found = body.get("model_version") if isinstance(body, dict) else None
        if found != str(version):
            raise SmokeTestFailed(f"{answer.url} answers with model version {found}, not {version}")
        return dict(body)

    ask(lambda: requests.get(f"{url}/health/ready", headers=headers, timeout=TIMEOUT_SECONDS))
    body = {"instances": [EXAMPLE]}
    priced = ask(
        lambda: requests.post(f"{url}/api/v1/predict", json=body, headers=headers, timeout=TIMEOUT_SECONDS)
    )
    return _price(priced, url)


class _NotYet(Exception):
    """An answer that may get better."""


def _answer(request: Callable[[], requests.Response]) -> requests.Response:
    answer = request()
    if answer.status_code == 200:
        return answer
    said = f"{answer.url} answers {answer.status_code}"
    hint = HINTS.get(answer.status_code)
    problem = f"{said}: {hint}" if hint else f"{said}: {answer.text[:200]}"
    if answer.status_code in {401, 403}:
        raise SmokeTestFailed(f"the smoke test failed: {problem}")
    raise _NotYet(problem)


def _price(body: dict[str, object], url: str) -> float:
    predictions = body.get("predictions")
    first = predictions[0] if isinstance(predictions, list) and len(predictions) == 1 else None
    price = first.get("predicted_price") if isinstance(first, dict) else None
    if not isinstance(price, int | float) or not math.isfinite(price) or price <= 0:
        raise SmokeTestFailed(f"{url}/api/v1/predict answers with no price: {str(body)[:200]}")
    return float(price)


def id_token(audience: str) -> str | None:
    """A token that the service accepts; None when the credentials of the environment cannot make one.

    Cloud Run wants the service's own URL as the audience, also for requests to a tag's URL.
    """
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415  (only where Cloud Run is the target)
    from google.auth.transport.requests import Request  # noqa: PLC0415
    from google.oauth2.id_token import fetch_id_token  # noqa: PLC0415

    try:
        return str(fetch_id_token(Request(), audience))
    except GoogleAuthError:
        # Of the metadata server and of keys alone; a workflow's federated identity has neither.
        return _federated_id_token(audience)


def _federated_id_token(audience: str) -> str | None:
    import google.auth  # noqa: PLC0415
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
    from google.auth.impersonated_credentials import Credentials, IDTokenCredentials  # noqa: PLC0415
    from google.auth.transport.requests import Request  # noqa: PLC0415

    try:
        own, _ = google.auth.default(scopes=[CLOUD_PLATFORM])
        account = getattr(own, "service_account_email", None)
        if account is None:
            # A person's own: the request goes without, and the answer says so if that will not do.
            return None
        impersonated = Credentials(own, account, target_scopes=[CLOUD_PLATFORM])
        made = IDTokenCredentials(impersonated, target_audience=audience, include_email=True)
        made.refresh(Request())
    except GoogleAuthError:
        return None
    return str(made.token)
