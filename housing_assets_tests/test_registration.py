"""Registration with a real MLflow store and a real storage root: all of a version, or nothing of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeRegressor

from housing_assets import registration
from housing_assets.assets.registered_model import PromotionConfig, promotion_metadata, promotion_report
from housing_assets.formats import TRUSTED_TYPES
from housing_assets.ml.cleaning import ID_COLUMN, content_hash
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.intervals import Interval
from housing_assets.ml.preprocessing import fit_preprocessing
from housing_assets.ml.promotion import Decision, PromotionRules, UnreadableChampion
from housing_assets.ml.split import split
from housing_assets.ml.sweep import BestParams
from housing_assets.ml.training import evaluate, fit_model, predict
from housing_assets.mlflow_runs import MlflowRuns
from housing_assets.model_card import MAX_DESCRIPTION, ModelCard
from housing_assets.registration import (
    Candidate,
    ParityError,
    Registered,
    VersionTaken,
    load_bundle,
    load_champion,
    register,
)
from housing_assets.registry import INCOMPLETE, PRODUCTION, RUN_TAG, STAGING, STATE_TAG, ModelRegistry
from housing_assets.storage import LocalStore, StorageUnavailable, StorageWriteFailed, StoredObject
from housing_assets_tests.ml.block_groups import PLAIN, block_groups
from housing_serving.bundle import MANIFEST_FILE, Bundle

ROWS = 500
INTERVAL = Interval(0.9, -90_000.0, 120_000.0)
RUN_ID = "dagster-run-of-the-test"
SNAPSHOT = "2026-11-22"
BUNDLE_FILES = [
    "bundle.json",
    "explanation.npz",
    "imputer.onnx",
    "model.onnx",
    "promotion.json",
    "promotion.md",
]
RULES = PromotionRules()

model_names = (f"housing_price_model_{number}" for number in count(1))


class FullDisk(LocalStore):
    """A folder that takes every file of a bundle except for its manifest."""

    def write(
        self, name: str, data: bytes, *, if_absent: bool = False, if_generation: int | None = None
    ) -> StoredObject:
        if name.endswith(f"/{MANIFEST_FILE}"):
            raise StorageWriteFailed(f"cannot write {self.uri(name)}: No space left on device")
        return super().write(name, data, if_absent=if_absent, if_generation=if_generation)


class RecordingDisk(LocalStore):
    """A folder that notes what is written to it, in order."""

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self.written: list[str] = []

    def write(
        self, name: str, data: bytes, *, if_absent: bool = False, if_generation: int | None = None
    ) -> StoredObject:
        self.written.append(name.rsplit("/", 1)[-1])
        return super().write(name, data, if_absent=if_absent, if_generation=if_generation)


class SilentDisk(LocalStore):
    """A folder that does not answer when it is read."""

    def read(self, name: str, *, expected_sha256: str | None = None) -> bytes:
        raise StorageUnavailable(f"{self.uri(name)} did not answer within 60 s, {expected_sha256=}")


class LostDisk(FullDisk):
    """A folder that cannot be cleaned up either."""

    def delete(self, name: str) -> None:
        raise StorageUnavailable(f"{self.uri(name)} was locked by another writer for 60 s")


class GenerousTree(DecisionTreeRegressor):  # type: ignore[misc]
    """A tree that adds a thousand dollars to the price, which its export knows nothing of."""

    def predict(self, X: NDArray[np.float64], check_input: bool = True) -> NDArray[np.float64]:
        prices: NDArray[np.float64] = super().predict(X, check_input) + 1_000.0
        return prices


@dataclass(frozen=True)
class Place:
    """Where a test registers: a model of its own in the module's MLflow, and a folder of its own."""

    registry: ModelRegistry
    store: LocalStore
    new_run: Callable[[], str]

    def register(
        self,
        candidate: Candidate,
        store: LocalStore | None = None,
        is_active: Callable[[str], bool] = lambda _: False,
    ) -> Registered:
        return register(candidate, self.new_run(), self.registry, store or self.store, is_active, RULES)

    def promote(self, version: int) -> None:
        """What a deployment does at its end."""
        self.registry.client.set_registered_model_alias(self.registry.name, PRODUCTION, str(version))

    def created(self, dagster_run_id: str) -> int:
        """A version as a run leaves it that dies before it stores anything."""
        run_id = self.new_run()
        pipeline, example = candidate().pipeline, block_groups(5)
        model_id = self.registry.log_model(run_id, pipeline, example, list(TRUSTED_TYPES))
        return self.registry.create_version(run_id, model_id, dagster_run_id)

    def versions(self) -> dict[int, str]:
        """State of every version."""
        found = self.registry.client.search_model_versions(f"name = '{self.registry.name}'")
        return {int(version.version): version.tags[STATE_TAG] for version in found}

    def staging(self) -> int:
        version = self.registry.client.get_model_version_by_alias(self.registry.name, STAGING)
        return int(version.version)

    def bundle(self, version: int) -> list[str]:
        """File names of a version's bundle."""
        prefix = f"models/{self.registry.name}/{version}/"
        return [name.removeprefix(prefix) for name in self.store.list(prefix)]


