"""The resource by which assets, jobs and sensors reach the deployment target."""

from typing import Any

import dagster as dg
from pydantic import Field

from housing_assets.deployment.canary import CanaryRules
from housing_assets.deployment.target import DeploymentTarget
from housing_assets.deployment.targets import open_target
from housing_assets.resources import StorageResource
from housing_assets.settings import first_key


class DeploymentResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the registered model is served."""

    storage: dg.ResourceDependency[StorageResource]
    api_urls: list[str] = Field(description="Addresses of the API processes, to read their metrics.")
    api_keys: str | None = Field(default=None, description="Keys the API accepts, separated by commas.")
    cloud_run: dict[str, Any] = Field(
        default={}, description="Values of CloudRunSettings; empty where a fleet serves the model."
    )
    canary_percent: float = CanaryRules.percent
    canary_seconds: float = CanaryRules.window_seconds
    canary_min_requests: int = CanaryRules.min_requests
    canary_promote_when_quiet: bool = CanaryRules.promote_when_quiet

    def target(self) -> DeploymentTarget:
        """The configured target."""
        return open_target(self.storage.store(), self.api_urls, self.api_key, self.cloud_run)

    @property
    def api_key(self) -> str | None:
        """One of the keys, to ask the API with."""
        return first_key(self.api_keys)

    @property
    def rules(self) -> CanaryRules:
        """What a canary must show."""
        return CanaryRules(
            percent=self.canary_percent,
            window_seconds=self.canary_seconds,
            min_requests=self.canary_min_requests,
            promote_when_quiet=self.canary_promote_when_quiet,
        )
