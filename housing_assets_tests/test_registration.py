"""Registration with a real MLflow store and a real storage root: all of a version, or nothing of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeRegressor

from housing_assets import registration
from housing_assets.formats import TRUSTED_TYPES
from housing_assets.ml.cleaning import ID_COLUMN, content_hash
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.preprocessing import fit_preprocessing
from housing_assets.ml.split import split
from housing_assets.ml.sweep import BestParams
from housing_assets.ml.training import Interval, evaluate, fit_model, predict
from housing_assets.mlflow_runs import MlflowRuns
from housing_assets.model_card import ModelCard
from housing_assets.registration import (
    Candidate,
    ParityError,
    Registered,
    VersionTaken,
    load_bundle,
    register,
)
from housing_assets.registry import INCOMPLETE, RUN_TAG, STAGING, STATE_TAG, ModelRegistry
from housing_assets.storage import LocalStore, StorageUnavailable, StorageWriteFailed, StoredObject
from housing_assets_tests.ml.block_groups import block_groups
from housing_serving.bundle import MANIFEST_FILE

ROWS = 500
INTERVAL = Interval(0.9, -90_000.0, 120_000.0)
RUN_ID = "dagster-run-of-the-test"
BUNDLE_FILES = ["bundle.json", "imputer.onnx", "model.onnx"]

model_names = (f"housing_price_model_{number}" for number in count(1))


class FullDisk(LocalStore):
    """A folder that takes every file of a bundle except for its manifest."""

    def write(
        self, name: str, data: bytes, *, if_absent: bool = False, if_generation: int | None = None
    ) -> StoredObject:
        if name.endswith(f"/{MANIFEST_FILE}"):
            raise StorageWriteFailed(f"cannot write {self.uri(name)}: No space left on device")
        return super().write(name, data, if_absent=if_absent, if_generation=if_generation)


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
        return register(candidate, self.new_run(), self.registry, store or self.store, is_active)

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


@cache
def candidate() -> Candidate:
    train, test = split(block_groups(ROWS))
    preprocessing = fit_preprocessing(BedroomImputer("ratio_boosting").fit(train), train, n_clusters=4)
    pipeline = fit_model(preprocessing, train, "DecisionTree", {"max_depth": 5})
    evaluation = evaluate(pipeline, test, INTERVAL)
    best = BestParams(
        sweep_id="5feb0001",
        best_run_id="5feb0001-0",
        best_run_name="trial-000",
        model_type="DecisionTree",
        hyperparameters={"max_depth": 5},
        metrics=evaluation.metrics,
        engine="optuna",
        n_trials=1,
        seed=42,
    )
    card = ModelCard(
        best=best,
        test_metrics=evaluation.metrics,
        coverage=evaluation.coverage,
        interval_level=0.9,
        features=tuple(preprocessing["encoder"].get_feature_names_out()),
        snapshot="2026-11-22",
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
