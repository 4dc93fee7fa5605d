"""The IO manager: every asset's value at its readable object name, on a folder or in a bucket."""

from hashlib import sha256
from pathlib import PurePosixPath

import dagster as dg
import pandas as pd

from housing_assets.datasets.dataset import TABLE_SUFFIX, Dataset, find_dataset, manifest_name
from housing_assets.formats import decode, encode
from housing_assets.resources import StorageResource
from housing_assets.snapshot_asset import OBJECT_KEY
from housing_assets.storage import ObjectConflict, ObjectMissing, ObjectStore, StoredObject
from housing_assets.tracking import final, finish_step

# Models were trained on it: it is never overwritten without a copy.
KEPT = "data/"


class HousingIOManager(dg.ConfigurableIOManager):
    """Stores a value in the format its object name ends with, atomically; one class for both roots."""

    storage: dg.ResourceDependency[StorageResource]

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write the object, describe it on the asset, and close the asset's tracked step."""
        name = object_name(context)
        key = (context.run_id, context.asset_key.to_user_string())
        try:
            stored = store_value(self.storage.store(), name, obj)
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
        """Read what the upstream asset stored for the same snapshot; what asks for a frame gets all rows."""
        if context.upstream_output is None:
            raise ValueError(f"input {context.name} has no upstream asset")
        name = object_name(context.upstream_output, context.asset_partition_key)
        try:
            store = self.storage.store()
            dataset = find_dataset(store, name)
            if dataset is None:
                return decode(name, store.read(name))
            return dataset.frame() if context.dagster_type.typing_type is pd.DataFrame else dataset
        except Exception as error:
            raise final(error) from error


def store_value(store: ObjectStore, name: str, value: object) -> StoredObject:
    """Store a value as one object, or the manifest of one whose parts are stored already.

    Where there is a manifest it counts. So it goes last when an object takes its place, and comes first when
    it takes an object's: whoever is killed in between leaves the old table or the new one.
    """
    if isinstance(value, Dataset):
        stored = _write(store, manifest_name(name), value.to_json())
        _remove(store, name)
    else:
        stored = _write(store, name, encode(name, value))
        if name.endswith(TABLE_SUFFIX):
            _remove(store, manifest_name(name))
    return stored


def _write(store: ObjectStore, name: str, data: bytes) -> StoredObject:
    if name.startswith(KEPT):
        keep_replaced(store, name, data)
    return store.write(name, data)


def _remove(store: ObjectStore, name: str) -> None:
    if store.exists(name):
        if name.startswith(KEPT):
            keep_replaced(store, name, b"")
        store.delete(name)


def keep_replaced(store: ObjectStore, name: str, data: bytes) -> None:
    """Copy what these bytes are about to replace to `kept_name`, once; the same bytes replace nothing."""
    try:
        old = store.read(name)
    except ObjectMissing:
        return
    digest = sha256(old).hexdigest()
    if digest == sha256(data).hexdigest():
        return
    try:
        store.write(kept_name(name, digest), old, if_absent=True)
    except ObjectConflict:
        # These very bytes were replaced, and kept, before.
        return


def kept_name(name: str, digest: str) -> str:
    """Where an object lies after it was replaced, by the sha256 that its asset's metadata names."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/replaced/{digest}{PurePosixPath(file).suffix}"


def object_name(context: dg.OutputContext, snapshot: str | None = None) -> str:
    """The object name of an asset's value for a snapshot."""
    template = str((context.definition_metadata or {})[OBJECT_KEY])
    return template.format(snapshot=snapshot or context.asset_partition_key)
