"""Finding and fetching the bundle to serve: a directory, a bucket prefix, or what the release record says.

Reads only. A place that names a version which cannot be loaded is an error: another version is never
served in its stead.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import tenacity

from housing_serving.bundle import MANIFEST_FILE, Bundle, BundleError, read_manifest
from housing_serving.settings import ServingSettings

if TYPE_CHECKING:
    from google.cloud import storage

T = TypeVar("T")

RELEASE_RECORD = "releases/housing-price-api.json"
# To connect, and between two pieces of an answer.
GCS_TIMEOUT_SECONDS = (5.0, 10.0)
GCS_ATTEMPTS = 3
GCS_LONGEST_WAIT_SECONDS = 2.0


class ModelUnavailable(Exception):
    """No bundle can be served now; the message says where it was looked for and what to do."""


class ObjectMissing(Exception):
    """An object is not there; the message is its address."""


class ObjectReader(Protocol):
    """Named objects of one storage root, to read."""

    def uri(self, name: str) -> str:
        """The full address of an object."""

    def read(self, name: str) -> bytes:
        """An object's content.

        Raises:
            ObjectMissing: it does not exist.
            ModelUnavailable: it cannot be read.
        """

    def names(self, prefix: str) -> list[str]:
        """Names of all objects below a prefix.

        Raises:
            ModelUnavailable: the storage cannot be listed.
        """


@dataclass(frozen=True)
class FolderReader:
    """A storage root that is a folder."""

    root: Path

    def uri(self, name: str) -> str:
        """The path of an object."""
        return str(self.root / name)

    def read(self, name: str) -> bytes:
        """A file's content."""
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ObjectMissing(self.uri(name)) from error
        except OSError as error:
            raise ModelUnavailable(
                f"{self.uri(name)} cannot be read ({error.strerror}): check the disk and its permissions"
            ) from error

    def names(self, prefix: str) -> list[str]:
        """Names of all files below a prefix."""
        files = (path for path in (self.root / prefix).rglob("*") if path.is_file())
        return [path.relative_to(self.root).as_posix() for path in files]


class BucketReader:
    """A storage root that is a Google Cloud Storage bucket."""

    def __init__(self, bucket_name: str, project: str | None = None) -> None:
        self._name = bucket_name
        self._project = project
        self._client: storage.Client | None = None

    def uri(self, name: str) -> str:
        """The `gs://` address of an object."""
        return f"gs://{self._name}/{name}"

    def read(self, name: str) -> bytes:
        """An object's content, its checksum verified by the client."""

        def download(client: "storage.Client") -> bytes:
            blob = client.bucket(self._name).blob(name)
            data: bytes = blob.download_as_bytes(timeout=GCS_TIMEOUT_SECONDS, retry=None, checksum="crc32c")
            return data

        return self._call(name, download)

    def names(self, prefix: str) -> list[str]:
        """Names of all objects below a prefix."""

        def listing(client: "storage.Client") -> list[str]:
            blobs = client.list_blobs(self._name, prefix=prefix, timeout=GCS_TIMEOUT_SECONDS, retry=None)
            return [blob.name for blob in blobs]

        try:
            return self._call(prefix, listing)
        except ObjectMissing as error:
            raise ModelUnavailable(
                f"bucket {self._name} does not exist: create it, or set GCS_BUCKET_NAME to another"
            ) from error

    def _call(self, name: str, operation: Callable[["storage.Client"], T]) -> T:
        # Imported here: most of a second, and not needed where models are local.
        from google.api_core import exceptions as api  # noqa: PLC0415
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
        from google.cloud.storage.exceptions import DataCorruption  # noqa: PLC0415

        try:
            return _with_retries(lambda: operation(self._connected()))
        except api.NotFound as error:
            raise ObjectMissing(self.uri(name)) from error
        except api.Forbidden as error:
            raise ModelUnavailable(
                f"{self.uri(name)} is forbidden: grant this service account roles/storage.objectViewer"
                f" on the bucket {self._name}"
            ) from error
        except (GoogleAuthError, OSError) as error:
            raise ModelUnavailable(
                f"{self.uri(name)} cannot be reached: check the network and the Google credentials"
            ) from error
        except (api.GoogleAPIError, DataCorruption) as error:
            raise ModelUnavailable(f"{self.uri(name)} cannot be read: the storage keeps failing") from error

    def _connected(self) -> "storage.Client":
        from google.cloud import storage  # noqa: PLC0415

        if self._client is None:
            # The client would ask for the bucket's metadata in a thread of its own, for traces nobody
            # collects; that request needs a permission a reader of objects does not have.
            os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
            self._client = storage.Client(project=self._project)
        return self._client


