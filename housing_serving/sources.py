"""Where the bundle to serve comes from: the registry's alias, the bucket, the local folder, in this order.

Reads only. A source that names a version which cannot be loaded has failed: it never offers another version
in its stead, and the next source is a matter of the caller.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from housing_serving.bundle import (
    MANIFEST_FILE,
    Bundle,
    BundleError,
    BundleManifest,
    read_manifest,
    sha256_hex,
)
from housing_serving.deadline import Deadline
from housing_serving.features import CATEGORICAL_FEATURE, NULLABLE_FEATURE
from housing_serving.releases import RELEASE_RECORD, ReleaseRecord, ReleaseUnreadable
from housing_serving.settings import ServingSettings
from housing_serving.storage_readers import (
    BucketReader,
    FolderReader,
    ModelUnavailable,
    NotRegistered,
    ObjectMissing,
    ObjectReader,
)

__all__ = [
    "FetchedModel",
    "LoadedModel",
    "ModelLocation",
    "ModelSource",
    "ModelUnavailable",
    "NotRegistered",
    "StorageRoot",
    "configured_sources",
    "read_release",
    "version_source",
]


@dataclass(frozen=True)
class ModelLocation:
    """A bundle's place, and what is known about the bundle before it is read."""

    reader: ObjectReader
    # Empty, or ending with a slash.
    prefix: str
    # Name and version it must state.
    identity: tuple[str, int] | None = None
    # What `bundle.json` must hash to.
    manifest_sha256: str | None = None

    @property
    def uri(self) -> str:
        """The bundle's address."""
        return self.reader.uri(self.prefix).rstrip("/")


@dataclass(frozen=True)
class LoadedModel:
    """A bundle, ready to predict; the name of the source it came from, and its address."""

    bundle: Bundle
    source: str
    uri: str


@dataclass(frozen=True)
class FetchedModel:
    """A bundle's files, held in memory: no temporary files can be left behind."""

    source: str
    uri: str
    files: Mapping[str, bytes]

    def open(self) -> LoadedModel:
        """Verify every file, compile the model, and let it predict once.

        Raises:
            ModelUnavailable: the bundle cannot be used.
        """
        try:
            bundle = Bundle.from_files(self.files, origin=self.uri)
        except BundleError as error:
            raise ModelUnavailable(str(error)) from error
        _warm_up(bundle, self.uri)
        return LoadedModel(bundle, self.source, self.uri)


@dataclass(frozen=True)
class ModelSource:
    """One place to get the model from."""

    name: str
    # Where it looks, as people read it.
    target: str
    # For naming and delivering together.
    seconds: float
    locate: Callable[[Deadline], ModelLocation]

    @property
    def too_slow(self) -> str:
        """What there is to say when the time is up."""
        return f"{self.target} did not name and deliver a model within {self.seconds:g} s"

    def fetch(self) -> FetchedModel:
        """Find the bundle and read its files.

        Raises:
            NotRegistered: there is none yet.
            ModelUnavailable: the source cannot be asked, or what it names cannot be had.
        """
        with Deadline(self.seconds) as deadline:
            try:
                location = self.locate(deadline)
                return FetchedModel(self.name, location.uri, _read_files(location))
            except ModelUnavailable as error:
                if deadline.passed:
                    # What was cut off looks like any kind of failure.
                    raise ModelUnavailable(self.too_slow) from error
                raise


def configured_sources(settings: ServingSettings) -> list[ModelSource]:
    """The sources of the settings, best first; at least one."""
    seconds = settings.housing_source_timeout_seconds
    sources = []
    if (settings.mlflow_tracking_uri or "").startswith(("http://", "https://")):
        sources.append(_mlflow_source(settings, seconds))
    if settings.gcs_model_path or settings.housing_deployment == "gcp":
        sources.append(_gcs_source(settings, seconds))
    if settings.local_model_path is not None or settings.housing_deployment == "local":
        sources.append(_local_source(settings, seconds))
    return sources


def _mlflow_source(settings: ServingSettings, seconds: float) -> ModelSource:
    # Imported here: a tenth of a second, and not needed where models are local.
    from housing_serving.mlflow_registry import alias_address, bundle_behind_alias  # noqa: PLC0415

    def locate(deadline: Deadline) -> ModelLocation:
        found = bundle_behind_alias(settings, deadline)
        folder, _, file = found.manifest_uri.rpartition("/")
        in_bucket = re.fullmatch(r"gs://([^/]+)/(.+)", folder)
        if file != MANIFEST_FILE or not (in_bucket or folder.startswith("/")):
            raise ModelUnavailable(
                f"{alias_address(settings)} is version {found.version}, whose bundle_uri is not the address "
                f"of a {MANIFEST_FILE} in a bucket or folder: give the alias to another version"
            )
        reader: ObjectReader = FolderReader(Path(folder))
        prefix = ""
        if in_bucket:
            reader, prefix = BucketReader(in_bucket[1], settings.gcp_project_id, deadline), f"{in_bucket[2]}/"
        identity = (settings.mlflow_model_name, found.version)
        return ModelLocation(reader, prefix, identity, found.manifest_sha256)

    return ModelSource("mlflow", alias_address(settings), seconds, locate)


def _gcs_source(settings: ServingSettings, seconds: float) -> ModelSource:
    # The settings refuse every combination that needs a bucket and names none.
    bucket = str(settings.gcs_bucket_name)
    prefix = settings.gcs_model_path.strip("/") + "/" if settings.gcs_model_path else None

    def locate(deadline: Deadline) -> ModelLocation:
        reader = BucketReader(bucket, settings.gcp_project_id, deadline)
        if prefix is not None:
            return ModelLocation(reader, prefix)
        return _in_storage_root(reader, settings.mlflow_model_name)

    return ModelSource("gcs", f"gs://{bucket}/{prefix or ''}".rstrip("/"), seconds, locate)


