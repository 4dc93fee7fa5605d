"""Which target the settings choose."""

from housing_assets.deployment.fleet import FleetTarget
from housing_assets.deployment.target import DeploymentTarget
from housing_assets.settings import Settings
from housing_assets.storage import ObjectStore


def open_target(settings: Settings, store: ObjectStore) -> DeploymentTarget:
    """The target of a deployment."""
    return FleetTarget(store, settings.fleet_urls, settings.api_key)
