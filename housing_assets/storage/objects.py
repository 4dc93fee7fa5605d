"""What both stores share: the interface, the value objects, the errors and the rule for object names."""

from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO, Protocol

# Of a file that is copied or read through.
PIECE_BYTES = 8 * 1024 * 1024


class StorageError(Exception):
    """Something is wrong with a storage root or one of its objects; the message names which."""


class ObjectNameInvalid(StorageError, ValueError):
    """An object name or storage root that no store accepts."""


class ObjectMissing(StorageError, FileNotFoundError):
    """No object of that name. Also a FileNotFoundError, which callers of file systems expect."""


class ObjectConflict(StorageError):
    """A write precondition failed: another writer was first."""


class ChecksumMismatch(StorageError):
    """The bytes read are not the bytes that were stored or expected."""


class BucketMissing(StorageError):
    """The bucket of the storage root does not exist."""


class BucketForbidden(StorageError):
    """The credentials at hand may not use the bucket."""


class CredentialsMissing(StorageError):
    """No usable credentials for Google Cloud Storage."""


class StorageUnavailable(StorageError):
    """Transient: the store did not answer within its deadline; trying again later may help."""


class StorageRefused(StorageError):
    """The store answered that the request is not acceptable; trying again does not help."""


class StorageReadFailed(StorageError):
    """An object exists but its file cannot be read."""


class StorageWriteFailed(StorageError):
    """An object could not be written; what was stored before is intact."""


@dataclass(frozen=True)
class StoredObject:
    """The receipt of one completed write."""

    uri: str
    size: int
    sha256: str
    generation: int | None


@dataclass(frozen=True)
class ObjectInfo:
    """What a store knows about an object without reading it."""

    uri: str
    size: int
    generation: int


class ObjectStore(Protocol):
    """Named objects under one storage root.

    A generation identifies one state of an object and grows with every write of it. To change an
    object that others may change too, take `info` first, then `read`, then `write` with
    `if_generation`: whoever comes second gets `ObjectConflict`.
    """

    @property
    def root(self) -> str:
        """The storage root: `gs://bucket` or an absolute folder."""
        ...

    def uri(self, name: str) -> str:
        """Where the object of that name is: the root, a slash and the name."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is an object of that name."""
        ...

    def read(self, name: str, *, expected_sha256: str | None = None) -> bytes:
        """The whole object, checked against a checksum where one is given."""
        ...

    def write(
        self, name: str, data: bytes, *, if_absent: bool = False, if_generation: int | None = None
    ) -> StoredObject:
        """Store the whole object or nothing; with a precondition, only when it holds."""
        ...

    def open(self, name: str) -> BinaryIO:
        """The whole object as a file to read and seek in, for what is too large for memory.

        It stays the object of this moment, whatever is written later; whoever opens it closes it.
        """
        ...

    def write_file(self, name: str, file: BinaryIO) -> StoredObject:
        """Store the whole content of a file, or nothing."""
        ...

    def list(self, prefix: str = "") -> list[str]:
        """The sorted names of all objects whose name starts with the prefix."""
        ...

    def delete(self, name: str) -> None:
        """Make sure there is no object of that name; deleting an absent one is no error."""
        ...

    def info(self, name: str) -> ObjectInfo:
        """Size and generation of an object."""
        ...


def checked_name(name: str, *, prefix: bool = False) -> str:
    """The name itself, when every store accepts it.

    Raises:
        ObjectNameInvalid: the name could leave the root or be taken for a temporary file.
    """
    parts = name.removesuffix("/").split("/") if prefix and name else name.split("/")
    if prefix and not name:
        return name
    # A leading dot covers `.`, `..` and the hidden files the local store uses while it writes.
    if any(not part or part.startswith(".") for part in parts) or set(name) & {"\\", "\0", "\n", "\r"}:
        raise ObjectNameInvalid(
            f"object name {name!r}: use relative names like 'folder/file.json', "
            "no part empty or with a leading dot"
        )
    return name


def check_precondition_arguments(name: str, if_absent: bool, if_generation: int | None) -> None:
    """Refuse a write that asks for two preconditions at once."""
    if if_absent and if_generation is not None:
        raise ValueError(f"write of {name!r}: give if_absent or if_generation, not both")


def measured(file: BinaryIO) -> tuple[int, str]:
    """Size and sha256 of a file's whole content; it is left at its start."""
    digest, size = sha256(), 0
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
        size += len(piece)
    file.seek(0)
    return size, digest.hexdigest()


def verified(data: bytes, uri: str, expected_sha256: str | None) -> bytes:
    """The data itself, when its checksum is the expected one or none is expected."""
    if expected_sha256 is not None and (found := sha256(data).hexdigest()) != expected_sha256.lower():
        raise ChecksumMismatch(f"{uri}: sha256 is {found}, expected {expected_sha256}")
    return data