def candidate() -> Candidate:
    """A quick one, which is far below the floors."""
    return fitted(ROWS, "DecisionTree", {"max_depth": 5}, SNAPSHOT)


def good_candidate(trees: int = 30, snapshot: str = SNAPSHOT) -> Candidate:
    """One that clears the floors: with 30 trees by far better than with 8."""
    hyperparameters = {"n_estimators": trees, "max_depth": 8 if trees < 30 else None}
    return fitted(6_000, "RandomForest", hyperparameters, snapshot)


def fitted(rows: int, family: str, hyperparameters: dict[str, Any], snapshot: str) -> Candidate:
    return _fitted(rows, family, tuple(hyperparameters.items()), snapshot)


@cache
def _fitted(rows: int, family: str, items: tuple[tuple[str, Any], ...], snapshot: str) -> Candidate:
    hyperparameters = dict(items)
    train, test = split(block_groups(rows))
    preprocessing = fit_preprocessing(BedroomImputer("ratio_boosting").fit(train), train, PLAIN)
    pipeline = fit_model(preprocessing, train, family, hyperparameters)
    evaluation = evaluate(pipeline, test, INTERVAL)
    best = BestParams(
        sweep_id="5feb0001",
        best_run_id="5feb0001-0",
        best_run_name="trial-000",
        model_type=family,
        hyperparameters=hyperparameters,
        metrics=evaluation.metrics,
        engine="optuna",
        n_trials=1,
        seed=42,
    )
    card = ModelCard(
        best=best,
        test_metrics=evaluation.metrics,
        spatial_metrics=evaluation.metrics,
        coverage=evaluation.coverage,
        interval_level=0.9,
        features=tuple(preprocessing["encoder"].get_feature_names_out()),
        snapshot=snapshot,
        train_hash=content_hash(train),
        test_hash=content_hash(test),
        commit="abc123",
        dagster_run_id=RUN_ID,
    )
    return Candidate(pipeline, train, test, INTERVAL, evaluation, card)


def generous_candidate() -> Candidate:
    """The candidate, with a model whose answers its bundle does not give."""
    fitted = candidate().pipeline
    generous = GenerousTree()
    generous.__dict__.update(fitted["model"].__dict__)
    return replace(candidate(), pipeline=Pipeline([*fitted.steps[:-1], ("model", generous)]))


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowRuns]:
    """An embedded MLflow store; creating its tables takes seconds, so the tests share it."""
    folder = tmp_path_factory.mktemp("mlflow")
    yield MlflowRuns(f"sqlite:///{folder}/mlflow.db", "registration", LocalStore(folder / "storage"))


@pytest.fixture
def place(tracking: MlflowRuns, tmp_path: Path) -> Place:
    registry = ModelRegistry(tracking.client, tracking._uri, next(model_names))
    return Place(
        registry,
        LocalStore(tmp_path / "storage"),
        lambda: str(tracking.client.create_run(tracking.experiment_id).info.run_id),
    )


def test_a_registered_version_is_complete_described_and_in_staging(place: Place) -> None:
    registered = place.register(candidate())
    assert (registered.version, registered.parity) == (1, 0.0)
    assert place.versions() == {1: "complete"}
    assert place.staging() == 1
    version = place.registry.newest_of_snapshot("2026-11-22")
    expected = {
        "algorithm": "DecisionTree",
        "framework": "scikit-learn",
        "snapshot": "2026-11-22",
        "dagster_run_id": RUN_ID,
        "git_commit": "abc123",
        "bundle_uri": place.store.uri(f"models/{place.registry.name}/1/bundle.json"),
        "bundle_sha256": registered.bundle.sha256,
        "r2": repr(candidate().evaluation.metrics["r2"]),
    }
    assert {name: version.tags[name] for name in expected} == expected
    assert version.description.startswith("## DecisionTree, snapshot 2026-11-22\n")
    assert f"Bundle: `{registered.bundle.uri}`" in version.description


