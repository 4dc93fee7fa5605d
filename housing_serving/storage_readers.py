"""Reading named objects from a storage root: a folder, or a Google Cloud Storage bucket."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from housing_serving.deadline import Deadline

if TYPE_CHECKING:
    from google.cloud import storage

T = TypeVar("T")


class ModelUnavailable(Exception):
    """No bundle can be had; the message says where it was looked for and what to do, and holds no secret."""


class NotRegistered(ModelUnavailable):
    """The place works, and has no model to offer (yet)."""


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
    """A storage root that is a Google Cloud Storage bucket, readable until the deadline."""

    def __init__(self, bucket_name: str, project: str | None, deadline: Deadline) -> None:
        self._name = bucket_name
        self._project = project
        self._deadline = deadline
        self._client: storage.Client | None = None

    def uri(self, name: str) -> str:
        """The `gs://` address of an object."""
        return f"gs://{self._name}/{name}"

    def read(self, name: str) -> bytes:
        """An object's content, its checksum verified by the client."""

        def download(client: "storage.Client") -> bytes:
            blob = client.bucket(self._name).blob(name)
            timeouts = self._deadline.timeouts
            data: bytes = blob.download_as_bytes(timeout=timeouts, retry=None, checksum="crc32c")
            return data

        return self._call(name, download)

    def names(self, prefix: str) -> list[str]:
        """Names of all objects below a prefix."""

        def listing(client: "storage.Client") -> list[str]:
            blobs = client.list_blobs(self._name, prefix=prefix, timeout=self._deadline.timeouts, retry=None)
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
            return self._deadline.retry(lambda: operation(self._connected()), _is_transient)
        except api.NotFound as error:
            raise ObjectMissing(self.uri(name)) from error
        except api.Forbidden as error:
            raise ModelUnavailable(
                f"{self.uri(name)} is forbidden: grant this service account roles/storage.objectViewer"
                f" on the bucket {self._name}"
            ) from error
        except (GoogleAuthError, api.Unauthorized, OSError) as error:
            raise ModelUnavailable(
                f"{self.uri(name)} cannot be reached: check the network and the Google credentials"
            ) from error
        except (api.GoogleAPIError, DataCorruption) as error:
            raise ModelUnavailable(f"{self.uri(name)} cannot be read: the storage keeps failing") from error

    def _connected(self) -> "storage.Client":
        from google.cloud import storage  # noqa: PLC0415

        from housing_serving.http_session import end_with  # noqa: PLC0415

        if self._client is None:
            # The client would ask for the bucket's metadata in a thread of its own, for traces nobody
            # collects; that request needs a permission a reader of objects does not have.
            os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
            client = storage.Client(project=self._project)
            end_with(self._deadline, client._http)
            self._client = client
        return self._client


def _is_transient(error: BaseException) -> bool:
    from google.api_core import exceptions as api  # noqa: PLC0415
    from google.cloud.storage.exceptions import DataCorruption  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    # requests' connection errors and time-outs are OSErrors; a checksum differs when a transfer was cut.
    return isinstance(error, api.TooManyRequests | api.ServerError | DataCorruption | OSError | HTTPError)
