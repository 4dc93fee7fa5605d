"""Objects as files below a folder: atomic, durable, safe with several writing processes.

A write holds an advisory lock on the object's folder, so a temporary file found while holding it was
left by a process that died and can go.
"""

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from housing_assets.storage.objects import (
    PIECE_BYTES,
    ObjectConflict,
    ObjectInfo,
    ObjectMissing,
    StorageReadFailed,
    StorageUnavailable,
    StorageWriteFailed,
    StoredObject,
    check_precondition_arguments,
    checked_name,
    measured,
    verified,
)

TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp")
LOCK_POLL_SECONDS = 0.005


class LocalStore:
    """An object store in a local folder, which is created by the first write."""

    def __init__(self, root: str | Path, *, lock_timeout: float = 60.0) -> None:
        self._folder = Path(root).expanduser().absolute()
        self._lock_timeout = lock_timeout

    @property
    def root(self) -> str:
        """The absolute path of the folder."""
        return str(self._folder)

    def uri(self, name: str) -> str:
        """The absolute path of the object's file."""
        return str(self._path(name))

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return self._path(name).is_file()

    def read(self, name: str, *, expected_sha256: str | None = None) -> bytes:
        """The whole object, checked against a checksum where one is given."""
        path = self._path(name)
        with _read_errors(path):
            data = path.read_bytes()
        return verified(data, str(path), expected_sha256)

    def open(self, name: str) -> BinaryIO:
        """The object as a file; a later write replaces the object, not this file."""
        path = self._path(name)
        with _read_errors(path):
            return path.open("rb")

    def info(self, name: str) -> ObjectInfo:
        """Size and generation of an object."""
        path = self._path(name)
        state = _state(path)
        if state is None:
            raise _missing(path)
        return ObjectInfo(str(path), state.st_size, state.st_mtime_ns)

    def list(self, prefix: str = "") -> list[str]:
        """The sorted names of all objects whose name starts with the prefix."""
        checked_name(prefix, prefix=True)
        names = []
        for folder, folders, files in os.walk(self._folder / prefix.rpartition("/")[0]):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found = (Path(folder, file) for file in files if not file.startswith("."))
            names += [path.relative_to(self._folder).as_posix() for path in found]
        return sorted(name for name in names if name.startswith(prefix))

    def write(
        self, name: str, data: bytes, *, if_absent: bool = False, if_generation: int | None = None
    ) -> StoredObject:
        """Store the whole object or nothing; with a precondition, only when it holds."""
        check_precondition_arguments(name, if_absent, if_generation)
        generation = self._write(name, BytesIO(data), if_absent, if_generation)
        return StoredObject(self.uri(name), len(data), sha256(data).hexdigest(), generation)

    def write_file(self, name: str, file: BinaryIO) -> StoredObject:
        """Store the whole content of a file, or nothing."""
        size, digest = measured(file)
        return StoredObject(self.uri(name), size, digest, self._write(name, file, False, None))

    def _write(self, name: str, content: BinaryIO, if_absent: bool, if_generation: int | None) -> int:
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked(path.parent) as folder:
                _remove_leftovers(path.parent)
                state = _state(path)
                _check_precondition(path, state, if_absent, if_generation)
                generation = _replace(path, content, state, exclusive=if_absent)
                os.fsync(folder)
        except OSError as error:
            raise StorageWriteFailed(
                f"cannot write {path}: {error.strerror or error} (nothing was changed)"
            ) from error
        return generation

    def delete(self, name: str) -> None:
        """Make sure there is no object of that name; deleting an absent one is no error."""
        path = self._path(name)
        try:
            with self._locked(path.parent) as folder:
                path.unlink(missing_ok=True)
                os.fsync(folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise StorageWriteFailed(f"cannot delete {path}: {error.strerror or error}") from error

    def _path(self, name: str) -> Path:
        return self._folder / checked_name(name)

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[int]:
        """Hold the folder's lock; yields its descriptor. The kernel frees the lock of a dead process."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._acquire(descriptor, folder)
            try:
                yield descriptor
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def _acquire(self, descriptor: int, folder: Path) -> None:
        deadline = time.monotonic() + self._lock_timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StorageUnavailable(
                        f"{folder} was locked by another writer for {self._lock_timeout:g} s"
                    ) from None
                time.sleep(LOCK_POLL_SECONDS)
            else:
                return


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise _missing(path) from error
    except OSError as error:
        raise StorageReadFailed(f"cannot read {path}: {error.strerror or error}") from error


def _missing(path: Path) -> ObjectMissing:
    return ObjectMissing(f"no object at {path}")


def _state(path: Path) -> os.stat_result | None:
    return path.stat() if path.is_file() else None


def _remove_leftovers(folder: Path) -> None:
    for entry in os.scandir(folder):
        if TEMPORARY.fullmatch(entry.name):
            Path(entry.path).unlink(missing_ok=True)


def _check_precondition(
    path: Path, state: os.stat_result | None, if_absent: bool, if_generation: int | None
) -> None:
    found = state.st_mtime_ns if state else None
    if if_absent and state is not None:
        raise ObjectConflict(f"{path} exists already (generation {found})")
    if if_generation is not None and found != if_generation:
        raise ObjectConflict(f"{path} has generation {found}, expected {if_generation}: another writer won")


def _replace(path: Path, content: BinaryIO, old: os.stat_result | None, *, exclusive: bool) -> int:
    """Put a complete, durable file in the place of the old one; returns the new generation."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            shutil.copyfileobj(content, file, PIECE_BYTES)
            file.flush()
            # The generation is the modification time, made to grow even within one tick of the clock.
            now = time.time_ns()
            generation = now if old is None else max(now, old.st_mtime_ns + 1)
            os.utime(file.fileno(), ns=(now, generation))
            os.fsync(file.fileno())
        if exclusive:
            # Fails when the name is taken, also on file systems whose locks do not reach other machines.
            os.link(temporary, path)
        else:
            temporary.replace(path)
    except FileExistsError as error:
        raise ObjectConflict(f"{path} exists already") from error
    finally:
        temporary.unlink(missing_ok=True)
    return generation
