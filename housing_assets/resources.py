"""Resources the assets use for storage and the source; `tracking` and `registry` hold theirs.

Which values they get is decided in one place, `deployments.build_resources`.
"""

import dagster as dg
from dagster_gcp import GCSResource
from pydantic import Field

from housing_assets.sources import Source, fetch, packaged_source, resolve
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
        description="https, gs:// or local path of csv, csv.gz, parquet or tgz; may hold {snapshot}.",
    )
    sha256: str | None = Field(default=None, description="Expected checksum of the source file.")

    def read(self, snapshot: str, location: str | None = None) -> Source:
        """Fetch the source of one snapshot, from `location` where a run names its own."""
        chosen = location or self.location
        if chosen is None:
            return packaged_source()
        return fetch(resolve(chosen, snapshot), expected_sha256=self.sha256)
