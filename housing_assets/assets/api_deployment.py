"""`api_deployment`: the service as it runs now, after a version was tried out and promoted, or was not."""

import dagster as dg
import pandas as pd
from pydantic import Field

from housing_assets.deployment.aliases import align_aliases
from housing_assets.deployment.preflight import (
    DECISION_TAG,
    PROMOTE,
    REASON_TAG,
    judged_against,
    verified_bundle,
    version_tags,
)
from housing_assets.deployment.resource import DeploymentResource
from housing_assets.deployment.rollout import Rollout, serving_text
from housing_assets.deployment.smoke import smoke
from housing_assets.deployment.target import DeploymentError, TargetStatus
from housing_assets.metadata import markdown_table
from housing_assets.registry import STAGING, ModelRegistry, RegistryResource, version_link
from housing_assets.resources import StorageResource
from housing_assets.snapshot_asset import CODE_VERSION, OWNERS, TRANSIENT_RETRIES
from housing_assets.storage import ObjectStore
from housing_serving.releases import Change


class ApiDeploymentConfig(dg.Config):
    """Which version to deploy."""

    model_version: int | None = Field(
        default=None, description="Version of the registered model; the one behind `staging` when left out."
    )


@dg.asset(
    deps=["registered_model"],
    group_name="serving",
    kinds={"fastapi"},
    owners=OWNERS,
    code_version=CODE_VERSION,
    retry_policy=TRANSIENT_RETRIES,
)
def api_deployment(
    context: dg.AssetExecutionContext,
    config: ApiDeploymentConfig,
    deployment: DeploymentResource,
    registry: RegistryResource,
    storage: StorageResource,
) -> dg.MaterializeResult[None]:
    """The prediction service as it runs now: which version answers, where, and how it came to that.

    One materialization is one deployment; its history says who changed what is served, and why.
    A version that has won the promotion gate is checked, tried out on some of the requests next to the one
    that serves, and then promoted or taken back. One that is taken back fails this step, with the reason.
    """
    models, target = registry.registry(), deployment.target()
    try:
        version = config.model_version or newest_winner(context, models)
        if version is None:
            status = target.status()
        else:
            rollout = prepared(context, models, storage.store(), deployment, version)
            status = rollout.run()
        for changed in align_aliases(models, status.stable, status.previous):
            context.log.info(changed)
    except DeploymentError as error:
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error
    metadata = deployment_metadata(target.name, status, target.history())
    return dg.MaterializeResult(metadata={**metadata, **version_link(models, status.stable)})


def prepared(
    context: dg.AssetExecutionContext,
    models: ModelRegistry,
    store: ObjectStore,
    deployment: DeploymentResource,
    version: int,
) -> Rollout:
    """The rollout of a version that has won, and whose bundle is whole.

    Raises:
        DeploymentError: it has not, or is not.
    """
    tags = version_tags(models, version)
    champion = judged_against(tags, version)
    verified_bundle(store, models.name, version, tags.get("bundle_sha256"))
    owner = context.run.root_run_id or context.run.run_id
    by = f"Dagster run {context.run.run_id}"
    return Rollout(deployment.target(), version, champion, owner, by, deployment.rules, context.log.info)


def newest_winner(context: dg.AssetExecutionContext, models: ModelRegistry) -> int | None:
    """The version behind `staging`; None when it has lost, which is no reason for a run to fail.

    Raises:
        DeploymentError: none was registered yet.
    """
    version = newest_candidate(models)
    tags = version_tags(models, version)
    if tags.get(DECISION_TAG) == PROMOTE:
        return version
    context.log.info("version %d stays in staging: %s", version, tags.get(REASON_TAG))
    return None


def newest_candidate(models: ModelRegistry) -> int:
    """The version behind `staging`.

    Raises:
        DeploymentError: none was registered yet.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  (seconds to import)

    try:
        return int(models.client.get_model_version_by_alias(models.name, STAGING).version)
    except MlflowException as error:
        raise DeploymentError(
            f"no version of {models.name} is in {STAGING}: materialize registered_model"
        ) from error


def deployment_metadata(
    target: str, status: TargetStatus, history: tuple[Change, ...]
) -> dict[str, dg.MetadataValue | str | float | int]:
    """What the asset's page shows."""
    metadata: dict[str, dg.MetadataValue | str | float | int] = {
        "target": target,
        "model_version": status.stable or 0,
        "previous_version": status.previous or "none",
        "serving": serving_text(status),
        "history": markdown_table(history_frame(history)),
    }
    if status.url:
        metadata["url"] = dg.MetadataValue.url(f"{status.url}/docs")
    if status.problems:
        metadata["problems"] = dg.MetadataValue.md("\n".join(f"- {problem}" for problem in status.problems))
    return metadata


def history_frame(history: tuple[Change, ...]) -> pd.DataFrame:
    """The release's history as a table, the latest first."""
    rows = [
        {
            "at": f"{entry.at:%Y-%m-%d %H:%M:%S} UTC",
            "what": entry.action,
            "version": entry.version,
            "by": entry.by,
            "why": entry.reason,
        }
        for entry in reversed(history)
    ]
    return pd.DataFrame(rows, columns=["at", "what", "version", "by", "why"])


@dg.asset_check(
    asset=api_deployment,
    blocking=True,
    description="The service answers an example with the released version and its bundle's price.",
)
def service_answers_as_its_bundle(
    deployment: DeploymentResource, registry: RegistryResource, storage: StorageResource
) -> dg.AssetCheckResult:
    """Ask every configured address for one price; where nobody answers, that is a warning."""
    target = deployment.target()
    if target.name != "fleet":
        done = f"{target.name} has tried the revision before it got any request"
        return dg.AssetCheckResult(passed=True, description=done)
    status = target.status()
    if status.stable is None:
        return dg.AssetCheckResult(passed=False, description="nothing was released yet")
    bundle = verified_bundle(storage.store(), registry.registry().name, status.stable, None)
    urls = [status.url] if status.url else []
    results = [smoke(url, bundle, deployment.api_key) for url in urls]
    wrong = [result for result in results if not result.passed]
    unreachable = all(not result.reached for result in wrong)
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=dg.AssetCheckSeverity.WARN if unreachable else dg.AssetCheckSeverity.ERROR,
        description="; ".join(result.text for result in wrong or results) or "no address is configured",
    )
