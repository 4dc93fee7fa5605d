"""The IO manager: every asset's value at its readable object name, on a folder or in a bucket."""

import dagster as dg

from housing_assets.formats import decode, encode
from housing_assets.resources import StorageResource
from housing_assets.snapshot_asset import OBJECT_KEY
from housing_assets.tracking import final, finish_step


class HousingIOManager(dg.ConfigurableIOManager):
    """Stores a value in the format its object name ends with, atomically; one class for both roots."""

    storage: dg.ResourceDependency[StorageResource]

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write the object, describe it on the asset, and close the asset's tracked step."""
        name = object_name(context)
        key = (context.run_id, context.asset_key.to_user_string())
        try:
            stored = self.storage.store().write(name, encode(name, obj))
        except Exception as error:
            finish_step(*key, None)
            raise final(error) from error
        context.add_output_metadata(
            {
                "dagster/uri": dg.MetadataValue.text(stored.uri),
                "sha256": dg.MetadataValue.text(stored.sha256),
                "size_bytes": dg.MetadataValue.int(stored.size),
            }
        )
        finish_step(*key, stored)

    def load_input(self, context: dg.InputContext) -> object:
        """Read what the upstream asset stored for the same snapshot."""
        if context.upstream_output is None:
            raise ValueError(f"input {context.name} has no upstream asset")
        name = object_name(context.upstream_output, context.asset_partition_key)
        try:
            return decode(name, self.storage.store().read(name))
        except Exception as error:
            raise final(error) from error


def object_name(context: dg.OutputContext, snapshot: str | None = None) -> str:
    """The object name of an asset's value for a snapshot."""
    template = str((context.definition_metadata or {})[OBJECT_KEY])
    return template.format(snapshot=snapshot or context.asset_partition_key)