def test_the_stored_bundle_and_the_logged_pipeline_answer_as_the_candidate_does(place: Place) -> None:
    version = place.register(candidate()).version
    assert place.bundle(version) == BUNDLE_FILES
    bundle = load_bundle(place.store, place.registry.name, version)
    assert (bundle.manifest.model_name, bundle.manifest.model_version) == (place.registry.name, 1)
    test = candidate().test
    expected = predict(candidate().pipeline, test)
    columns = {name: test[name].to_numpy() for name in test.columns}
    assert np.array_equal(bundle.predict(columns).price, expected)
    assert np.array_equal(predict(place.registry.load_model(version), test), expected)


def test_a_failed_write_of_the_manifest_leaves_no_version_no_file_and_the_alias_where_it_was(
    place: Place,
) -> None:
    place.register(candidate())
    with pytest.raises(StorageWriteFailed, match="No space left on device"):
        place.register(candidate(), FullDisk(place.store.root))
    assert place.versions() == {1: "complete"}
    assert place.staging() == 1
    assert place.bundle(1) == BUNDLE_FILES
    assert place.bundle(2) == []
    # A number is never used twice, so nobody takes one model for the other.
    assert place.register(candidate()).version == 3
    assert place.staging() == 3


def test_a_failed_clean_up_does_not_hide_why_registration_failed(place: Place) -> None:
    with pytest.raises(StorageWriteFailed, match="No space left on device") as caught:
        place.register(candidate(), LostDisk(place.store.root))
    [note] = caught.value.__notes__
    assert note.startswith("version 1 is left incomplete")
    assert note.endswith("was locked by another writer for 60 s); the next registration deletes it")
    assert place.versions() == {1: "incomplete"}
    assert place.register(candidate()).version == 2
    assert place.versions() == {2: "complete"}
    assert place.bundle(1) == []


def test_a_bundle_that_answers_otherwise_is_not_registered_and_the_worst_row_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    generous = generous_candidate()
    # Logging a type that is not trusted would fail earlier, for another reason.
    own_type = f"{GenerousTree.__module__}.{GenerousTree.__qualname__}"
    monkeypatch.setattr(registration, "TRUSTED_TYPES", (*TRUSTED_TYPES, own_type))
    with pytest.raises(ParityError, match=r"by \$1000\.000000, more than \$1e-06") as caught:
        place.register(generous)
    rows = {*generous.train[ID_COLUMN], *generous.test[ID_COLUMN]}
    assert any(f"'block_group_id': '{row}'" in str(caught.value) for row in rows)
    assert place.versions() == {}
    assert place.store.list() == []
    with pytest.raises(MlflowException, match="alias staging not found"):
        place.staging()


def test_what_a_dead_run_left_half_done_is_deleted_by_the_next_registration(place: Place) -> None:
    version = place.created("dead-run")
    place.registry.claim_bundle(version)
    place.store.write(f"models/{place.registry.name}/{version}/imputer.onnx", b"half of a bundle")
    assert place.versions() == {1: INCOMPLETE}
    registered = place.register(candidate(), is_active=lambda run_id: run_id != "dead-run")
    assert registered.version == 2
    assert place.versions() == {2: "complete"}
    assert place.bundle(1) == []


def test_a_version_that_a_living_run_is_registering_is_left_alone(place: Place) -> None:
    version = place.created("living-run")
    place.registry.claim_bundle(version)
    name = f"models/{place.registry.name}/{version}/imputer.onnx"
    place.store.write(name, b"half of a bundle")
    registered = place.register(candidate(), is_active=lambda run_id: run_id == "living-run")
    assert place.versions() == {version: INCOMPLETE, registered.version: "complete"}
    assert place.store.read(name) == b"half of a bundle"
    found = place.registry.client.get_model_version(place.registry.name, str(version))
    assert found.tags[RUN_TAG] == "living-run"


