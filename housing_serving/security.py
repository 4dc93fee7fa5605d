"""Who may call, how often, and from which web pages. Nothing of it is installed unless it is set."""

import hmac
import math
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from housing_serving.errors import ServiceError, answer_to, error_response
from housing_serving.settings import ServingSettings, listed

if TYPE_CHECKING:
    from housing_serving.rate_limit import RateLimit, Standing

# What load balancers and people look at first; everything else, known or not, needs a key.
_WITHOUT_KEY = frozenset({"/", "/health", "/health/ready", "/docs", "/openapi.json"})
_ASSETS_WITHOUT_KEY = "/docs/"
# Probes and scrapes must not fail because a caller behind the same address is busy.
_WITHOUT_LIMIT = ("/health", "/metrics")

RATE_LIMIT_HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")

RawHeaders = Iterable[tuple[bytes, bytes]]


class Unauthorized(ServiceError):
    """The request carries no key, or none that is known."""

    def __init__(self) -> None:
        super().__init__(
            HTTPStatus.UNAUTHORIZED,
            "unauthorized",
            "Send a valid API key, as X-API-Key or as Authorization: Bearer.",
            {"WWW-Authenticate": "Bearer"},
        )


class TooManyRequests(ServiceError):
    """The caller has used up a rate limit."""

    def __init__(self, retry_seconds: int) -> None:
        super().__init__(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too_many_requests",
            f"The rate limit is used up; try again in {retry_seconds} s.",
            {"Retry-After": str(retry_seconds)},
        )


class ApiKeys:
    """The keys that callers may use."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def number_of(self, headers: RawHeaders) -> int | None:
        """Which key a request carries; every key is compared, in the same time whatever is sent."""
        found = None
        for presented in _presented(headers):
            for number, key in enumerate(self._keys):
                if hmac.compare_digest(presented, key):
                    found = number
        return found


def _presented(headers: RawHeaders) -> Iterator[bytes]:
    for name, value in headers:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization":
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield credentials.strip()


def needs_key(path: str) -> bool:
    """Whether a path is refused without a key, when there are keys."""
    return path not in _WITHOUT_KEY and not path.startswith(_ASSETS_WITHOUT_KEY)


def has_limit(path: str) -> bool:
    """Whether requests for a path are counted, when there is a rate limit."""
    return not path.startswith(_WITHOUT_LIMIT)


class Guard:
    """Refuses requests beyond the rate limit, then those without a key where one is needed."""

    def __init__(self, app: ASGIApp, keys: ApiKeys | None, rate_limit: "RateLimit | None") -> None:
        self.app = app
        self.keys = keys
        self.rate_limit = rate_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or refuse one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        key = self.keys.number_of(scope["headers"]) if self.keys else None
        answer: ASGIApp = self.app
        if self.keys and key is None and needs_key(scope["path"]):
            answer = answer_to(Unauthorized(), scope)
        if self.rate_limit and has_limit(scope["path"]):
            # Guesses at keys count too, against the address that they come from.
            caller = _address(scope) if key is None else f"key {key}"
            standing = self.rate_limit.request(caller)
            if not standing.allowed:
                answer = answer_to(TooManyRequests(_whole_seconds(standing)), scope)
            send = _with_headers(send, _rate_limit_headers(standing))
        await answer(scope, receive, send)


def _whole_seconds(standing: "Standing") -> int:
    return max(1, math.ceil(standing.reset_seconds))


def _rate_limit_headers(standing: "Standing") -> list[tuple[bytes, bytes]]:
    values = (standing.limit, standing.remaining, _whole_seconds(standing))
    return [
        (name.lower().encode(), str(value).encode())
        for name, value in zip(RATE_LIMIT_HEADERS, values, strict=True)
    ]


def _with_headers(send: Send, headers: Sequence[tuple[bytes, bytes]]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *headers]
        await send(message)

    return send_with_headers


def _address(scope: Scope) -> str:
    host: str = scope["client"][0] if scope.get("client") else "unknown"
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host)
    except ValueError:
        return host  # what a trusted proxy wrote
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    # A subscriber has at least a /64: single addresses would be no limit.
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


class Cors(CORSMiddleware):
    """Cross-origin requests from listed origins; a preflight that fails is answered in the error shape."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a preflight request."""
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        message = "This cross-origin request is not allowed: check the origin, the method and the headers."
        refusal = error_response({}, HTTPStatus.BAD_REQUEST, "cors_refused", message)
        refusal.headers["Vary"] = response.headers["Vary"]
        return refusal


def protections(settings: ServingSettings) -> list[Middleware]:
    """What the settings ask for, from the outside in."""
    asked: list[Middleware] = []
    # Outside the guard: preflights carry no key, and refusals must be readable for the page that asked.
    if settings.housing_cors_origins:
        cors = Middleware(
            Cors,
            allow_origins=listed(settings.housing_cors_origins),
            allow_methods=("GET", "POST"),
            allow_headers=("Content-Type", "X-API-Key", "Authorization", "X-Request-ID"),
            expose_headers=("X-Request-ID", "Retry-After", *RATE_LIMIT_HEADERS),
        )
        asked.append(cors)
    secret = settings.housing_api_keys
    keys = ApiKeys(listed(secret.get_secret_value())) if secret else None
    rate_limit = _rate_limit(settings.housing_rate_limit)
    if keys or rate_limit:
        asked.append(Middleware(Guard, keys=keys, rate_limit=rate_limit))
    return asked


def _rate_limit(text: str | None) -> "RateLimit | None":
    if text is None:
        return None
    from housing_serving.rate_limit import RateLimit  # noqa: PLC0415  (slow to load, and seldom used)

    return RateLimit(text)
