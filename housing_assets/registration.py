"""Registration of a candidate: MLflow version, bundle, decision on its promotion, alias.

In an order that leaves nothing half-done.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd
from sklearn.pipeline import Pipeline

from housing_assets.formats import TRUSTED_TYPES
from housing_assets.ml.export import PARITY_TOLERANCE, bundle_files, check_parity
from housing_assets.ml.intervals import Interval
from housing_assets.ml.promotion import Champion, Decision, PromotionRules, UnreadableChampion, decide
from housing_assets.ml.segments import segment_tables
from housing_assets.ml.training import Evaluation
from housing_assets.model_card import ModelCard
from housing_assets.registry import ModelRegistry
from housing_assets.storage import (
    ChecksumMismatch,
    ObjectMissing,
    ObjectStore,
    StorageReadFailed,
    StoredObject,
)
from housing_serving.bundle import MANIFEST_FILE, Bundle, BundleError
from housing_serving.features import CATEGORICAL_FEATURE, RAW_FEATURES

EXAMPLE_ROWS = 5
# Beside the bundle, which does not list them: readers take no notice.
REPORT_JSON = "promotion.json"
REPORT_MARKDOWN = "promotion.md"


@dataclass(frozen=True)
class Candidate:
    """A fitted and scored model that is to become a version."""

    pipeline: Pipeline
    train: pd.DataFrame
    test: pd.DataFrame
    interval: Interval
    evaluation: Evaluation
    card: ModelCard


@dataclass(frozen=True)
class Registered:
    """A registered version.

    Attributes:
        version: its number.
        bundle: its stored manifest.
        parity: largest difference in dollars between bundle and pipeline.
        decision: whether it may replace the version in production.
        report_uri: where the decision is stored.
    """

    version: int
    bundle: StoredObject
    parity: float
    decision: Decision
    report_uri: str


class ParityError(RuntimeError):
    """The bundle does not answer what the fitted pipeline answers; nothing was registered."""


class VersionTaken(RuntimeError):
    """The storage root holds bundles that the registry does not know; nothing was registered or changed."""


def register(
    candidate: Candidate,
    mlflow_run_id: str,
    registry: ModelRegistry,
    store: ObjectStore,
    is_active: Callable[[str], bool],
    rules: PromotionRules,
) -> Registered:
    """Log the pipeline, create the version, judge and store it, and only then let `staging` point to it.

    Raises:
        ParityError: the bundle and the pipeline disagree.
        VersionTaken: the registry was reset, the storage root was not.
    """
    discard_abandoned(registry, store, is_active)
    example = candidate.train[list(RAW_FEATURES)].head(EXAMPLE_ROWS)
    model_id = registry.log_model(mlflow_run_id, candidate.pipeline, example, list(TRUSTED_TYPES))
    version = registry.create_version(mlflow_run_id, model_id, candidate.card.dagster_run_id)
    try:
        refuse_taken_versions(registry, store, version)
        registry.claim_bundle(version)
        files = build_bundle(candidate, registry.name, version)
        bundle = Bundle.from_files(files, origin="the new bundle")
        parity = refuse_disparity(bundle, candidate)
        decision = decide(bundle, load_champion(registry, store), candidate.test, parity, rules)
        stored = store_bundle({**decision_files(decision), **files}, store, registry.name, version)
        report_uri = store.uri(f"{bundle_prefix(registry.name, version)}/{REPORT_JSON}")
        registered = Registered(version, stored, parity, decision, report_uri)
        complete(registered, candidate.card, registry)
    except VersionTaken:
        registry.discard(version)
        raise
    except BaseException as error:
        discard_after(error, registry, store, version)
        raise
    return registered


def load_champion(registry: ModelRegistry, store: ObjectStore) -> Champion:
    """What is in production; storage that does not answer is an error, since it may answer a retry."""
    version = registry.production()
    if version is None:
        return None
    try:
        bundle = load_bundle(store, registry.name, version)
    except (BundleError, ObjectMissing, ChecksumMismatch, StorageReadFailed) as error:
        return UnreadableChampion(version, str(error))
    if (found := bundle.manifest.model_version) != version:
        place = store.uri(bundle_prefix(registry.name, version))
        return UnreadableChampion(version, f"{place} holds the bundle of version {found}")
    return bundle


def decision_files(decision: Decision) -> dict[str, bytes]:
    """The decision's report, for programs and for people."""
    return {
        REPORT_JSON: decision.to_json().encode(),
        REPORT_MARKDOWN: decision.to_markdown().encode(),
    }


def complete(registered: Registered, card: ModelCard, registry: ModelRegistry) -> None:
    """Describe and tag the version, with the decision, and let `staging` point to it."""
    decision, bundle = registered.decision, registered.bundle
    tags = {
        **card.tags(),
        **decision.tags(),
        "promotion_report_uri": registered.report_uri,
        "bundle_uri": bundle.uri,
        "bundle_sha256": bundle.sha256,
    }
    registry.complete(registered.version, card.page(bundle.uri, decision, registered.report_uri), tags)


