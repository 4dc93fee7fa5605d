"""A table as parts in the object store: Parquet files, and a manifest that says which of them it is.

Parts are named after their content and the manifest is written last, in one piece. So a step that is repeated
writes the same objects again, a half-written table is none, and a replaced one stays readable.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import PurePosixPath

import pandas as pd
from pyarrow import parquet

from housing_assets.formats import FormatError, decode, encode
from housing_assets.ml.cleaning import BLOCK_ROWS
from housing_assets.storage import ObjectStore, open_store

# Some 80 MB as Parquet rows become 300 MB in a worker that cleans them.
PART_ROWS = 500_000
SAMPLE_ROWS = 50_000
TABLE_SUFFIX = ".parquet"
MANIFEST_SUFFIX = ".parts.json"


@dataclass(frozen=True)
class Part:
    """Some rows of a table, in one Parquet file.

    Attributes:
        name: of the object.
        rows: how many there are.
        nulls: how many there are in each column.
    """

    name: str
    rows: int
    nulls: Mapping[str, int]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns, in order."""
        return tuple(self.nulls)


@dataclass(frozen=True)
class Dataset:
    """A table in parts; the rows of each part follow those of the part before.

    Attributes:
        root: the storage root, which every worker opens for itself.
        parts: at least one, in order.
        content_hash: what `cleaning.content_hash` says of the whole table.
    """

    root: str
    parts: tuple[Part, ...]
    content_hash: str

    def __len__(self) -> int:
        """Number of rows."""
        return sum(part.rows for part in self.parts)

    @property
    def nulls(self) -> Mapping[str, int]:
        """How many nulls there are in each column."""
        counts: Counter[str] = Counter()
        for part in self.parts:
            counts.update(part.nulls)
        return {name: counts[name] for name in self.parts[0].columns}

    def frame(self) -> pd.DataFrame:
        """All rows in memory."""
        return pd.concat([read_part(self.root, part) for part in self.parts], ignore_index=True)

    def sample(self) -> pd.DataFrame:
        """Its first rows: a random sample where they are in the order of their ids, which are hashes."""
        needed, frames = SAMPLE_ROWS, []
        for part in self.parts:
            if needed > 0:
                frames.append(read_part(self.root, part, 0, needed))
                needed -= part.rows
        return pd.concat(frames, ignore_index=True)

    def blocks(self) -> Iterator[list[tuple[Part, int, int]]]:
        """Which rows of which parts make up each block of the content hash, in order."""
        rows = len(self)
        for start in range(0, max(rows, 1), BLOCK_ROWS):
            yield list(_slices(self.parts, start, min(start + BLOCK_ROWS, rows)))

    def to_json(self) -> bytes:
        """The manifest."""
        return encode(
            "manifest.json", {"content_hash": self.content_hash, "parts": list(map(asdict, self.parts))}
        )

    @classmethod
    def from_json(cls, root: str, data: bytes) -> "Dataset":
        """The dataset of a manifest.

        Raises:
            FormatError: it is no manifest.
        """
        try:
            fields = json.loads(data)
            parts = tuple(Part(**part) for part in fields["parts"])
            return cls(root, parts, fields["content_hash"])
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"not the manifest of a table in parts: {error!r}") from error


def _slices(parts: Sequence[Part], start: int, stop: int) -> Iterator[tuple[Part, int, int]]:
    first = 0
    for part in parts:
        low, high = max(start - first, 0), min(stop - first, part.rows)
        if low < high or (part.rows == 0 and stop == start):
            yield part, low, high
        first += part.rows


def manifest_name(name: str) -> str:
    """Where the manifest lies of a table that would be stored under this name if it were one object."""
    return name.removesuffix(TABLE_SUFFIX) + MANIFEST_SUFFIX


def parts_folder(name: str) -> str:
    """Where the parts lie of a table that would be stored under this name if it were one object."""
    return name.removesuffix(TABLE_SUFFIX) + ".parts"


def find_dataset(store: ObjectStore, name: str) -> Dataset | None:
    """The table of that name if it is stored in parts."""
    manifest = manifest_name(name)
    if PurePosixPath(name).suffix != TABLE_SUFFIX or not store.exists(manifest):
        return None
    return Dataset.from_json(store.root, store.read(manifest))


def write_part(root: str, folder: str, number: int, frame: pd.DataFrame) -> Part:
    """Store some rows as the part of that number."""
    data = encode(f"part{TABLE_SUFFIX}", frame)
    name = f"{folder}/{number:06d}-{sha256(data).hexdigest()[:16]}{TABLE_SUFFIX}"
    open_store(root).write(name, data)
    return Part(name, len(frame), {str(column): int(count) for column, count in frame.isna().sum().items()})


def read_part(root: str, part: Part, start: int = 0, stop: int | None = None) -> pd.DataFrame:
    """The rows of a part, or only those from `start` to before `stop`."""
    store = open_store(root)
    if start == 0 and (stop is None or stop >= part.rows):
        return pd.DataFrame(decode(part.name, store.read(part.name)))
    with store.open(part.name) as file:
        table = parquet.read_table(file)
    return pd.DataFrame(table.slice(start, None if stop is None else stop - start).to_pandas())
