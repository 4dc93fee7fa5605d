"""Getting the bytes of a source: https, http, `gs://`, a local path or the table packaged with the code."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from housing_assets.sources.archive import archive_member
from housing_assets.sources.download import download
from housing_assets.sources.errors import (
    ChecksumMismatch,
    SourceForbidden,
    SourceLocationInvalid,
    SourceMissing,
    SourceTooLarge,
    SourceUnreachable,
)
from housing_assets.storage import (
    BucketForbidden,
    BucketMissing,
    CredentialsMissing,
    ObjectMissing,
    ObjectNameInvalid,
    StorageError,
    open_store,
)

if TYPE_CHECKING:
    from google.cloud.storage import Client

PACKAGED_LOCATION = "package://housing_assets/data/california_block_groups.csv"
SETTING = "check HOUSING_SOURCE_URI"
MAX_BYTES = 256 * 1024 * 1024
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True)
class Source:
    """The bytes of one source as published, and where they came from.

    Attributes:
        location: where it was fetched.
        data: the file as published, still packed if it was.
        sha256: checksum of `data`.
        member: the one file inside, when `data` is an archive.
        fetched_at: when, in UTC.
        etag: the publisher's version mark: an HTTP ETag or a GCS generation.
    """

    location: str
    data: bytes
    sha256: str
    member: str | None
    fetched_at: datetime
    etag: str | None = None


def resolve(location: str, snapshot: str) -> str:
    """The location with `{snapshot}` filled in.

    Raises:
        SourceLocationInvalid: another placeholder is in it.
    """
    unknown = sorted(set(PLACEHOLDER.findall(location)) - {"snapshot"})
    if unknown:
        raise SourceLocationInvalid(
            f"source location {location!r}: unknown placeholder {{{unknown[0]}}}, "
            f"only {{snapshot}} is filled in; {SETTING}"
        )
    return location.replace("{snapshot}", snapshot)


def packaged_source() -> Source:
    """The table that ships with the package: no network, no setting."""
    return fetch(PACKAGED_LOCATION)


def fetch(
    location: str,
    *,
    expected_sha256: str | None = None,
    timeout: float = 60.0,
    attempts: int = 3,
    max_bytes: int = MAX_BYTES,
    client: "Client | None" = None,
) -> Source:
    """Fetch a source completely into memory.

    Args:
        location: https, http, gs://, file:// or a local path; every placeholder filled in already.
        expected_sha256: refuse any other content.
        timeout: seconds each attempt may take, from connecting to the last byte; for gs://, all attempts.
        attempts: how often to try; only transient failures are tried again, after a growing wait.
        max_bytes: refuse a larger file.
        client: the Cloud Storage client for gs://; made from the environment if there is none.

    Raises:
        SourceError: whatever is wrong, as one of its subclasses.
    """
    data, etag = _read(location, timeout, attempts, max_bytes, client)
    if len(data) > max_bytes:
        raise SourceTooLarge(f"{location}: {len(data)} bytes, at most {max_bytes} are accepted")
    digest = sha256(data).hexdigest()
    if expected_sha256 and digest != expected_sha256.strip().lower():
        raise ChecksumMismatch(
            f"{location}: sha256 is {digest}, expected {expected_sha256}; "
            "check HOUSING_SOURCE_SHA256 or the file"
        )
    member = archive_member(data, location, MAX_BYTES)
    return Source(location, data, digest, member, datetime.now(UTC), etag)


def is_folder(location: str) -> bool:
    """Whether a location names all files of a folder or below a prefix: it ends with a slash."""
    return location.endswith("/")


def list_files(location: str, client: "Client | None" = None) -> list[str]:
    """The locations of the files in a folder, sorted; hidden ones are none.

    Raises:
        SourceError: there is no such folder or nothing in it, or its kind cannot be listed.
    """
    match = SCHEME.match(location)
    scheme = match[1].lower() if match else "file"
    if scheme == "gs":
        files = _list_bucket(location, client)
    elif scheme == "file":
        folder = _local_path(location)
        if not folder.is_dir():
            raise SourceMissing(f"{location}: no folder at {folder}; {SETTING}")
        files = sorted(str(path) for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    else:
        raise SourceLocationInvalid(
            f"source location {location!r}: {scheme} folders cannot be listed, name a file, "
            f"or a folder that is local or in gs://; {SETTING}"
        )
    if not files:
        raise SourceMissing(f"{location}: no files there; {SETTING}")
    return files


def _list_bucket(location: str, client: "Client | None") -> list[str]:
    bucket, _, prefix = location[len("gs://") :].partition("/")
    with _bucket_errors(location):
        store = open_store(f"gs://{bucket}", client)
        names = [name for name in store.list(prefix) if "/" not in name.removeprefix(prefix)]
    return [f"gs://{bucket}/{name}" for name in names if not name.removeprefix(prefix).startswith((".", "_"))]


def _read(
    location: str, timeout: float, attempts: int, max_bytes: int, client: "Client | None"
) -> tuple[bytes, str | None]:
    match = SCHEME.match(location)
    scheme = match[1].lower() if match else "file"
    if scheme in {"http", "https"}:
        return download(location, timeout=timeout, attempts=attempts, max_bytes=max_bytes)
    if scheme == "gs":
        return _read_bucket(location, timeout, max_bytes, client)
    if location == PACKAGED_LOCATION:
        return files("housing_assets").joinpath("data/california_block_groups.csv").read_bytes(), None
    if scheme != "file":
        raise SourceLocationInvalid(
            f"source location {location!r}: scheme {scheme} is not supported, "
            f"use https, http, gs or a local path; {SETTING}"
        )
    return _read_file(location, max_bytes), None


def _read_file(location: str, max_bytes: int) -> bytes:
    path = _local_path(location)
    if not path.exists():
        raise SourceMissing(f"{location}: no file at {path}; {SETTING}")
    if not path.is_file():
        raise SourceMissing(
            f"{location}: {path} is not a file; end it with / to read every file in it, or {SETTING}"
        )
    if (size := path.stat().st_size) > max_bytes:
        raise SourceTooLarge(f"{location}: {size} bytes, at most {max_bytes} are accepted")
    try:
        return path.read_bytes()
    except PermissionError as error:
        raise SourceForbidden(f"{location}: no permission to read {path}") from error
    except OSError as error:
        raise SourceUnreachable(f"{location}: cannot read {path}: {error.strerror}") from error


def _local_path(location: str) -> Path:
    text = unquote(urlsplit(location).path) if location.lower().startswith("file://") else location
    return Path(text).expanduser().absolute()


def _read_bucket(
    location: str, deadline: float, max_bytes: int, client: "Client | None"
) -> tuple[bytes, str]:
    bucket, _, name = location[len("gs://") :].partition("/")
    if not bucket or not name:
        raise SourceLocationInvalid(
            f"source location {location!r}: expected gs://<bucket>/<object>; {SETTING}"
        )
    with _bucket_errors(location):
        store = open_store(f"gs://{bucket}", client, deadline=deadline)
        info = store.info(name)
        if info.size > max_bytes:
            raise SourceTooLarge(f"{location}: {info.size} bytes, at most {max_bytes} are accepted")
        return store.read(name), str(info.generation)


@contextmanager
def _bucket_errors(location: str) -> Iterator[None]:
    try:
        yield
    except ObjectNameInvalid as error:
        raise SourceLocationInvalid(f"source location {location!r}: {error}; {SETTING}") from error
    except (ObjectMissing, BucketMissing) as error:
        raise SourceMissing(f"{location}: {error}") from error
    except (BucketForbidden, CredentialsMissing) as error:
        raise SourceForbidden(f"{location}: {error}") from error
    except StorageError as error:
        raise SourceUnreachable(f"{location}: {error}") from error
