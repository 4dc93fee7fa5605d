"""The seam of the data steps: a table in memory is worked on here, one in parts by an engine.

Which of them a table is follows from its source: a file is read into memory, a folder of files into parts.
What comes out is the same, to the content hash.
"""

from dataclasses import dataclass

import dagster as dg
from pandera.pandas import DataFrameSchema
from pydantic import Field

from housing_assets.datasets import steps
from housing_assets.datasets.dataset import Dataset
from housing_assets.engines import LOCAL, Engine, engine_at
from housing_assets.ml import cleaning
from housing_assets.ml.schemas import ValidationReport, validate
from housing_assets.ml.split import split
from housing_assets.resources import StorageResource
from housing_assets.tables import Table


@dataclass(frozen=True)
class Processed:
    """Clean rows, and what cleaning met: see `cleaning.Processed`."""

    table: Table
    duplicates_dropped: int
    capped_rows: int


@dataclass(frozen=True)
class Sides:
    """Both sides of a split, and the ids that are wrongly on both of them."""

    train: Table
    test: Table
    shared: list[str]


class ComputeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Works on tables; on those in parts with every processor of this machine or with a Dask cluster."""

    storage: dg.ResourceDependency[StorageResource]
    address: str = Field(default=LOCAL, description="local, or dask://host:port of a scheduler.")

    @property
    def engine(self) -> Engine:
        """Who works on parts."""
        return engine_at(self.address)

    def read_files(self, locations: list[str], name: str) -> tuple[Dataset, list[steps.SourceFile]]:
        """The files of a source as one table, stored in parts under a name."""
        return steps.read_files(locations, self.storage.root, name, self.engine)

    def process(self, raw: Table, name: str) -> Processed:
        """Clean rows; a table in parts is stored under the name."""
        if isinstance(raw, Dataset):
            return Processed(*steps.process(raw, name, self.engine))
        processed = cleaning.process(raw)
        return Processed(processed.frame, processed.duplicates_dropped, processed.capped_rows)

    def add_row_features(self, processed: Table, name: str) -> Table:
        """The table with the ratios of each row; a table in parts is stored under the name."""
        if isinstance(processed, Dataset):
            return steps.add_row_features(processed, name, self.engine)
        return cleaning.add_row_features(processed)

    def split(self, featured: Table, names: tuple[str, str], test_fraction: float) -> Sides:
        """Training and test rows; tables in parts are stored under the names."""
        if isinstance(featured, Dataset):
            return Sides(*steps.split_sets(featured, names, test_fraction, self.engine))
        train, test = split(featured, test_fraction)
        shared = set(train[cleaning.ID_COLUMN]) & set(test[cleaning.ID_COLUMN])
        return Sides(train, test, sorted(shared))

    def check(self, table: Table, schema: DataFrameSchema) -> ValidationReport:
        """What of the table is not as the schema has it."""
        if isinstance(table, Dataset):
            return steps.validate_parts(table, schema, self.engine)
        return validate(table, schema)
