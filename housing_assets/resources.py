"""Resources the assets use for storage and the source; `tracking` and `registry` hold theirs.

Which values they get is decided in one place, `deployments.build_resources`.
"""

import dagster as dg
from dagster_gcp import GCSResource
from pydantic import Field

from housing_assets.ml.preprocessing import FeatureSettings
from housing_assets.sources import PACKAGED_LOCATION, ChecksumMismatch, Source, fetch, resolve
from housing_assets.storage import ObjectStore, open_store


class StorageResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The storage root: a local folder or `gs://bucket`, reached through one small store."""

    root: str = Field(description="Absolute path of a folder, or gs://bucket.")
    gcs: dg.ResourceDependency[GCSResource]

    def store(self) -> ObjectStore:
        """The object store at the root; a GCS client is made only for `gs://`."""
        client = self.gcs.get_client() if self.root.startswith("gs://") else None
        return open_store(self.root, client)


class SourceResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where raw rows come from; without a location, the table that ships with the package."""

    location: str | None = Field(
        default=None,
        description="https, gs:// or local path of csv, csv.gz, parquet or tgz; may hold {snapshot}. "
        "Ends with / for all files of a local or gs:// folder, which may be larger than memory.",
    )
    sha256: str | None = Field(default=None, description="Expected checksum of the source file.")

    def place(self, snapshot: str, location: str | None = None) -> str:
        """Where the source of one snapshot is: `location` where a run names its own."""
        return resolve(location or self.location or PACKAGED_LOCATION, snapshot)

    def read(self, place: str) -> Source:
        """Fetch a source that is one file."""
        return fetch(place, expected_sha256=self.sha256)

    def verify(self, place: str, sha256: str) -> None:
        """Refuse a folder that is not the expected one.

        Raises:
            ChecksumMismatch: its checksum is another.
        """
        if self.sha256 and sha256 != self.sha256.strip().lower():
            raise ChecksumMismatch(
                f"{place}: the sha256 of its files is {sha256}, expected {self.sha256}; "
                "check HOUSING_SOURCE_SHA256 or the files"
            )


DEFAULT_FEATURES = FeatureSettings()


class MonitoringResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """How closely the service is watched."""

    running_day_minutes: float = Field(
        default=60.0, gt=0, description="From one look at the running day to the next."
    )


class FeatureResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Which features there are: the same for the comparison, the sweep and the registered model."""

    ratios: bool = Field(
        default=DEFAULT_FEATURES.ratios, description="Rooms, people and bedrooms per household and so on."
    )
    n_clusters: int | None = Field(
        default=None,
        ge=0,
        le=200,
        description="Number of geographic centres (K), 0 for none; left out, the one of the least "
        "cross-validated price error in the K scan.",
    )
    gamma: float = Field(
        default=DEFAULT_FEATURES.gamma,
        gt=0,
        description="Width of the similarity to a centre: exp(-gamma * squared distance in degrees).",
    )
    rotations: int = Field(
        default=DEFAULT_FEATURES.rotations, ge=0, le=90, description="Coordinates along so many directions."
    )
    city_distances: bool = Field(
        default=DEFAULT_FEATURES.city_distances, description="Distances to eight cities."
    )
    neighbours: bool = Field(
        default=DEFAULT_FEATURES.neighbours, description="Prices and traits of the nearest training rows."
    )
    remote_share: float = Field(
        default=DEFAULT_FEATURES.remote_share,
        ge=0,
        le=1,
        description="Share of the training rows that are shown once more as if far from all others.",
    )
    reach: float = Field(
        default=DEFAULT_FEATURES.reach,
        gt=0,
        description="Degrees of latitude from which on a place counts as far from the training rows: "
        "it is then priced without neighbours. Needs a `remote_share`.",
    )

    def settings(self, n_clusters: int | None = None) -> FeatureSettings:
        """The settings, with a number of centres for where none was chosen."""
        chosen = self.n_clusters if self.n_clusters is not None else n_clusters
        return FeatureSettings(
            ratios=self.ratios,
            n_clusters=DEFAULT_FEATURES.n_clusters if chosen is None else chosen,
            gamma=self.gamma,
            rotations=self.rotations,
            city_distances=self.city_distances,
            neighbours=self.neighbours,
            remote_share=self.remote_share,
            reach=self.reach,
        )
