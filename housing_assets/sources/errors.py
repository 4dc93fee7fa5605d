"""What can be wrong with a source; every message names the source and the file, column, row or setting."""


class SourceError(Exception):
    """The source cannot be used; the message says why and where."""


class SourceLocationInvalid(SourceError, ValueError):
    """The location itself is malformed: an unknown placeholder or scheme."""


class SourceMissing(SourceError):
    """Nothing is published at the location."""


class SourceForbidden(SourceError):
    """The location refuses access."""


class SourceUnreachable(SourceError):
    """Transient: no complete answer within the time-out, after all attempts."""


class SourceTooLarge(SourceError):
    """More bytes, packed or unpacked, than a source may have."""


class ChecksumMismatch(SourceError):
    """The file is not the one whose checksum is expected."""


class UnreadableSource(SourceError):
    """The bytes are not what the format promises: damaged archive, wrong encoding, broken quoting."""


class UnreadableParquet(UnreadableSource):
    """Not a readable parquet file."""


class UnsafeArchive(SourceError):
    """An archive member is a link or device, or would land outside the folder it is unpacked to."""


class AmbiguousArchive(SourceError):
    """The archive does not hold exactly one file."""


class EmptySource(SourceError):
    """The file holds nothing."""


class HeaderOnly(SourceError):
    """There are columns but no rows."""


class WrongDelimiter(SourceError):
    """The fields are separated by something else than a comma."""


class MissingColumn(SourceError):
    """An expected column is not there."""


class ExtraColumn(SourceError):
    """A column is there that nobody expects."""


class DuplicateColumn(SourceError):
    """Two columns have the same name."""


class RaggedRow(SourceError):
    """A row has more or fewer fields than the header."""


class NotANumber(SourceError):
    """Text where a number belongs."""