@pytest.mark.parametrize("kept", [1, 7])
def test_a_reset_registry_is_told_from_bundles_it_does_not_know(place: Place, kept: int) -> None:
    before = f"models/{place.registry.name}/{kept}/bundle.json"
    place.store.write(before, b"a manifest from before the reset")
    with pytest.raises(VersionTaken) as caught:
        place.register(candidate())
    assert str(caught.value) == (
        f"{place.store.root}/models/{place.registry.name}/{kept} exists already, but the registry only now "
        f"created version 1 of {place.registry.name}: it seems to have been reset while the storage root "
        f"{place.store.root} was kept. Use another MLFLOW_MODEL_NAME, or move "
        f"{place.store.root}/models/{place.registry.name} away; nothing was overwritten"
    )
    assert place.versions() == {}
    assert place.store.list() == [before]
    assert place.store.read(before) == b"a manifest from before the reset"


def test_cleaning_up_after_a_dead_run_spares_a_bundle_that_was_there_before_it(place: Place) -> None:
    version = place.created("dead-run")
    before = f"models/{place.registry.name}/{version}/bundle.json"
    place.store.write(before, b"a manifest from before the reset")
    place.register(candidate())
    assert place.versions() == {2: "complete"}
    assert place.store.read(before) == b"a manifest from before the reset"


def test_a_snapshot_without_a_version_is_named(place: Place) -> None:
    place.register(candidate())
    with pytest.raises(LookupError, match="registered for snapshot 2026-11-29"):
        place.registry.newest_of_snapshot("2026-11-29")


def test_the_decision_is_stored_beside_the_bundle_and_told_in_tags_and_description(place: Place) -> None:
    registered = place.register(good_candidate(8))
    prefix = f"models/{place.registry.name}/1"
    stored = Decision.from_json(place.store.read(f"{prefix}/promotion.json"))
    report = place.store.read(f"{prefix}/promotion.md").decode()
    assert stored == registered.decision
    assert report == registered.decision.to_markdown()
    assert report.startswith("## Promotion: version 1 may go to production\n")
    version = place.registry.newest_of_snapshot(SNAPSHOT)
    expected = {
        "promotion": "promote",
        "promotion_reason": "no version is in production yet, and every floor is cleared",
        "promotion_champion": "none",
        "promotion_report_uri": place.store.uri(f"{prefix}/promotion.json"),
        "deployment_alias": "staging",
    }
    assert {name: version.tags[name] for name in expected} == expected
    assert version.description.startswith("## RandomForest, snapshot 2026-11-22\n")
    assert report in version.description
    assert version.description.endswith(f"Report: `{registered.report_uri}`\n")
    assert place.registry.production() is None


def test_a_candidate_below_the_floors_is_kept_in_staging_with_the_reason(place: Place) -> None:
    registered = place.register(candidate())
    assert not registered.decision.promote
    tags = place.registry.newest_of_snapshot(SNAPSHOT).tags
    assert tags["promotion"] == "keep"
    assert tags["promotion_reason"].startswith(
        "the number of test rows is 96, it must be at least 100; R² is"
    )
    assert place.staging() == 1


def test_a_candidate_is_judged_against_the_version_behind_the_alias_and_no_other(place: Place) -> None:
    place.register(good_candidate(8))
    place.register(good_candidate(30))
    place.promote(1)
    beats_first = place.register(good_candidate(30)).decision
    assert (beats_first.champion_version, beats_first.verdict) == (1, "promote")
    place.promote(3)
    again = place.register(good_candidate(30))
    assert (again.decision.champion_version, again.decision.verdict) == (3, "keep")
    assert again.decision.reason.startswith("mean error is the same as that of version 3 ($")
    tags = place.registry.newest_of_snapshot(SNAPSHOT).tags
    assert (tags["promotion"], tags["promotion_champion"]) == ("keep", "3")
    assert place.registry.production() == 3
    assert place.staging() == 4
    assert place.bundle(4) == BUNDLE_FILES


def test_a_better_candidate_of_an_older_snapshot_stays_in_staging(place: Place) -> None:
    place.promote(place.register(good_candidate(8)).version)
    decision = place.register(good_candidate(30, "2026-11-15")).decision
    assert not decision.promote
    assert decision.reason == "snapshot 2026-11-15 is older than 2026-11-22, that of version 1"


def test_the_report_is_written_before_the_manifest_which_stays_the_last(place: Place) -> None:
    store = RecordingDisk(place.store.root)
    place.register(candidate(), store)
    assert sorted(store.written) == BUNDLE_FILES
    assert store.written[-1] == MANIFEST_FILE


