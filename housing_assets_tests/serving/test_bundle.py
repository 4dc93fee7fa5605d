"""Bundles: predictions worked out by hand, and every way a bundle can be unusable."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from housing_assets_tests.serving.bundles import (
    INSTANCE,
    MEDIAN_INCOME,
    PREPROCESSING,
    PRICE_STUMPS,
    bundle_files,
    columns_of,
    neighbours_file,
    npz,
    random_columns,
    random_stumps,
    stump_model,
    write_files,
)
from housing_serving.bundle import (
    FORMAT_VERSION,
    Bundle,
    BundleCorrupt,
    BundleError,
    BundleFormatUnsupported,
    BundleMissing,
    ImputerSpec,
    IntervalSpec,
    read_manifest,
    sha256_hex,
)
from housing_serving.manifest import checksum
from housing_serving.neighbours import ALIKE_FEATURES, FEATURES, TRAITS

# Of the example: 100,000 and 200,000 more above an income of 4.
PRICE = 300_000.0
KINDS = ("constant", "neighbours", "compiled")


def opened(files: dict[str, bytes]) -> Bundle:
    return Bundle.from_files(files, origin="bundle")


def with_manifest(files: dict[str, bytes], /, **changes: object) -> dict[str, bytes]:
    """The files with fields of `bundle.json` replaced, unchecked but for its checksum."""
    manifest = json.loads(files["bundle.json"]) | changes
    del manifest["sha256"]
    sealed = {**manifest, "sha256": checksum(manifest)}
    return {**files, "bundle.json": json.dumps(sealed).encode()}


def with_file(files: dict[str, bytes], name: str, data: bytes) -> dict[str, bytes]:
    """The files with one replaced and its hash brought up to date."""
    hashes = json.loads(files["bundle.json"])["files"] | {name: sha256_hex(data)}
    return with_manifest({**files, name: data}, files=hashes)


def test_price_and_interval_of_known_rows(tmp_path: Path) -> None:
    bundle = Bundle.load(write_files(tmp_path / "1", bundle_files()))
    rich = INSTANCE
    poor_inland = {**INSTANCE, "median_income": 4.0, "ocean_proximity": "INLAND", "total_bedrooms": 253}

    predictions = bundle.predict(columns_of(rich, poor_inland))

    assert predictions.price.tolist() == [300_000, 51_000]
    assert predictions.lower.tolist() == [180_000, 0]
    assert predictions.upper.tolist() == [380_000, 131_000]


def test_manifest_states_what_was_written(tmp_path: Path) -> None:
    bundle = Bundle.load(write_files(tmp_path / "1", bundle_files(version=7)))

    manifest = bundle.manifest
    assert (manifest.model_version, manifest.algorithm) == (7, "RandomForest")
    assert manifest.features[4].nullable
    assert list(manifest.files) == ["model.onnx"]
    assert manifest.imputer.value == 435.4
    assert read_manifest(manifest.to_json(), "copy") == manifest


def test_creation_time_is_kept_in_utc() -> None:
    local = datetime(2025, 1, 5, 3, 0, tzinfo=timezone(timedelta(hours=1)))

    manifest = opened(bundle_files(created_at=local)).manifest

    assert manifest.created_at.isoformat() == "2025-01-05T02:00:00+00:00"
    assert manifest.created_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("kind", "households", "rooms", "bedrooms"),
    [
        ("constant", 126, 880, 435),
        ("neighbours", 126, 880, 100),
        ("neighbours", 990, 880, 900),
        ("compiled", 126, 500, 189),
        ("compiled", 126, 501, 378),
    ],
)
def test_null_bedrooms_are_priced_like_the_imputed_count(
    kind: str, households: int, rooms: int, bedrooms: int
) -> None:
    # The trees step at every bedroom, so only the very same count gives the same price.
    steps = [(4, bedrooms + offset, 0.0, 10.0 ** (offset + 3)) for offset in (-1.5, -0.5, 0.5, 1.5)]
    bundle = opened(bundle_files(kind=kind, stumps=steps))
    block = {**INSTANCE, "households": households, "total_rooms": rooms}
    null, known = {**block, "total_bedrooms": None}, {**block, "total_bedrooms": bedrooms}
    neighbour = {**block, "total_bedrooms": bedrooms + 1}

    price = bundle.predict(columns_of(null, known, neighbour)).price

    assert price[0] == price[1] != price[2]


def test_compiled_imputer_may_answer_in_bedrooms() -> None:
    spec = ImputerSpec(strategy="iterative_forest", kind="compiled", per_household=False)
    bundle = opened(bundle_files(kind="compiled", imputer=spec, stumps=[(4, 2.5, 1.0, 2.0)]))

    # 1.5 bedrooms in all round to 2.
    price = bundle.predict(columns_of({**INSTANCE, "total_rooms": 500, "total_bedrooms": None})).price

    assert price.tolist() == [1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_priced_with_the_same_bits_alone_and_in_any_batch(kind: str) -> None:
    bundle = opened(bundle_files(kind=kind, stumps=random_stumps()))
    columns = random_columns(200)
    batch = bundle.predict(columns)

    for size in (1, 7):
        for start in range(0, 200, size):
            part = bundle.predict({name: values[start : start + size] for name, values in columns.items()})
            assert part.price.tobytes() == batch.price[start : start + size].tobytes()
            assert part.lower.tobytes() == batch.lower[start : start + size].tobytes()
    assert len(np.unique(batch.price)) > 150


def test_a_table_gives_each_row_the_bits_it_has_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = opened(bundle_files(kind="compiled", stumps=random_stumps()))
    columns = random_columns(300)
    # As published tables are: many rows at the same place.
    for name in ("latitude", "longitude"):
        columns[name] = np.round(columns[name])
    whole = bundle.predict(columns)
    monkeypatch.setattr("housing_serving.bundle.PIECE_ROWS", 64)
    monkeypatch.setattr("housing_serving.places.MAX_ROWS", 16)
    in_pieces = bundle.predict(columns)
    for ends in ("price", "lower", "upper"):
        assert getattr(in_pieces, ends).tobytes() == getattr(whole, ends).tobytes()


def test_threads_share_one_bundle() -> None:
    bundle = opened(bundle_files(kind="compiled", stumps=random_stumps()))
    batches = [random_columns(50, seed=seed) for seed in range(8)]
    expected = [bundle.predict(batch).price.tobytes() for batch in batches]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda batch: bundle.predict(batch).price.tobytes(), batches * 10))

    assert found == expected * 10


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing, match=r"nowhere/bundle\.json does not exist: check the path"):
        Bundle.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["bundle.json", "model.onnx", "imputer.npz"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_files(tmp_path / "1", bundle_files(kind="neighbours"))
    (folder / name).unlink()

    with pytest.raises(BundleMissing, match=f"1/{name} does not exist"):
        Bundle.load(folder)
    files = {key: data for key, data in bundle_files(kind="neighbours").items() if key != name}
    with pytest.raises(BundleMissing, match=f"bundle/{name} does not exist"):
        opened(files)


def test_a_folder_in_place_of_a_file_is_reported(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "1", bundle_files())
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()

    with pytest.raises(BundleCorrupt, match=r"model\.onnx cannot be read .*check the disk"):
        Bundle.load(folder)


@pytest.mark.parametrize(("kind", "name"), [("compiled", "model.onnx"), ("compiled", "imputer.onnx")])
def test_one_flipped_bit_anywhere_is_noticed(kind: str, name: str) -> None:
    files = bundle_files(kind=kind)
    for position in range(0, len(files[name]), 37):
        damaged = bytearray(files[name])
        damaged[position] ^= 1
        with pytest.raises(BundleCorrupt, match=f"bundle/{name} has sha256 .*copy the bundle again"):
            opened({**files, name: bytes(damaged)})


def test_one_changed_digit_of_the_manifest_is_noticed() -> None:
    files = bundle_files(interval=IntervalSpec(level=0.9, lower_offset=-120_000.0, upper_offset=80_000.0))
    manifest = files["bundle.json"]
    digits = [position for position in range(len(manifest)) if manifest[position : position + 1].isdigit()]
    for position in digits:
        damaged = bytearray(manifest)
        damaged[position] ^= 1
        with pytest.raises(BundleError, match=r"bundle/bundle\.json "):
            opened({**files, "bundle.json": bytes(damaged)})


def test_a_manifest_that_was_only_formatted_anew_is_the_same() -> None:
    files = bundle_files()
    compact = json.dumps(json.loads(files["bundle.json"]), sort_keys=True).encode()

    assert opened({**files, "bundle.json": compact}).manifest == opened(files).manifest


def test_a_truncated_file_is_noticed(tmp_path: Path) -> None:
    files = bundle_files()
    folder = write_files(tmp_path / "1", {**files, "model.onnx": files["model.onnx"][:-1]})

    with pytest.raises(BundleCorrupt, match=r"1/model\.onnx has sha256"):
        Bundle.load(folder)


def test_future_format_is_refused_before_anything_else_is_read() -> None:
    files = {"bundle.json": b'{"format_version": %d, "weights": "elsewhere"}' % (FORMAT_VERSION + 1)}

    known = rf"format version {FORMAT_VERSION + 1}, this reader knows {FORMAT_VERSION}: upgrade"
    with pytest.raises(BundleFormatUnsupported, match=known):
        opened(files)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "states no format_version"),
        (b"{}", "states no format_version"),
        (b'{"format_version": "1"}', "states no format_version"),
        (b'{"format_version": %d}' % FORMAT_VERSION, "does not match the sha256 it states of itself"),
    ],
)
def test_a_broken_manifest_is_named(data: bytes, message: str) -> None:
    with pytest.raises(BundleCorrupt, match=rf"bundle/bundle\.json .*{message}"):
        opened({"bundle.json": data})


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "sub/model.onnx", "a\\b", "..", ".", ".hidden", "", "C:x", "a\x00b", "ä"],
)
def test_file_names_with_path_parts_are_refused_unread(tmp_path: Path, name: str) -> None:
    files = bundle_files()
    hashes = json.loads(files["bundle.json"])["files"] | {name: "0" * 64}
    folder = write_files(tmp_path / "1", with_manifest(files, files=hashes))

    with pytest.raises(BundleCorrupt, match="is not a plain file name"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_version": 0}, "model_version: Input should be greater than or equal to 1"),
        ({"model_version": "1"}, "model_version: Input should be a valid integer"),
        ({"created_at": "2025-01-05T02:00:00"}, "created_at: .*timezone"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"files": {"model.onnx": "0" * 63}}, "files.model.onnx: String should match"),
        ({"files": {}}, "manifest: Value error, files does not list model.onnx"),
        ({"features": []}, "manifest: Value error, features are"),
        (
            {"interval": {"level": 1.5, "lower_offset": 1, "upper_offset": -1}},
            "interval.level: .*less than 1",
        ),
        ({"imputer": {"strategy": "mean", "kind": "constant"}}, "value is given for the kind constant"),
        ({"imputer": {"strategy": "x", "kind": "pickle"}}, "imputer.kind: Input should be 'constant'"),
        ({"imputer": {"strategy": "knn", "kind": "neighbours"}}, "files does not list imputer.npz"),
    ],
)
def test_wrong_manifest_fields_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleCorrupt, match=message):
        opened(with_manifest(bundle_files(), **changes))


def test_a_manifest_cannot_vouch_for_itself() -> None:
    with pytest.raises(ValidationError, match="cannot hold its own hash"):
        bundle_files(files={"model.onnx": "0" * 64, "bundle.json": "0" * 64})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a model onnxruntime can run"),
        (b"not a protobuf", "is not a model onnxruntime can run"),
        (stump_model(18, [(0, 0.0, 1.0, 2.0)]), r"expected features \(double, n x 19\)"),
        (stump_model(19, [(0, 0.0, 1.0, 2.0)], output="price"), r"to prediction \(double\)"),
    ],
)
def test_a_model_outside_the_contract_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BundleCorrupt, match=rf"bundle/model\.onnx .*{message}"):
        opened(with_file(bundle_files(), "model.onnx", data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not hold the neighbours' arrays"),
        (neighbours_file(values=np.array([object(), object()])), "does not hold the neighbours' arrays"),
        (neighbours_file(k=np.array([1, 2])), "does not hold the neighbours' arrays"),
        (neighbours_file(k=np.int64(3)), "holds k in a wrong shape"),
        (neighbours_file(k=np.int64(0)), "holds k in a wrong shape"),
        (neighbours_file(values=np.array(1.0)), "holds reference, values in a wrong shape"),
        (neighbours_file(mean=np.zeros(6)), "holds mean in a wrong shape"),
        (neighbours_file(scale=np.ones(7, dtype=np.float32)), "holds scale in a wrong shape or type"),
    ],
)
def test_neighbours_outside_the_contract_are_refused_unpickled(data: bytes, message: str) -> None:
    with pytest.raises(BundleCorrupt, match=rf"bundle/imputer\.npz {message}"):
        opened(with_file(bundle_files(kind="neighbours"), "imputer.npz", data))


def block_groups_file(**changes: object) -> bytes:
    """Five block groups as a bundle holds them; `changes` replace arrays."""
    arrays = {name: np.linspace(1.0, 2.0, 5) for name in ("latitude", "longitude", "price")}
    return npz({**arrays, "traits": np.ones((len(TRAITS), 5)), **changes})


def with_block_groups(data: bytes) -> dict[str, bytes]:
    """A bundle whose model takes the features of neighbours as well."""
    preprocessing = PREPROCESSING.model_copy(update={"neighbours": True})
    width = PREPROCESSING.spec().size + len(FEATURES) + len(ALIKE_FEATURES)
    model = stump_model(width, PRICE_STUMPS)
    files = {"model.onnx": sha256_hex(model), "block_groups.npz": sha256_hex(data)}
    rewritten = bundle_files(preprocessing=preprocessing, files=files)
    return {**rewritten, "model.onnx": model, "block_groups.npz": data}


def test_a_bundle_prices_with_the_block_groups_nearby() -> None:
    bundle = Bundle.from_files(with_block_groups(block_groups_file()), origin="bundle")
    columns = columns_of(INSTANCE)
    assert bundle.feature_matrix(columns).shape == (
        1,
        PREPROCESSING.spec().size + len(FEATURES) + len(ALIKE_FEATURES),
    )
    assert bundle.predict(columns).price.tolist() == [PRICE]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"price": np.array([1.0, np.nan, 1.0, 1.0, 1.0])}, "holds price"),
        ({"latitude": np.ones(4)}, "holds latitude"),
        ({"traits": np.ones((2, 5))}, "holds traits"),
        ({"longitude": np.ones(5, dtype=np.float32)}, "holds longitude"),
        ({"price": np.array([object()] * 5)}, "does not hold the neighbours' arrays"),
    ],
)
def test_block_groups_outside_the_contract_are_refused(changes: dict[str, object], problem: str) -> None:
    files = with_block_groups(block_groups_file(**changes))
    with pytest.raises(BundleCorrupt, match=rf"bundle/block_groups\.npz {problem}"):
        opened(files)


def test_an_interval_may_be_as_wide_as_a_model_says() -> None:
    spread = stump_model(PREPROCESSING.spec().size, [(MEDIAN_INCOME, 4.0, 1_000.0, 20_000.0)])
    interval = IntervalSpec(
        level=0.9,
        lower_offset=-2.0,
        upper_offset=3.0,
        scaled=True,
        least_spread=5_000.0,
        highest=PRICE + 40_000.0,
    )
    listed = {name: sha256_hex(data) for name, data in bundle_files().items() if name != "bundle.json"}
    files = {
        **bundle_files(interval=interval, files={**listed, "spread.onnx": sha256_hex(spread)}),
        "spread.onnx": spread,
    }
    bundle = Bundle.from_files(files, origin="bundle")
    rich = bundle.predict(columns_of(INSTANCE))
    assert (rich.price - rich.lower).tolist() == [40_000.0]
    # No further than any price that was published.
    assert (rich.upper - rich.price).tolist() == [40_000.0]
    poor = bundle.predict(columns_of({**INSTANCE, "median_income": 1.0}))
    assert (poor.upper - poor.price).tolist() == [15_000.0]
    # A row alone takes another path through the same arithmetic.
    both = bundle.predict(columns_of(INSTANCE, {**INSTANCE, "median_income": 1.0}))
    for row, alone in enumerate((rich, poor)):
        assert alone.lower.tobytes() == both.lower[row : row + 1].tobytes()
        assert alone.upper.tobytes() == both.upper[row : row + 1].tobytes()
