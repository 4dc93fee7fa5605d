"""Asking an MLflow tracking server which version an alias names, over its REST API.

The answer comes from outside: it is read up to a limit, redirects are not followed, and only what it must say
is taken from it. The bundle itself lies in the storage root; see `sources`.
"""

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

import requests
from pydantic import BaseModel, Field, ValidationError
from urllib3.exceptions import HTTPError

from housing_serving.deadline import Deadline
from housing_serving.http_session import end_with
from housing_serving.settings import ServingSettings
from housing_serving.storage_readers import ModelUnavailable, NotRegistered

ALIAS_PATH = "/api/2.0/mlflow/registered-models/alias"
# A description and tags of the longest kind stay far below it.
MAX_ANSWER_BYTES = 1024 * 1024
PIECE_BYTES = 64 * 1024
URI_TAG = "bundle_uri"
SHA256_TAG = "bundle_sha256"
CHECK_ADDRESS = "check that MLFLOW_TRACKING_URI is the address of an MLflow server itself"


@dataclass(frozen=True)
class RegisteredBundle:
    """The version an alias names: its number, the address of its `bundle.json`, and that file's sha256."""

    version: int
    manifest_uri: str
    manifest_sha256: str


class _Tag(BaseModel):
    key: str
    value: str


class _Version(BaseModel):
    name: str
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
    tags: list[_Tag] = []


class _Answer(BaseModel):
    model_version: _Version


class _Busy(Exception):
    """The server cannot answer now."""


def bundle_behind_alias(settings: ServingSettings, deadline: Deadline) -> RegisteredBundle:
    """What the configured alias of the configured model names.

    Raises:
        NotRegistered: the model or its alias does not exist (yet).
        ModelUnavailable: the server cannot be asked, refuses, or does not answer as MLflow does.
    """
    place = alias_address(settings)
    try:
        status, body = deadline.retry(lambda: _ask(settings, deadline), _is_transient)
    except _Busy as error:
        raise ModelUnavailable(f"{place}: the server keeps failing, see its log") from error
    except (requests.RequestException, HTTPError, OSError) as error:
        raise ModelUnavailable(
            f"{place} cannot be reached: check MLFLOW_TRACKING_URI and that the server runs"
        ) from error
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise ModelUnavailable(
            f"{place}: the server refuses access: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
            "or MLFLOW_TRACKING_TOKEN, to what it accepts"
        )
    if _says_not_registered(status, body):
        raise NotRegistered(f"{place} does not exist: give a registered version this alias")
    if status != HTTPStatus.OK:
        raise ModelUnavailable(f"{place}: the server answers with status {status}: {CHECK_ADDRESS}")
    return _registered(body, settings.mlflow_model_name, place)


def alias_address(settings: ServingSettings) -> str:
    """Server, model and alias, as people read them; without what may be secret in the address."""
    address = re.sub(r"//.*@", "//", str(settings.mlflow_tracking_uri)).split("?")[0].rstrip("/")
    return f"{address} {settings.mlflow_model_name}@{settings.mlflow_model_alias}"


def _ask(settings: ServingSettings, deadline: Deadline) -> tuple[int, bytes]:
    with requests.Session() as session:
        end_with(deadline, session)
        session.auth = _credentials(settings)
        with session.get(
            str(settings.mlflow_tracking_uri).rstrip("/") + ALIAS_PATH,
            params={"name": settings.mlflow_model_name, "alias": settings.mlflow_model_alias},
            # Read as sent: a compressed answer could be of any size.
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=deadline.timeouts,
            allow_redirects=False,
            stream=True,
        ) as response:
            if response.status_code == HTTPStatus.TOO_MANY_REQUESTS or response.status_code >= 500:
                raise _Busy
            return response.status_code, _read(response)


def _read(response: requests.Response) -> bytes:
    # To its end, where a cut transfer shows, but no further than to see that it is too much.
    body = bytearray()
    while len(body) <= MAX_ANSWER_BYTES and (piece := response.raw.read(PIECE_BYTES)):
        body += piece
    return bytes(body)


@dataclass(frozen=True)
class _BearerToken(requests.auth.AuthBase):
    token: str

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def _credentials(settings: ServingSettings) -> requests.auth.AuthBase | None:
    # In the order in which MLflow's own client looks at them.
    username, password = settings.mlflow_tracking_username, settings.mlflow_tracking_password
    if username and password:
        # As bytes: requests would encode text as Latin-1, and fail on other letters.
        return requests.auth.HTTPBasicAuth(username.encode(), password.get_secret_value().encode())
    if settings.mlflow_tracking_token:
        return _BearerToken(settings.mlflow_tracking_token.get_secret_value())
    return None


def _is_transient(error: BaseException) -> bool:
    passing = (_Busy, HTTPError, requests.ConnectionError, requests.Timeout)
    return isinstance(error, passing) and not isinstance(error, requests.exceptions.SSLError)


def _says_not_registered(status: int, body: bytes) -> bool:
    if status not in {HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST}:
        return False
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(answer, dict):
        return False
    code = answer.get("error_code")
    # A model that does not exist has a code of its own, an alias that does not exist has not.
    absent_alias = code == "INVALID_PARAMETER_VALUE" and "not found" in str(answer.get("message"))
    return code == "RESOURCE_DOES_NOT_EXIST" or absent_alias


def _registered(body: bytes, name: str, place: str) -> RegisteredBundle:
    if len(body) > MAX_ANSWER_BYTES:
        raise ModelUnavailable(
            f"{place}: the answer is larger than {MAX_ANSWER_BYTES} bytes: {CHECK_ADDRESS}"
        )
    try:
        found = _Answer.model_validate_json(body).model_version
    except ValidationError as error:
        raise ModelUnavailable(f"{place}: the answer names no model version: {CHECK_ADDRESS}") from error
    if found.name != name:
        raise ModelUnavailable(f"{place}: the answer is about another model: {CHECK_ADDRESS}")
    tags = {tag.key: tag.value for tag in found.tags}
    if URI_TAG not in tags or SHA256_TAG not in tags:
        raise ModelUnavailable(
            f"{place} is version {found.version}, which has no {URI_TAG} and {SHA256_TAG}: "
            "give the alias to a version that registered_model has made"
        )
    return RegisteredBundle(int(found.version), tags[URI_TAG], tags[SHA256_TAG])