def refuse_taken_versions(registry: ModelRegistry, store: ObjectStore, version: int) -> None:
    """Make sure that neither this version's folder nor a higher bundle is there already.

    Readers serve the highest bundle, so one from before a reset would hide the new version.

    Raises:
        VersionTaken: the message names what is there and what to do.
    """
    prefix = bundle_prefix(registry.name, version)
    taken = stored_bundles(store, registry.name) - registry.numbers()
    newest = max(taken, default=0)
    if newest > version or store.list(f"{prefix}/"):
        newest = max(newest, version)
        raise VersionTaken(
            f"{store.uri(bundle_prefix(registry.name, newest))} exists already, but the registry only now "
            f"created version {version} of {registry.name}: it seems to have been reset while the storage "
            f"root {store.root} was kept. Use another MLFLOW_MODEL_NAME, or move "
            f"{store.uri(f'models/{registry.name}')} away; nothing was overwritten"
        )


def stored_bundles(store: ObjectStore, model_name: str) -> set[int]:
    """Numbers of the versions whose bundle is complete in the storage root."""
    parts = [name.split("/") for name in store.list(f"models/{model_name}/")]
    return {int(part[2]) for part in parts if part[3:] == [MANIFEST_FILE] and part[2].isdecimal()}


def build_bundle(candidate: Candidate, model_name: str, version: int) -> dict[str, bytes]:
    """The bundle's files, by name."""
    card = candidate.card
    return bundle_files(
        candidate.pipeline,
        candidate.train,
        model_name=model_name,
        model_version=version,
        algorithm=card.best.model_type,
        snapshot=card.snapshot,
        data_hash=card.train_hash,
        git_commit=card.commit,
        created_at=datetime.now(UTC),
        metrics={**card.test_metrics, "interval_coverage": card.coverage},
        interval=candidate.interval,
        segments=segment_tables(candidate.evaluation.predictions)[CATEGORICAL_FEATURE],
    )


def refuse_disparity(bundle: Bundle, candidate: Candidate) -> float:
    """The largest difference in dollars between bundle and pipeline over training and test rows.

    Raises:
        ParityError: it is above the tolerance; the message names the worst row.
    """
    rows = pd.concat([candidate.train, candidate.test], ignore_index=True)
    parity = check_parity(bundle, candidate.pipeline, rows)
    if parity.max_abs_difference > PARITY_TOLERANCE:
        raise ParityError(
            f"the bundle differs from the fitted pipeline by ${parity.max_abs_difference:.6f}, more than "
            f"${PARITY_TOLERANCE}: {parity.worst.iloc[0].to_dict()}"
        )
    return parity.max_abs_difference


def store_bundle(files: dict[str, bytes], store: ObjectStore, model_name: str, version: int) -> StoredObject:
    """Store the bundle's files, the manifest last: without it, readers see no bundle."""
    prefix = bundle_prefix(model_name, version)
    for name, data in files.items():
        if name != MANIFEST_FILE:
            store.write(f"{prefix}/{name}", data, if_absent=True)
    return store.write(f"{prefix}/{MANIFEST_FILE}", files[MANIFEST_FILE], if_absent=True)


def discard_abandoned(registry: ModelRegistry, store: ObjectStore, is_active: Callable[[str], bool]) -> None:
    """Undo what runs that have ended left half-done."""
    for abandoned in registry.abandoned(is_active):
        if abandoned.claimed_bundle:
            discard(registry, store, abandoned.version)
        else:
            # The folder of its number, if there is one, is not its own.
            registry.discard(abandoned.version)


def discard_after(error: BaseException, registry: ModelRegistry, store: ObjectStore, version: int) -> None:
    """Undo a registration that failed; when that fails as well, the first error is the one to tell."""
    try:
        discard(registry, store, version)
    except Exception as second:
        error.add_note(f"version {version} is left incomplete ({second}); the next registration deletes it")


def discard(registry: ModelRegistry, store: ObjectStore, version: int) -> None:
    """Undo an incomplete registration: the manifest first, so that no reader sees a torso."""
    prefix = bundle_prefix(registry.name, version)
    for name in sorted(store.list(f"{prefix}/"), key=lambda name: not name.endswith(f"/{MANIFEST_FILE}")):
        store.delete(name)
    registry.discard(version)


def load_bundle(store: ObjectStore, model_name: str, version: int) -> Bundle:
    """A stored version's bundle, every checksum verified."""
    prefix = bundle_prefix(model_name, version)
    files = {name.removeprefix(f"{prefix}/"): store.read(name) for name in store.list(f"{prefix}/")}
    return Bundle.from_files(files, origin=store.uri(prefix))


def bundle_prefix(model_name: str, version: int) -> str:
    """Where a version's bundle lives under the storage root."""
    return f"models/{model_name}/{version}"
