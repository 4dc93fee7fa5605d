"""Which snapshots are published where the location has `{snapshot}` in it, in a folder or a bucket."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from housing_assets.sources.errors import (
    SourceForbidden,
    SourceLocationInvalid,
    SourceMissing,
    SourceUnreachable,
)
from housing_assets.sources.fetching import SCHEME, SETTING, is_folder, resolve
from housing_assets.storage import (
    BucketForbidden,
    BucketMissing,
    CredentialsMissing,
    ObjectNameInvalid,
    StorageError,
)

if TYPE_CHECKING:
    from google.cloud.storage import Client

# A file that was changed less long ago may still be written; objects of a bucket appear whole.
SETTLE_SECONDS = 20.0
GCS_SECONDS = 30.0


@dataclass(frozen=True)
class Published:
    """The object of one snapshot.

    Attributes:
        state: changes with every write of it.
        digest: changes with its content.
    """

    state: str
    digest: str


def is_listable(location: str | None) -> bool:
    """Whether new snapshots can be seen there: files of a folder or bucket with `{snapshot}` in their name.

    A snapshot that is a folder itself cannot: nothing says when its last file has come.
    """
    if location is None or "{snapshot}" not in location or is_folder(location):
        return False
    match = SCHEME.match(location)
    return match is None or match[1].lower() in {"file", "gs"}


def published(
    location: str, snapshots: Iterable[str], known: Mapping[str, Published], client: "Client | None" = None
) -> dict[str, Published]:
    """What is published of these snapshots, by snapshot.

    Args:
        location: a path or gs:// location with `{snapshot}` in it.
        snapshots: the partition keys to look for.
        known: what was found before; a file in the same state is not read again.
        client: the Cloud Storage client for gs://; made from the environment if there is none.

    Raises:
        SourceError: the location cannot be looked at; the message says why.
    """
    places = {resolve(location, snapshot): snapshot for snapshot in snapshots}
    if location.lower().startswith("gs://"):
        return _in_bucket(location, places, client)
    return _in_folder(places, known)


def _in_folder(places: Mapping[str, str], known: Mapping[str, Published]) -> dict[str, Published]:
    found = {}
    for place, snapshot in places.items():
        text = unquote(urlsplit(place).path) if place.lower().startswith("file://") else place
        path = Path(text).expanduser()
        if not path.is_file():
            continue
        try:
            stat = path.stat()
            if time.time() - stat.st_mtime < SETTLE_SECONDS:
                # It will have settled by one of the next looks.
                if snapshot in known:
                    found[snapshot] = known[snapshot]
                continue
            state = f"{stat.st_mtime_ns}-{stat.st_size}"
            before = known.get(snapshot)
            same = before is not None and before.state == state
            digest = before.digest if before and same else sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            continue
        except PermissionError as error:
            raise SourceForbidden(f"{place}: no permission to read {path}") from error
        except OSError as error:
            raise SourceUnreachable(f"{place}: cannot read {path}: {error.strerror}") from error
        found[snapshot] = Published(state, digest)
    return found


def _in_bucket(location: str, places: Mapping[str, str], client: "Client | None") -> dict[str, Published]:
    from housing_assets.storage.gcs import GcsStore, default_client  # noqa: PLC0415  (a second to import)

    bucket, _, template = location[len("gs://") :].partition("/")
    if not bucket or not template or "{" in bucket:
        raise SourceLocationInvalid(
            f"source location {location!r}: expected gs://<bucket>/<object>, {{snapshot}} in the object's "
            f"name; {SETTING}"
        )
    try:
        store = GcsStore(client or default_client(), bucket, deadline=GCS_SECONDS)
        listed = store.checksums(template.partition("{")[0])
    except ObjectNameInvalid as error:
        raise SourceLocationInvalid(f"source location {location!r}: {error}; {SETTING}") from error
    except BucketMissing as error:
        raise SourceMissing(f"{location}: {error}") from error
    except (BucketForbidden, CredentialsMissing) as error:
        raise SourceForbidden(f"{location}: {error}") from error
    except StorageError as error:
        raise SourceUnreachable(f"{location}: {error}") from error
    found = {}
    for name, checksum in listed.items():
        snapshot = places.get(f"{location[:5]}{bucket}/{name}")
        if snapshot is not None:
            found[snapshot] = Published(checksum, checksum)
    return found