def test_readers_of_the_bundle_take_no_notice_of_the_report(place: Place) -> None:
    place.register(candidate())
    bundle = load_bundle(place.store, place.registry.name, 1)
    assert sorted(bundle.manifest.files) == ["explanation.npz", "imputer.onnx", "model.onnx"]
    assert Bundle.load(place.store.uri(f"models/{place.registry.name}/1")).manifest == bundle.manifest


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ({"model.onnx": b"half"}, "model.onnx has sha256"),
        ({"model.onnx": None}, "model.onnx does not exist"),
        (dict.fromkeys(BUNDLE_FILES), "bundle.json does not exist"),
    ],
)
def test_a_damaged_champion_is_not_replaced_and_the_training_is_not_lost(
    place: Place, damage: dict[str, bytes | None], problem: str
) -> None:
    place.promote(place.register(good_candidate(8)).version)
    for name, content in damage.items():
        path = Path(place.store.uri(f"models/{place.registry.name}/1/{name}"))
        path.write_bytes(content) if content is not None else path.unlink()
    registered = place.register(good_candidate(30))
    assert not registered.decision.promote
    assert registered.decision.champion_version == 1
    assert registered.decision.reason.startswith("version 1 in production cannot be read, so nothing can be")
    assert problem in registered.decision.reason
    assert f"models/{place.registry.name}/1" in registered.decision.reason
    assert place.versions() == {1: "complete", 2: "complete"}
    assert (place.staging(), place.registry.production()) == (2, 1)


def test_a_folder_that_holds_another_version_is_no_champion(place: Place) -> None:
    place.register(candidate())
    place.register(candidate())
    place.promote(1)
    first, second = (place.store.uri(f"models/{place.registry.name}/{number}") for number in (1, 2))
    for name in ("bundle.json", "imputer.onnx", "model.onnx"):
        (Path(first) / name).write_bytes((Path(second) / name).read_bytes())
    assert load_champion(place.registry, place.store) == UnreadableChampion(
        1, f"{first} holds the bundle of version 2"
    )


def test_storage_that_does_not_answer_for_the_champion_undoes_the_registration_for_a_retry(
    place: Place,
) -> None:
    place.promote(place.register(candidate()).version)
    with pytest.raises(StorageUnavailable, match="did not answer within 60 s"):
        place.register(candidate(), SilentDisk(place.store.root))
    assert place.versions() == {1: "complete"}
    assert place.bundle(2) == []


def test_a_description_too_long_for_the_registry_tells_the_outcome_and_where_the_report_is(
    place: Place,
) -> None:
    long = replace(candidate().card, features=tuple(f"similarity_to_cluster_{n}" for n in range(100)))
    decision = place.register(candidate()).decision
    page = long.page("gs://bucket/bundle.json", decision, "gs://bucket/promotion.json")
    assert len(page) <= MAX_DESCRIPTION
    assert page.startswith(long.description("gs://bucket/bundle.json"))
    assert page.endswith(f"{decision.summary()}\nReport: `gs://bucket/promotion.json`\n")


def test_the_asset_and_both_trackers_get_the_decision(place: Place) -> None:
    registered = place.register(candidate())
    decision = registered.decision
    metadata = promotion_metadata(registered)
    assert metadata["promotion"] == "keep"
    assert metadata["promotion_champion"] == "none"
    assert metadata["promotion_reason"] == decision.reason
    assert metadata["promotion_report"].value == decision.to_markdown()
    assert metadata["promotion_report_uri"] == registered.report_uri
    report = promotion_report(decision)
    assert report.params["promotion_reason"] == decision.reason
    assert report.tables["promotion_checks"]["check"].tolist() == [one.name for one in decision.checks]
    assert report.texts == {"promotion.json": decision.to_json(), "promotion.md": decision.to_markdown()}


def test_the_rules_are_settings_that_may_be_stricter_than_the_floors_and_never_laxer() -> None:
    assert PromotionConfig().rules() == RULES
    strict = PromotionConfig(min_improvement=0.02, min_r2=0.8).rules()
    assert strict == replace(RULES, min_improvement=0.02, min_r2=0.8)
    with pytest.raises(ValidationError, match=r"should be greater than or equal to 0\.7"):
        PromotionConfig(min_r2=0.69)
    with pytest.raises(ValidationError, match="should be less than or equal to 25"):
        PromotionConfig(max_mape=25.1)
