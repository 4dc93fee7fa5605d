"""Source data: where the published rows come from (`fetch`) and what a file must look like (`parse`).

Values are not judged here beyond "is it a number"; ranges and categories belong to
`housing_assets.ml.schemas`.
"""

from housing_assets.sources.errors import (
    AmbiguousArchive,
    ChecksumMismatch,
    DuplicateColumn,
    EmptySource,
    ExtraColumn,
    HeaderOnly,
    MissingColumn,
    NotANumber,
    RaggedRow,
    SourceError,
    SourceForbidden,
    SourceLocationInvalid,
    SourceMissing,
    SourceTooLarge,
    SourceUnreachable,
    UnreadableParquet,
    UnreadableSource,
    UnsafeArchive,
    WrongDelimiter,
)
from housing_assets.sources.fetching import (
    PACKAGED_LOCATION,
    Source,
    fetch,
    is_folder,
    list_files,
    packaged_source,
    resolve,
)
from housing_assets.sources.parsing import parse
from housing_assets.sources.table import SOURCE_COLUMNS

__all__ = [
    "PACKAGED_LOCATION",
    "SOURCE_COLUMNS",
    "AmbiguousArchive",
    "ChecksumMismatch",
    "DuplicateColumn",
    "EmptySource",
    "ExtraColumn",
    "HeaderOnly",
    "MissingColumn",
    "NotANumber",
    "RaggedRow",
    "Source",
    "SourceError",
    "SourceForbidden",
    "SourceLocationInvalid",
    "SourceMissing",
    "SourceTooLarge",
    "SourceUnreachable",
    "UnreadableParquet",
    "UnreadableSource",
    "UnsafeArchive",
    "WrongDelimiter",
    "fetch",
    "is_folder",
    "list_files",
    "packaged_source",
    "parse",
    "resolve",
]
