"""Objects in a Google Cloud Storage bucket: checksummed uploads, bounded retries, errors that say what to do.

Google's client takes a second to import, so `open_store` imports this module when a bucket is asked for.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from tempfile import TemporaryFile
from typing import BinaryIO

from google.api_core import exceptions as api
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from housing_assets.storage.objects import (
    BucketForbidden,
    BucketMissing,
    ChecksumMismatch,
    CredentialsMissing,
    ObjectConflict,
    ObjectInfo,
    ObjectMissing,
    StorageRefused,
    StorageUnavailable,
    StoredObject,
    check_precondition_arguments,
    checked_name,
    measured,
    verified,
)

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 8.0
# Above this size the client uploads in several requests, so a hopeless precondition is worth a look first.
ONE_REQUEST_BYTES = 8 * 1024 * 1024
ROLE = "roles/storage.objectUser"


def default_client() -> storage.Client:
    """A client with the credentials of the environment; anonymous when STORAGE_EMULATOR_HOST is set."""
    try:
        return storage.Client(project=None)
    except DefaultCredentialsError as error:
        raise CredentialsMissing(
            "no Google Cloud credentials: run `gcloud auth application-default login` "
            "or set GOOGLE_APPLICATION_CREDENTIALS to a key file"
        ) from error


class GcsStore:
    """An object store in a bucket.

    Each operation retries transient failures with backoff until the deadline; one request that hangs
    can add its own time-out, at most `min(30, deadline)` seconds.
    """

    def __init__(self, client: storage.Client, bucket: str, *, deadline: float = 60.0) -> None:
        # The client would ask for the bucket's metadata in a thread of its own, for traces nobody collects;
        # that request needs a permission the object roles do not have.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        self._client = client
        self._bucket = client.bucket(bucket)
        self._name = bucket
        retry = DEFAULT_RETRY.with_timeout(deadline)
        self._call = {
            "retry": retry.with_delay(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, 2.0),
            "timeout": (min(CONNECT_SECONDS, deadline), min(ANSWER_SECONDS, deadline)),
        }

    @property
    def root(self) -> str:
        """The bucket as `gs://bucket`."""
        return f"gs://{self._name}"

    def uri(self, name: str) -> str:
        """The object's `gs://` URI."""
        return f"{self.root}/{checked_name(name)}"

    def exists(self, name: str) -> bool:
        """Whether there is an object of that name."""
        try:
            self.info(name)
        except ObjectMissing:
            return False
        return True

    def read(self, name: str, *, expected_sha256: str | None = None) -> bytes:
        """The whole object, checked against what the server says and a checksum where one is given."""
        uri = self.uri(name)
        with self._errors(uri):
            data = self._bucket.blob(name).download_as_bytes(checksum="crc32c", **self._call)
        return verified(bytes(data), uri, expected_sha256)

    def open(self, name: str) -> BinaryIO:
        """The object as a nameless temporary file, checked against what the server says."""
        file = TemporaryFile()  # noqa: SIM115  (the caller closes it)
        try:
            with self._errors(self.uri(name)):
                self._bucket.blob(name).download_to_file(file, checksum="crc32c", **self._call)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    def info(self, name: str) -> ObjectInfo:
        """Size and generation of an object."""
        uri = self.uri(name)
        with self._errors(uri):
            blob = self._bucket.blob(name)
            blob.reload(**self._call)
        return ObjectInfo(uri, int(blob.size), int(blob.generation))

    def list(self, prefix: str = "") -> list[str]:
        """The sorted names of all objects whose name starts with the prefix."""
        checked_name(prefix, prefix=True)
        with self._errors(f"{self.root}/{prefix}"):
            blobs = list(self._client.list_blobs(self._name, prefix=prefix, **self._call))
        return sorted(str(blob.name) for blob in blobs)

    def checksums(self, prefix: str = "") -> dict[str, str]:
        """What the server says of the content of all objects whose name starts with the prefix, by name.

        It is the MD5, or the CRC32C of an object that was composed; equal content has the same.
        """
        checked_name(prefix, prefix=True)
        with self._errors(f"{self.root}/{prefix}"):
            blobs = list(self._client.list_blobs(self._name, prefix=prefix, **self._call))
        return {str(blob.name): str(blob.md5_hash or blob.crc32c) for blob in blobs}

    def write(
        self, name: str, data: bytes, *, if_absent: bool = False, if_generation: int | None = None
    ) -> StoredObject:
        """Store the whole object or nothing; with a precondition, only when it holds."""
        uri = self.uri(name)
        check_precondition_arguments(name, if_absent, if_generation)
        # Zero is GCS's way to ask that the object does not exist.
        expected = 0 if if_absent else if_generation
        if expected is not None and len(data) > ONE_REQUEST_BYTES:
            self._refuse_hopeless_upload(name, expected)
        digest = sha256(data).hexdigest()
        generation = self._upload(name, BytesIO(data), len(data), digest, expected)
        return StoredObject(uri, len(data), digest, generation)

    def write_file(self, name: str, file: BinaryIO) -> StoredObject:
        """Store the whole content of a file, or nothing."""
        size, digest = measured(file)
        return StoredObject(self.uri(name), size, digest, self._upload(name, file, size, digest, None))

    def delete(self, name: str) -> None:
        """Make sure there is no object of that name; deleting an absent one is no error."""
        try:
            with self._errors(self.uri(name)):
                self._bucket.blob(name).delete(**self._call)
        except ObjectMissing:
            return

    def _upload(self, name: str, content: BinaryIO, size: int, digest: str, expected: int | None) -> int:
        write_id = secrets.token_hex(8)
        blob = self._bucket.blob(name)
        blob.metadata = {"sha256": digest, "write-id": write_id}
        with self._errors(self.uri(name)):
            try:
                blob.upload_from_file(
                    content,
                    rewind=True,
                    size=size,
                    content_type="application/octet-stream",
                    checksum="crc32c",
                    if_generation_match=expected,
                    **self._call,
                )
            except api.PreconditionFailed:
                return self._generation_if_ours(name, write_id, expected)
        return int(blob.generation)

    def _generation_if_ours(self, name: str, write_id: str, expected: int | None) -> int:
        """Tell a lost race from a lost answer: a retry also fails when the first attempt got through."""
        stored = self._bucket.get_blob(name, **self._call)
        if stored is not None and (stored.metadata or {}).get("write-id") == write_id:
            return int(stored.generation)
        raise self._conflict(name, stored.generation if stored else None, expected)

    def _refuse_hopeless_upload(self, name: str, expected: int) -> None:
        with self._errors(self.uri(name)):
            stored = self._bucket.get_blob(name, **self._call)
        found = int(stored.generation) if stored else 0
        if found != expected:
            raise self._conflict(name, found or None, expected)

    def _conflict(self, name: str, found: int | None, expected: int | None) -> ObjectConflict:
        if not expected:
            return ObjectConflict(f"{self.uri(name)} exists already (generation {found})")
        return ObjectConflict(
            f"{self.uri(name)} has generation {found}, expected {expected}: another writer was first"
        )

    @contextmanager
    def _errors(self, uri: str) -> Iterator[None]:
        """Turn the client's errors into ours, naming the object, the bucket or the setting."""
        try:
            yield
        except api.NotFound as error:
            raise self._not_found(uri) from error
        except (api.Forbidden, api.Unauthorized) as error:
            raise self._forbidden() from error
        except DataCorruption as error:
            raise ChecksumMismatch(f"{uri}: the bytes transferred do not match their checksum") from error
        except GoogleAuthError as error:
            raise CredentialsMissing(
                f"{self.root}: the Google Cloud credentials do not work: {error}"
            ) from error
        except (api.RetryError, OSError) as error:
            endpoint = self._client._connection.API_BASE_URL
            cause = getattr(error, "cause", None) or error
            raise StorageUnavailable(f"{uri}: {endpoint} gave no answer in time: {cause}") from error
        except api.GoogleAPIError as error:
            raise StorageRefused(f"{uri}: the server refused the request: {error}") from error

    def _not_found(self, uri: str) -> ObjectMissing | BucketMissing | BucketForbidden:
        """GCS answers 404 for a missing object and for a missing bucket; a listing tells them apart."""
        try:
            next(iter(self._client.list_blobs(self._name, max_results=1, **self._call)), None)
        except api.NotFound:
            return BucketMissing(f"bucket {self._name} does not exist: create it or set GCS_BUCKET_NAME")
        except api.Forbidden:
            return self._forbidden()
        except (api.GoogleAPIError, OSError):
            return ObjectMissing(f"no object at {uri}")
        return ObjectMissing(f"no object at {uri}")

    def _forbidden(self) -> BucketForbidden:
        return BucketForbidden(
            f"access to bucket {self._name} is forbidden: "
            f"grant these credentials {ROLE} on it or set GCS_BUCKET_NAME"
        )
