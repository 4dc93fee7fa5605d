"""Unpacking in memory, never on disk: gzip, and tar archives that hold exactly one harmless file."""

import gzip
import io
import tarfile
import zlib
from pathlib import PurePosixPath, PureWindowsPath

from housing_assets.sources.errors import AmbiguousArchive, SourceTooLarge, UnreadableSource, UnsafeArchive

GZIP_MAGIC = b"\x1f\x8b"
ARCHIVE_SUFFIXES = (".tgz", ".tar.gz")


def archive_member(data: bytes, location: str, max_bytes: int) -> str | None:
    """The name of the one file in an archive; None when the data is no archive."""
    unpacked = gunzip(data, location, max_bytes)
    if not _is_tar(unpacked, location):
        return None
    return only_member(unpacked, location)[0]


def unpack(data: bytes, location: str, max_bytes: int) -> bytes:
    """The table's bytes: of the one file in an archive, of a gzip file, or the data itself."""
    unpacked = gunzip(data, location, max_bytes)
    if not _is_tar(unpacked, location):
        return unpacked
    return gunzip(only_member(unpacked, location)[1], location, max_bytes)


def gunzip(data: bytes, location: str, max_bytes: int) -> bytes:
    """The data, decompressed if it is gzip; the content decides, not the name."""
    if not data.startswith(GZIP_MAGIC):
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            unpacked = file.read(max_bytes + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise UnreadableSource(f"{location}: damaged gzip file: {error}") from error
    if len(unpacked) > max_bytes:
        raise SourceTooLarge(f"{location}: unpacks to more than {max_bytes} bytes")
    return unpacked


def only_member(data: bytes, location: str) -> tuple[str, bytes]:
    """Name and bytes of the one regular file in a tar archive."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            members = [member for member in archive.getmembers() if _is_file(member, location)]
            if len(members) != 1:
                names = ", ".join(member.name for member in members) or "none"
                raise AmbiguousArchive(
                    f"{location}: expected exactly one file, found {len(members)}: {names}"
                )
            file = archive.extractfile(members[0])
            content = file.read() if file is not None else b""
    except tarfile.TarError as error:
        raise UnreadableSource(f"{location}: damaged tar archive: {error}") from error
    return members[0].name, content


def _is_tar(data: bytes, location: str) -> bool:
    is_tar = tarfile.is_tarfile(io.BytesIO(data))
    if not is_tar and location.lower().endswith(ARCHIVE_SUFFIXES) and data:
        raise UnreadableSource(f"{location}: not a tar archive")
    return is_tar


def _is_file(member: tarfile.TarInfo, location: str) -> bool:
    """Whether a member counts; folders do not, anything that could do harm is refused."""
    path = PurePosixPath(member.name)
    escapes = path.is_absolute() or ".." in path.parts
    # Harmless text here, a path on Windows: nobody publishes such a name in good faith.
    if escapes or "\\" in member.name or PureWindowsPath(member.name).drive:
        raise UnsafeArchive(f"{location}: archive member {member.name!r} points outside the archive")
    # A sparse member of a few bytes can claim to be terabytes of zeros.
    if member.issparse() or not (member.isfile() or member.isdir()):
        raise UnsafeArchive(f"{location}: archive member {member.name!r} is a link, device or sparse file")
    return member.isfile()
