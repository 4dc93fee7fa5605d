"""Jobs: named selections of the graph, and what people do with a release."""

from enum import Enum

import dagster as dg
from pydantic import Field

from housing_assets.deployment import release
from housing_assets.deployment.aliases import align_aliases
from housing_assets.deployment.preflight import judged_against, verified_bundle, version_tags
from housing_assets.deployment.resource import DeploymentResource
from housing_assets.deployment.target import DeploymentError
from housing_assets.registry import RegistryResource
from housing_assets.resources import StorageResource

training_job = dg.define_asset_job(
    "training_job",
    selection=dg.AssetSelection.groups("data", "preprocessing", "training"),
    description="From the source rows of one weekly snapshot to a registered model version in `staging`.",
    tags={"housing/kind": "training"},
)

data_job = dg.define_asset_job(
    "data_job",
    selection=dg.AssetSelection.groups("data"),
    description="The data assets of one weekly snapshot alone, such as of one that was published late.",
    tags={"housing/kind": "data"},
)

deployment_job = dg.define_asset_job(
    "deployment_job",
    selection=dg.AssetSelection.assets("api_deployment"),
    description="Tries a version out next to the one that serves, then promotes it or takes it back.",
    tags={"housing/kind": "deployment"},
)

monitoring_job = dg.define_asset_job(
    "monitoring_job",
    selection=dg.AssetSelection.groups("monitoring"),
    description="What was served on one UTC day: its table, its drift, and how right it was.",
    tags={"housing/kind": "monitoring"},
)


class ReleaseAction(Enum):
    """What a person does with a release."""

    ROLLBACK = "rollback"
    PROMOTE = "promote"


class ReleaseConfig(dg.Config):
    """What to do, and why."""

    action: ReleaseAction = Field(
        default=ReleaseAction.ROLLBACK,
        description="rollback: end a trial, or let the version before serve again. promote: let a version "
        "serve at once, without a trial.",
    )
    model_version: int | None = Field(default=None, description="The version to promote.")
    reason: str = Field(description="Why; it is kept in the release's history.")
    force: bool = Field(default=False, description="Promote a version that the gate did not let pass.")


@dg.op(description="Promotes a version at once, or goes back to the one before.")
def change_release(
    context: dg.OpExecutionContext,
    config: ReleaseConfig,
    deployment: DeploymentResource,
    registry: RegistryResource,
    storage: StorageResource,
) -> None:
    """What `housing release promote` and `housing release rollback` do."""
    target, models = deployment.target(), registry.registry()
    by = f"Dagster run {context.run_id}"
    try:
        if config.action is ReleaseAction.ROLLBACK:
            done = release.roll_back(target, by, config.reason)
        elif config.model_version is None:
            raise DeploymentError("model_version is not set: say which version to promote")
        else:
            tags = version_tags(models, config.model_version)
            if not config.force:
                judged_against(tags, config.model_version)
            sha256 = tags.get("bundle_sha256")
            verified_bundle(storage.store(), models.name, config.model_version, sha256)
            done = release.promote(target, config.model_version, by, config.reason)
        status = target.status()
        changed = align_aliases(models, status.stable, status.previous)
    except DeploymentError as error:
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error
    for line in (done, *changed):
        context.log.info(line)


@dg.job(
    description="Rolls the release back, or promotes a version at once, as `housing release` does.",
    tags={"housing/kind": "release"},
)
def release_job() -> None:
    """One step: `change_release`."""
    change_release()
