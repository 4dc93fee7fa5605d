"""What a version must show before any request reaches it: its bundle, whole and as it was registered."""

from housing_assets.deployment.target import DeploymentError
from housing_assets.registration import bundle_prefix, load_bundle
from housing_assets.registry import COMPLETE, STATE_TAG, ModelRegistry
from housing_assets.storage import ObjectStore, StorageError
from housing_serving.bundle import MANIFEST_FILE, Bundle, BundleError, sha256_hex

# As the promotion gate tags a version.
DECISION_TAG = "promotion"
REASON_TAG = "promotion_reason"
CHAMPION_TAG = "promotion_champion"
PROMOTE = "promote"


class Refused(DeploymentError):
    """The version must not serve; the message says why."""


def version_tags(registry: ModelRegistry, version: int) -> dict[str, str]:
    """The tags of a completely registered version.

    Raises:
        Refused: there is no such version.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  (seconds to import)

    try:
        tags = dict(registry.client.get_model_version(registry.name, str(version)).tags)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise Refused(f"{registry.name} has no version {version}") from error
        raise DeploymentError(f"the model registry cannot be asked: {error.message}") from error
    if tags.get(STATE_TAG) != COMPLETE:
        raise Refused(f"version {version} of {registry.name} was never completely registered")
    return tags


def judged_against(tags: dict[str, str], version: int) -> int | None:
    """The version that this one has beaten; None when it was the first.

    Raises:
        Refused: it has beaten nobody.
    """
    if tags.get(DECISION_TAG) != PROMOTE:
        reason = tags.get(REASON_TAG, "no promotion gate has judged it")
        raise Refused(f"version {version} is not to be promoted: {reason}")
    champion = tags.get(CHAMPION_TAG, "none")
    return int(champion) if champion.isdecimal() else None


def verified_bundle(store: ObjectStore, model_name: str, version: int, sha256: str | None) -> Bundle:
    """A version's bundle, every file checked; `sha256` is what its registration says of `bundle.json`.

    Raises:
        Refused: it is missing, damaged, or another one than was registered.
    """
    name = f"{bundle_prefix(model_name, version)}/{MANIFEST_FILE}"
    try:
        bundle = load_bundle(store, model_name, version)
        found = sha256_hex(store.read(name))
    except (BundleError, StorageError) as error:
        raise Refused(f"the bundle of version {version} cannot be used: {error}") from error
    if sha256 not in {None, found}:
        raise Refused(f"{store.uri(name)} is not the one that was registered: its sha256 differs")
    stated = (bundle.manifest.model_name, bundle.manifest.model_version)
    if stated != (model_name, version):
        raise Refused(f"{store.uri(name)} says that it is {stated[0]} version {stated[1]}")
    return bundle
