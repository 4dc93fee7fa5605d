"""Object storage: one small interface over a local folder and a Google Cloud Storage bucket.

Every write is atomic (readers see the old object or the new one), every failure is a `StorageError`
that names the object, folder or bucket. Only bytes and names belong here; formats live in
`housing_assets.formats`.
"""

from typing import TYPE_CHECKING

from housing_assets.storage.local import LocalStore
from housing_assets.storage.objects import (
    BucketForbidden,
    BucketMissing,
    ChecksumMismatch,
    CredentialsMissing,
    ObjectConflict,
    ObjectInfo,
    ObjectMissing,
    ObjectNameInvalid,
    ObjectStore,
    StorageError,
    StorageReadFailed,
    StorageRefused,
    StorageUnavailable,
    StorageWriteFailed,
    StoredObject,
)

if TYPE_CHECKING:
    from google.cloud.storage import Client

__all__ = [
    "BucketForbidden",
    "BucketMissing",
    "ChecksumMismatch",
    "CredentialsMissing",
    "LocalStore",
    "ObjectConflict",
    "ObjectInfo",
    "ObjectMissing",
    "ObjectNameInvalid",
    "ObjectStore",
    "StorageError",
    "StorageReadFailed",
    "StorageRefused",
    "StorageUnavailable",
    "StorageWriteFailed",
    "StoredObject",
    "open_store",
]

GCS_SCHEME = "gs://"


def open_store(root: str, client: "Client | None" = None, *, deadline: float = 60.0) -> ObjectStore:
    """The store at a storage root: `gs://bucket`, or the path of a folder that need not exist yet.

    Args:
        root: the storage root.
        client: a `google.cloud.storage.Client`; made from the environment when a bucket needs one.
        deadline: seconds the store has to answer, retries included.

    Raises:
        ObjectNameInvalid: the root names a folder inside a bucket, or no bucket at all.
        CredentialsMissing: a client is needed and the environment holds no credentials.
    """
    if not root.startswith(GCS_SCHEME):
        return LocalStore(root, lock_timeout=deadline)
    bucket = root.removeprefix(GCS_SCHEME).rstrip("/")
    if not bucket or "/" in bucket:
        raise ObjectNameInvalid(f"storage root {root!r}: expected gs://<bucket>, check GCS_BUCKET_NAME")
    from housing_assets.storage.gcs import GcsStore, default_client  # noqa: PLC0415  (a second to import)

    return GcsStore(client or default_client(), bucket, deadline=deadline)
