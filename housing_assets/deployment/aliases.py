"""The registry's aliases `production` and `previous`, kept in step with what a target is to serve."""

from housing_assets.registry import ModelRegistry

PRODUCTION = "production"
PREVIOUS = "previous"
RETIRED = "retired"
# Says in a version's own tags which alias it has or had, for searches.
ALIAS_TAG = "deployment_alias"


def align_aliases(registry: ModelRegistry, stable: int | None, previous: int | None) -> list[str]:
    """Let the aliases say what the target says; returns what had to be changed, for people."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  (seconds to import)

    try:
        found_aliases = registry.client.get_registered_model(registry.name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return []
    # A server gives texts, a database numbers.
    present = {alias: str(version) for alias, version in found_aliases.items()}
    changed = []
    # Nobody must find the same version under both: the one that matters less goes first.
    for alias, version in ((PREVIOUS, previous), (PRODUCTION, stable)):
        found = present.get(alias)
        if version is None and found is not None and alias == PREVIOUS:
            registry.client.delete_registered_model_alias(registry.name, alias)
            _tag(registry, found, RETIRED)
            changed.append(f"{alias} is no version any more")
        elif version is not None and found != str(version):
            registry.client.set_registered_model_alias(registry.name, alias, str(version))
            changed.append(f"{alias} is version {version}")
            if found is not None:
                _tag(registry, found, RETIRED)
    if changed:
        for alias, version in ((PREVIOUS, previous), (PRODUCTION, stable)):
            if version is not None:
                _tag(registry, str(version), alias)
    return changed


def _tag(registry: ModelRegistry, version: str, alias: str) -> None:
    registry.client.set_model_version_tag(registry.name, version, ALIAS_TAG, alias)