@dataclass(frozen=True)
class ModelLocation:
    """A bundle's place: the objects below a prefix (empty or ending with a slash) of a storage root."""

    reader: ObjectReader
    prefix: str

    @property
    def uri(self) -> str:
        """The bundle's address."""
        return self.reader.uri(self.prefix).rstrip("/")


@dataclass(frozen=True)
class LoadedModel:
    """A bundle, ready to predict, and where it was loaded from."""

    bundle: Bundle
    source: str


def load_model(settings: ServingSettings) -> LoadedModel:
    """Find, fetch and open the bundle the settings ask for.

    Raises:
        ModelUnavailable: there is none yet, or the one asked for cannot be used.
    """
    location = locate(settings)
    try:
        return LoadedModel(_fetch(location), location.uri)
    except ObjectMissing as error:
        raise ModelUnavailable(
            f"{error} does not exist: check the path, or export or copy the bundle again"
        ) from error
    except BundleError as error:
        raise ModelUnavailable(str(error)) from error


def locate(settings: ServingSettings) -> ModelLocation:
    """Which bundle to serve: an explicit path, the released version, or the newest complete one.

    Raises:
        ModelUnavailable: nothing has been registered yet, or the release record is not readable.
    """
    if settings.local_model_path is not None:
        return ModelLocation(FolderReader(settings.local_model_path.resolve()), "")
    if settings.gcs_model_path:
        prefix = settings.gcs_model_path.strip("/") + "/"
        return ModelLocation(_bucket(settings), prefix)
    reader = storage_root(settings)
    versions = f"models/{settings.mlflow_model_name}/"
    version = _released_version(reader)
    if version is None:
        version = _newest_version(reader, versions)
    return ModelLocation(reader, f"{versions}{version}/")


def storage_root(settings: ServingSettings) -> ObjectReader:
    """The storage root of the deployment."""
    if settings.housing_deployment == "gcp":
        return _bucket(settings)
    return FolderReader((settings.housing_home / "storage").resolve())


def _bucket(settings: ServingSettings) -> BucketReader:
    # The settings refuse every combination that needs a bucket and names none.
    return BucketReader(str(settings.gcs_bucket_name), settings.gcp_project_id)


def _released_version(reader: ObjectReader) -> int | None:
    try:
        data = reader.read(RELEASE_RECORD)
    except ObjectMissing:
        return None
    try:
        return int(json.loads(data)["stable_version"])
    except (ValueError, TypeError, KeyError) as error:
        raise ModelUnavailable(
            f"{reader.uri(RELEASE_RECORD)} states no stable_version: release a version again"
        ) from error


def _newest_version(reader: ObjectReader, versions: str) -> int:
    # `bundle.json` is written last, so a version that has it is complete.
    complete = re.compile(re.escape(versions) + r"([1-9]\d*)/" + re.escape(MANIFEST_FILE))
    found = [int(match[1]) for name in reader.names(versions) if (match := complete.fullmatch(name))]
    if not found:
        raise ModelUnavailable(
            f"no model version in {reader.uri(versions)}: "
            "materialize registered_model, or set LOCAL_MODEL_PATH"
        )
    return max(found)


def _fetch(location: ModelLocation) -> Bundle:
    # Held in memory: the runtime opens models from bytes, so no temporary files can be left behind.
    data = location.reader.read(location.prefix + MANIFEST_FILE)
    manifest = read_manifest(data, f"{location.uri}/{MANIFEST_FILE}")
    files = {name: location.reader.read(location.prefix + name) for name in manifest.files}
    return Bundle.from_files({**files, MANIFEST_FILE: data}, origin=location.uri)


def _with_retries(call: Callable[[], T]) -> T:
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_transient),
        stop=tenacity.stop_after_attempt(GCS_ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.25, max=GCS_LONGEST_WAIT_SECONDS),
        reraise=True,
    )
    return retrying(call)


def _is_transient(error: BaseException) -> bool:
    from google.api_core import exceptions as api  # noqa: PLC0415
    from google.cloud.storage.exceptions import DataCorruption  # noqa: PLC0415

    # requests' connection errors and time-outs are OSErrors; a checksum differs when a transfer was cut.
    return isinstance(error, api.TooManyRequests | api.ServerError | DataCorruption | OSError)
