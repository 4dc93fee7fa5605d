"""The MLflow model registry: immutable versions, aliases, and no half-registered model.

A version is created first (its number goes into the bundle), and becomes visible last: tags, description and
the `staging` alias follow only when its bundle is stored. One that never got that far is deleted, at once
after an error, or by the next registration after a crash.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd
from sklearn.pipeline import Pipeline

from housing_assets.mlflow_runs import mlflow_client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

STAGING = "staging"
PRODUCTION = "production"
STATE_TAG = "registration_state"
INCOMPLETE = "incomplete"
COMPLETE = "complete"
RUN_TAG = "dagster_run_id"
BUNDLE_TAG = "bundle_claimed"


@dataclass(frozen=True)
class Abandoned:
    """A version whose registration ended half-way; its bundle folder is its own only once claimed."""

    version: int
    claimed_bundle: bool


class ModelRegistry:
    """Versions of one registered model."""

    def __init__(self, client: "MlflowClient", tracking_uri: str, model_name: str) -> None:
        self.client = client
        self.name = model_name
        self._uri = tracking_uri

    def url(self, version: int) -> str | None:
        """The version's page, where a server shows one."""
        if not self._uri.startswith("http"):
            return None
        return f"{self._uri.rstrip('/')}/#/models/{self.name}/versions/{version}"

    def log_model(self, run_id: str, pipeline: Pipeline, example: pd.DataFrame, trusted: list[str]) -> str:
        """Log the fitted pipeline to a run with signature and example, without pickle; returns its id."""
        import mlflow  # noqa: PLC0415  (seconds to import)

        mlflow.set_tracking_uri(self._uri)
        signature = mlflow.models.infer_signature(example, pipeline.predict(example))
        with mlflow.start_run(run_id=run_id):
            logged = mlflow.sklearn.log_model(
                pipeline,
                name="model",
                serialization_format="skops",
                skops_trusted_types=trusted,
                signature=signature,
                input_example=example,
                pip_requirements=pinned_requirements(),
            )
        self.client.update_run(run_id, status="RUNNING")
        return str(logged.model_id)

    def load_model(self, version: int) -> Pipeline:
        """The fitted pipeline of a version, as logged for analysis."""
        import mlflow  # noqa: PLC0415

        mlflow.set_tracking_uri(self._uri)
        mlflow.set_registry_uri(self._uri)
        return mlflow.sklearn.load_model(f"models:/{self.name}/{version}")

    def create_version(self, run_id: str, model_id: str, dagster_run_id: str) -> int:
        """A new version, marked incomplete until `complete`."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        try:
            self.client.create_registered_model(self.name, description="House price per census block group.")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        tags = {STATE_TAG: INCOMPLETE, RUN_TAG: dagster_run_id}
        created = self.client.create_model_version(
            self.name, source=f"models:/{model_id}", run_id=run_id, tags=tags, model_id=model_id
        )
        return int(created.version)

    def claim_bundle(self, version: int) -> None:
        """Note that the version's folder in the storage root was free: what lies there later is its own."""
        self.client.set_model_version_tag(self.name, str(version), BUNDLE_TAG, "true")

    def complete(self, version: int, description: str, tags: Mapping[str, str]) -> None:
        """Describe and tag a version, then let `staging` point to it."""
        self.client.update_model_version(self.name, str(version), description=description)
        for key, value in {**tags, STATE_TAG: COMPLETE}.items():
            self.client.set_model_version_tag(self.name, str(version), key, value)
        self.client.set_registered_model_alias(self.name, STAGING, str(version))

    def discard(self, version: int) -> None:
        """Delete a version whose registration failed."""
        self.client.delete_model_version(self.name, str(version))

    def production(self) -> int | None:
        """The version that `production` points to, if any."""
        # Asked of the model: for an alias that is not set, servers differ in the error they answer.
        aliases = self.client.get_registered_model(self.name).aliases
        return int(aliases[PRODUCTION]) if PRODUCTION in aliases else None

    def numbers(self) -> set[int]:
        """Numbers of all versions, complete or not."""
        return {int(found.version) for found in self._versions()}

    def abandoned(self, is_active: Callable[[str], bool]) -> list[Abandoned]:
        """Incomplete versions of runs that have ended."""
        return [
            Abandoned(int(found.version), BUNDLE_TAG in found.tags)
            for found in self._versions()
            if found.tags.get(STATE_TAG) == INCOMPLETE and not is_active(found.tags.get(RUN_TAG, ""))
        ]

    def newest_of_snapshot(self, snapshot: str) -> "ModelVersion":
        """The newest complete version that was trained on a snapshot."""
        found = [
            version
            for version in self._versions()
            if version.tags.get("snapshot") == snapshot and version.tags.get(STATE_TAG) == COMPLETE
        ]
        if not found:
            raise LookupError(f"no version of {self.name} was registered for snapshot {snapshot}")
        return max(found, key=lambda version: int(version.version))

    def _versions(self) -> list["ModelVersion"]:
        return list(self.client.search_model_versions(f"name = '{self.name}'", max_results=10_000))


class RegistryResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where model versions are registered."""

    tracking_uri: str
    model_name: str

    def registry(self) -> ModelRegistry:
        """The registry of the configured model."""
        return ModelRegistry(mlflow_client(self.tracking_uri), self.tracking_uri, self.model_name)


def version_link(models: ModelRegistry, version: int | None) -> dict[str, dg.MetadataValue]:
    """Metadata that leads to a version's page in MLflow; none where no server shows it."""
    url = None if version is None else models.url(version)
    return {} if url is None else {"mlflow_model": dg.MetadataValue.url(url)}


def pinned_requirements() -> list[str]:
    """What loading the logged pipeline needs, at the versions that trained it."""
    from importlib.metadata import version  # noqa: PLC0415

    packages = ("lightgbm", "scikit-learn", "numpy", "pandas", "skops")
    return [f"{name}=={version(name)}" for name in packages]
