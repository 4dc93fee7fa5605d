"""A table of the data steps: a frame in memory, or a dataset in parts."""

from abc import ABC
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from housing_assets.datasets.dataset import Dataset
from housing_assets.ml import cleaning

if TYPE_CHECKING:
    Table: TypeAlias = pd.DataFrame | Dataset
else:

    class Table(ABC):  # noqa: B024  (nothing is to be implemented)
        """Either of them, as a class: Dagster knows no unions."""

    Table.register(pd.DataFrame)
    Table.register(Dataset)


def sample_of(table: Table) -> pd.DataFrame:
    """The rows that figures and statistics are made of: all of a frame, the first ones of a dataset."""
    return table.sample() if isinstance(table, Dataset) else table


def nulls_of(table: Table) -> "pd.Series[Any]":
    """How many nulls there are in each column."""
    return pd.Series(table.nulls) if isinstance(table, Dataset) else table.isna().sum()


def hash_of(table: Table) -> str:
    """The content hash."""
    return table.content_hash if isinstance(table, Dataset) else cleaning.content_hash(table)
