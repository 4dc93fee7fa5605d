"""One HTTP download into memory: bounded in time and size, tried again only where that can help."""

import time

import requests
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from urllib3.exceptions import HTTPError, ReadTimeoutError

from housing_assets.sources.errors import (
    SourceForbidden,
    SourceLocationInvalid,
    SourceMissing,
    SourceTooLarge,
    SourceUnreachable,
)

CHUNK_BYTES = 64 * 1024
CONNECT_SECONDS = 10.0
# How long the server may stay silent; an attempt can outlast its time-out by no more than this.
SILENCE_SECONDS = 15.0
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 8.0
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Transient(Exception):
    """Another attempt may help."""


def download(url: str, *, timeout: float, attempts: int, max_bytes: int) -> tuple[bytes, str | None]:
    """The body and the ETag of a URL.

    Raises:
        SourceUnreachable: no attempt got a complete answer within its `timeout` seconds.
        SourceMissing, SourceForbidden: the server says so; there is no second attempt.
    """
    retrying = Retrying(
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS),
        retry=retry_if_exception_type(_Transient),
        reraise=True,
    )
    start = time.monotonic()
    try:
        return retrying(_attempt, url, timeout, max_bytes)
    except _Transient as error:
        elapsed = time.monotonic() - start
        raise SourceUnreachable(
            f"{url}: {error}; gave up after {attempts} attempt(s) in {elapsed:.1f} s"
        ) from error


def _attempt(url: str, timeout: float, max_bytes: int) -> tuple[bytes, str | None]:
    deadline = time.monotonic() + timeout
    try:
        with requests.get(
            url,
            stream=True,
            timeout=(min(CONNECT_SECONDS, timeout), min(SILENCE_SECONDS, timeout)),
            # The bytes as published: a checksum of re-compressed ones would mean nothing.
            headers={"Accept-Encoding": "identity"},
        ) as response:
            _check_status(url, response)
            return _body(url, response, deadline, max_bytes), response.headers.get("ETag")
    except requests.exceptions.SSLError as error:
        raise SourceUnreachable(f"{url}: the server's certificate was refused: {error}") from error
    except requests.Timeout as error:
        raise _Transient(f"no answer within {min(SILENCE_SECONDS, timeout):g} s") from error
    except requests.ConnectionError as error:
        raise _Transient(f"no connection ({_reason(error)})") from error
    except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema) as error:
        raise SourceLocationInvalid(f"source location {url!r}: {error}; check HOUSING_SOURCE_URI") from error
    except requests.RequestException as error:
        raise SourceUnreachable(f"{url}: {error}") from error


def _check_status(url: str, response: requests.Response) -> None:
    status = response.status_code
    if status in TRANSIENT_STATUS:
        raise _Transient(f"the server answered {status} {response.reason}")
    if status in {401, 403}:
        raise SourceForbidden(f"{url}: the server answered {status} {response.reason}")
    if status != requests.codes.ok:
        raise SourceMissing(
            f"{url}: the server answered {status} {response.reason}; check HOUSING_SOURCE_URI"
        )


def _body(url: str, response: requests.Response, deadline: float, max_bytes: int) -> bytes:
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise SourceTooLarge(f"{url}: {announced} bytes, at most {max_bytes} are accepted")
    body = bytearray()
    # read1 returns what has arrived, so a server that drips cannot hold the loop past the deadline.
    while chunk := _read_chunk(response):
        body += chunk
        if len(body) > max_bytes:
            raise SourceTooLarge(f"{url}: more than {max_bytes} bytes")
        if time.monotonic() > deadline:
            raise _Transient(f"the answer was not complete in time ({len(body)} bytes arrived)")
    return bytes(body)


def _read_chunk(response: requests.Response) -> bytes:
    try:
        return bytes(response.raw.read1(CHUNK_BYTES, decode_content=False))
    except ReadTimeoutError as error:
        raise _Transient("the server stopped sending") from error
    except (HTTPError, OSError) as error:
        raise _Transient("the connection broke") from error


def _reason(error: BaseException) -> str:
    """The innermost cause, which names the plain fact: refused, reset, unknown host."""
    seen = error
    while (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
    return str(seen)