def _local_source(settings: ServingSettings, seconds: float) -> ModelSource:
    if settings.local_model_path is not None:
        bundle = FolderReader(settings.local_model_path.resolve())
        return ModelSource("local", str(bundle.root), seconds, lambda _: ModelLocation(bundle, ""))
    storage = FolderReader((settings.housing_home / "storage").resolve())
    name = settings.mlflow_model_name
    return ModelSource("local", str(storage.root), seconds, lambda _: _in_storage_root(storage, name))


def version_source(root: "StorageRoot", model_name: str, version: int, seconds: float) -> ModelSource:
    """One version in a storage root, and nothing else."""
    prefix = f"models/{model_name}/{version}/"

    def locate(deadline: Deadline) -> ModelLocation:
        return ModelLocation(root.reader(deadline), prefix, (model_name, version))

    return ModelSource(root.name, f"{root.uri}/{prefix}".rstrip("/"), seconds, locate)


@dataclass(frozen=True)
class StorageRoot:
    """The storage that holds a release record and the versions it names."""

    # Of the source that it is.
    name: str
    uri: str
    reader: Callable[[Deadline], ObjectReader]

    @classmethod
    def configured(cls, settings: ServingSettings) -> "StorageRoot | None":
        """That of the settings; None where they pin one bundle, whatever is released."""
        if settings.gcs_model_path or settings.local_model_path is not None:
            return None
        if settings.housing_deployment == "gcp":
            bucket = str(settings.gcs_bucket_name)
            return cls(
                "gcs",
                f"gs://{bucket}",
                lambda deadline: BucketReader(bucket, settings.gcp_project_id, deadline),
            )
        folder = FolderReader((settings.housing_home / "storage").resolve())
        return cls("local", str(folder.root), lambda _: folder)


def read_release(reader: ObjectReader) -> ReleaseRecord | None:
    """The release record of a storage root; None before the first release.

    Raises:
        ModelUnavailable: it cannot be read, or is none.
    """
    try:
        data = reader.read(RELEASE_RECORD)
    except ObjectMissing:
        return None
    try:
        return ReleaseRecord.parse(data, reader.uri(RELEASE_RECORD))
    except ReleaseUnreadable as error:
        raise ModelUnavailable(str(error)) from error


def _in_storage_root(reader: ObjectReader, model_name: str) -> ModelLocation:
    """The released version or, without a release, the newest complete one."""
    versions = f"models/{model_name}/"
    release = read_release(reader)
    version = release.stable_version if release else _newest_version(reader, versions)
    return ModelLocation(reader, f"{versions}{version}/", (model_name, version))


def _newest_version(reader: ObjectReader, versions: str) -> int:
    # `bundle.json` is written last, so a version that has it is complete.
    complete = re.compile(re.escape(versions) + r"([1-9]\d*)/" + re.escape(MANIFEST_FILE))
    found = [int(match[1]) for name in reader.names(versions) if (match := complete.fullmatch(name))]
    if not found:
        raise NotRegistered(
            f"no model version in {reader.uri(versions)}: "
            "materialize registered_model, or set LOCAL_MODEL_PATH"
        )
    return max(found)


def _read_files(location: ModelLocation) -> dict[str, bytes]:
    origin = f"{location.uri}/{MANIFEST_FILE}"
    try:
        data = location.reader.read(location.prefix + MANIFEST_FILE)
        _check_sha256(data, location, origin)
        manifest = read_manifest(data, origin)
        _check_identity(manifest, location, origin)
        files = {name: location.reader.read(location.prefix + name) for name in manifest.files}
    except ObjectMissing as error:
        raise ModelUnavailable(
            f"{error} does not exist: check the path, or export or copy the bundle again"
        ) from error
    except BundleError as error:
        raise ModelUnavailable(str(error)) from error
    return {**files, MANIFEST_FILE: data}


def _check_sha256(data: bytes, location: ModelLocation, origin: str) -> None:
    if location.manifest_sha256 not in {None, sha256_hex(data)}:
        raise ModelUnavailable(
            f"{origin} does not have the sha256 its registration states: it was changed or damaged; "
            "restore it, or register the model again"
        )


def _check_identity(manifest: BundleManifest, location: ModelLocation, origin: str) -> None:
    stated = (manifest.model_name, manifest.model_version)
    if location.identity not in {None, stated}:
        raise ModelUnavailable(
            f"{origin} says it is {stated[0]} version {stated[1]}, not the one that was asked for: "
            "copy or export the bundle again"
        )


def _warm_up(bundle: Bundle, origin: str) -> None:
    """Let the runtime allocate what it needs before the first request comes."""
    manifest = bundle.manifest
    columns = {feature.name: np.array([feature.maximum] * 2) for feature in manifest.features}
    columns[NULLABLE_FEATURE][1] = np.nan
    columns[CATEGORICAL_FEATURE] = np.array(manifest.preprocessing.categories[:1] * 2, dtype=object)
    try:
        prices = bundle.predict(columns).price
    except Exception as error:  # onnxruntime raises several types that share no other base
        raise ModelUnavailable(f"{origin} cannot predict: export the model again") from error
    if not np.isfinite(prices).all():
        raise ModelUnavailable(f"{origin} predicts no finite price: export the model again")
