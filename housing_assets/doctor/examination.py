"""All checks, in the order in which what they find should be mended."""

from collections.abc import Callable, Iterator

from pydantic import ValidationError

from housing_assets.doctor import machine, packages, references
from housing_assets.doctor.findings import Finding, ok, refused_settings
from housing_assets.settings import Settings
from housing_serving.default_model import refused_serving_settings, serving_setting_names

# What needs valid settings: one line of the report each.
CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    machine.check_home,
    machine.check_disk,
    machine.check_ports,
    machine.check_processes,
    references.check_storage,
    references.check_source,
    references.check_tracking,
    references.check_wandb,
    references.check_model,
    references.check_dagster,
    references.check_alerts,
)


def examine() -> Iterator[Finding]:
    """Everything there is to find; what depends on settings is looked at once these are valid."""
    yield from packages.check_python()
    yield from packages.check_packages()
    yield from packages.check_names(serving_setting_names())
    settings = None
    try:
        settings = Settings.load()
    except ValidationError as refused:
        yield from refused_settings("settings", refused)
    serving = refused_serving_settings()
    if serving is not None:
        yield from refused_settings("settings", serving)
    if settings is None or serving is not None:
        return
    yield ok("settings", f"valid; HOUSING_DEPLOYMENT is {settings.deployment}")
    for check in CHECKS:
        yield from check(settings)
