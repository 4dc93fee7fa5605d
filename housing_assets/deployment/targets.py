"""Which target the values choose."""

from collections.abc import Mapping, Sequence
from typing import Any

from housing_assets.deployment.fleet import FleetTarget
from housing_assets.deployment.target import DeploymentTarget, TargetStatus
from housing_assets.storage import ObjectStore


def open_target(
    store: ObjectStore, api_urls: Sequence[str], api_key: str | None, cloud_run: Mapping[str, Any]
) -> DeploymentTarget:
    """Cloud Run where there are values for it, else the fleet that follows the release record."""
    if not cloud_run:
        return FleetTarget(store, api_urls, api_key)
    from housing_assets.deployment.cloud_run import CloudRunTarget  # noqa: PLC0415  (Google's clients)
    from housing_assets.deployment.cloud_run_settings import CloudRunSettings  # noqa: PLC0415

    return CloudRunTarget(CloudRunSettings.model_validate(dict(cloud_run)))


def service_addresses(
    status: TargetStatus, api_urls: Sequence[str], api_key: str | None, cloud_run: Mapping[str, Any]
) -> list[tuple[str, str | None]]:
    """Where a target's service answers, each with the token that it asks for."""
    if not cloud_run:
        return [(url, api_key) for url in api_urls]
    from housing_assets.deployment.cloud_run_settings import CloudRunSettings  # noqa: PLC0415
    from housing_assets.deployment.cloud_run_smoke import id_token  # noqa: PLC0415

    url = status.url or ""
    anonymous = CloudRunSettings.model_validate(dict(cloud_run)).anonymous
    return [(url, None if anonymous else id_token(url))]
