"""Reading a model bundle: verified, compiled, and ready to predict. Nothing in it is ever unpickled.

A bundle is a directory with `bundle.json`, `model.onnx`, `explanation.npz` unless it is an old one, and, for
some imputers, one more file. Training uses this same reader for its parity check, so what was checked is what
serves.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import ValidationError

from housing_serving.domain import TrainingDomain
from housing_serving.explanation import AdditiveModel, Explainer, ExplanationCorrupt
from housing_serving.features import RAW_FEATURES, Columns, FloatArray, feature_matrix
from housing_serving.imputation import (
    IMPUTER_INPUTS,
    CompiledImputer,
    ConstantImputer,
    Imputer,
    NeighboursImputer,
    fill_bedrooms,
)
from housing_serving.manifest import (
    CHECKSUM,
    EXPLANATION_FILE,
    FORMAT_VERSION,
    IMPUTER_FILES,
    MANIFEST_FILE,
    MODEL_FILE,
    NEIGHBOURS_FILE,
    SPREAD_FILE,
    BundleManifest,
    FeatureRange,
    ImputerSpec,
    IntervalSpec,
    Preprocessing,
    SegmentInterval,
    checksum,
)
from housing_serving.neighbours import TRAITS, Neighbourhood

__all__ = [
    "EXPLANATION_FILE",
    "FORMAT_VERSION",
    "IMPUTER_FILES",
    "MANIFEST_FILE",
    "MODEL_FILE",
    "NEIGHBOURS_FILE",
    "SPREAD_FILE",
    "Bundle",
    "BundleCorrupt",
    "BundleError",
    "BundleFormatUnsupported",
    "BundleManifest",
    "BundleMissing",
    "FeatureRange",
    "ImputerSpec",
    "IntervalSpec",
    "NotExplainable",
    "Predictions",
    "Preprocessing",
    "SegmentInterval",
    "read_manifest",
    "sha256_hex",
]

ONNX_INPUT = "features"
ONNX_OUTPUT = "prediction"
# Rows of a table that are priced at once: their features stay in the processor's cache, about 7 MB.
PIECE_ROWS = 8_192


class BundleError(Exception):
    """A bundle that cannot be used; the message names the file and what to do."""


class BundleMissing(BundleError):
    """The bundle, or a file it lists, is not there."""


class BundleFormatUnsupported(BundleError):
    """The bundle was written in a format this reader does not know."""


class BundleCorrupt(BundleError):
    """A file is not what `bundle.json` says it is, or not readable at all."""


class NotExplainable(BundleError):
    """The bundle predicts, but was exported without what explanations need."""


class Predictions(NamedTuple):
    """Prices and their intervals, one element per row."""

    price: FloatArray
    lower: FloatArray
    upper: FloatArray


def sha256_hex(data: bytes) -> str:
    """The digest `bundle.json` keeps of each file."""
    return hashlib.sha256(data).hexdigest()


def read_manifest(data: bytes, origin: str) -> BundleManifest:
    """Parse `bundle.json`; `origin` names it in errors.

    Raises:
        BundleFormatUnsupported: it declares another format version.
        BundleCorrupt: it is not JSON, does not match its own checksum, or a field is missing, unknown or
            wrong.
    """
    try:
        declared = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleCorrupt(f"{origin} is not JSON ({error}): copy or export the bundle again") from error
    version = declared.get("format_version") if isinstance(declared, dict) else None
    if not isinstance(version, int):
        raise BundleCorrupt(f"{origin} states no format_version: it is not a bundle manifest")
    if version != FORMAT_VERSION:
        raise BundleFormatUnsupported(
            f"{origin} has format version {version}, this reader knows {FORMAT_VERSION}: "
            "upgrade the service, or export the model again with the pipeline of this release"
        )
    stated = declared.pop(CHECKSUM, None)
    if stated != checksum(declared):
        raise BundleCorrupt(
            f"{origin} does not match the {CHECKSUM} it states of itself: copy the bundle again"
        )
    try:
        return BundleManifest.model_validate_json(json.dumps(declared))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'manifest'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise BundleCorrupt(f"{origin} is not a valid manifest ({problems}): export it again") from error


class Bundle:
    """One model version, immutable and safe to share between threads."""

    def __init__(self, manifest: BundleManifest, files: Mapping[str, bytes], origin: str) -> None:
        self.manifest = manifest
        self.domain = TrainingDomain(manifest)
        neighbourhood = _open_neighbourhood(manifest, files, origin)
        self._spec = manifest.preprocessing.spec(neighbourhood)
        self._session = _open_session(files[MODEL_FILE], self._spec.size, f"{origin}/{MODEL_FILE}")
        self._spread = None
        if manifest.interval.scaled:
            self._spread = _open_session(files[SPREAD_FILE], self._spec.size, f"{origin}/{SPREAD_FILE}")
        self._imputer = _open_imputer(manifest, files, origin)
        self._origin = origin
        # As it is stored, about a megabyte: most processes are never asked why.
        self._explanation = files[EXPLANATION_FILE] if EXPLANATION_FILE in manifest.files else None

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read and verify the bundle in a directory.

        Raises:
            BundleError: one of its subclasses, saying what is wrong with which file.
        """
        folder = Path(directory)
        data = _read(folder / MANIFEST_FILE)
        manifest = read_manifest(data, str(folder / MANIFEST_FILE))
        files = {name: _read(folder / name) for name in manifest.files}
        return cls.from_files({**files, MANIFEST_FILE: data}, origin=str(folder))

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], *, origin: str) -> Self:
        """Verify and open a bundle held in memory, as just exported or downloaded.

        Args:
            files: Content by file name, `bundle.json` among them.
            origin: Where the files came from, for error messages.

        Raises:
            BundleError: one of its subclasses, saying what is wrong with which file.
        """
        if MANIFEST_FILE not in files:
            raise BundleMissing(_absent(f"{origin}/{MANIFEST_FILE}"))
        manifest = read_manifest(files[MANIFEST_FILE], f"{origin}/{MANIFEST_FILE}")
        for name, digest in manifest.files.items():
            if name not in files:
                raise BundleMissing(_absent(f"{origin}/{name}"))
            if (found := sha256_hex(files[name])) != digest:
                raise BundleCorrupt(
                    f"{origin}/{name} has sha256 {found}, {MANIFEST_FILE} says {digest}: "
                    "copy the bundle again"
                )
        return cls(manifest, files, origin)

    def predict(self, columns: Columns) -> Predictions:
        """Prices for the nine raw features; `total_bedrooms` may hold NaN.

        A row gives the same bits alone as within any batch, however large.
        """
        rows = len(columns["latitude"])
        if rows <= PIECE_ROWS:
            return self.predict_matrix(self.feature_matrix(columns))
        # Neighbours share their surroundings, which are looked up once, and their way through the trees,
        # which the processor then foresees: twice as fast as in any other order.
        order = np.lexsort((columns["median_income"], columns["longitude"], columns["latitude"]))
        ends = np.empty((3, rows))
        for start in range(0, rows, PIECE_ROWS):
            piece = order[start : start + PIECE_ROWS]
            part = self.predict_matrix(self.feature_matrix({n: columns[n][piece] for n in RAW_FEATURES}))
            ends[:, piece] = part.price, part.lower, part.upper
        return Predictions(*ends)

    def remember_training_places(self) -> None:
        """Find out what there is to know of the places that training knows, before anybody asks for them."""
        if (around := self._spec.neighbourhood) is not None:
            self._spec.remembered.learn(around.latitude, around.longitude)

    def feature_matrix(self, columns: Columns) -> FloatArray:
        """What the model sees of the raw features."""
        return feature_matrix(fill_bedrooms(columns, self._imputer), self._spec)

    def predict_matrix(self, matrix: FloatArray) -> Predictions:
        """Prices for rows of `feature_matrix`; nearly all of its time is spent outside the interpreter."""
        price = _answer(self._session, matrix)
        spread = None if self._spread is None else _answer(self._spread, matrix)
        interval = self.manifest.interval
        if len(price) > 1:
            return Predictions(price, *bounds(interval, price, spread, np.maximum, np.minimum))
        # The same arithmetic on Python's numbers: operations on arrays of one cost twenty times as much.
        width = None if spread is None else spread.item()
        lower, upper = bounds(interval, price.item(), width, max, min)
        return Predictions(price, np.array([lower]), np.array([upper]))

    @property
    def neighbourhood(self) -> Neighbourhood | None:
        """The block groups whose prices are features; None where they are not."""
        return self._spec.neighbourhood

    @property
    def explainable(self) -> bool:
        """Whether the bundle holds what explanations need."""
        return self._explanation is not None

    @cached_property
    def explainer(self) -> Explainer:
        """What explains this model's prices; unpacked when it is first asked for.

        Raises:
            NotExplainable: the bundle was exported without it.
            BundleCorrupt: its file is unusable.
        """
        path = f"{self._origin}/{EXPLANATION_FILE}"
        if self._explanation is None:
            raise NotExplainable(f"{path} is not part of this bundle: export the model again")
        try:
            model = AdditiveModel.read(self._explanation, self._spec.size)
        except ExplanationCorrupt as error:
            raise BundleCorrupt(f"{path} is unusable ({error}): export it again") from error
        return Explainer(model, self._spec.names)


N = TypeVar("N", float, FloatArray)


def bounds(
    interval: IntervalSpec, price: N, spread: N | None, larger: Callable[..., N], smaller: Callable[..., N]
) -> tuple[N, N]:
    """Lower and upper end of a price's interval, of one price or of an array of them.

    Args:
        interval: What training has found.
        price: Dollars.
        spread: What the spread model answers, dollars; None without one.
        larger: `max` for one price, `np.maximum` for an array.
        smaller: As `larger`.
    """
    scale = 1.0 if spread is None else larger(spread, interval.least_spread)
    upper = price + interval.upper_offset * scale
    if interval.highest is not None:
        upper = larger(smaller(upper, interval.highest), price)
    return larger(price + interval.lower_offset * scale, 0.0), upper


def _answer(session: ort.InferenceSession, matrix: FloatArray) -> FloatArray:
    (answer,) = session.run([ONNX_OUTPUT], {ONNX_INPUT: matrix})
    column: FloatArray = answer[:, 0]
    return column


def _absent(path: str) -> str:
    return f"{path} does not exist: check the path, or export or copy the bundle again"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleMissing(_absent(str(path))) from error
    except OSError as error:
        raise BundleCorrupt(
            f"{path} cannot be read ({error.strerror}): check the disk and its permissions"
        ) from error


def _open_session(data: bytes, width: int, origin: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # One thread per call: requests run side by side, and the order of additions never varies.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # An arena would keep what the largest batch took, for every session.
    options.enable_cpu_mem_arena = False
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises several types that share no other base
        raise BundleCorrupt(f"{origin} is not a model onnxruntime can run: export it again") from error
    inputs = [(node.name, node.type, node.shape[1:]) for node in session.get_inputs()]
    outputs = [(node.name, node.type) for node in session.get_outputs()]
    if inputs != [(ONNX_INPUT, "tensor(double)", [width])] or outputs != [(ONNX_OUTPUT, "tensor(double)")]:
        raise BundleCorrupt(
            f"{origin} maps {inputs} to {outputs}, expected {ONNX_INPUT} (double, n x {width}) to "
            f"{ONNX_OUTPUT} (double): export it again"
        )
    return session


def _open_imputer(manifest: BundleManifest, files: Mapping[str, bytes], origin: str) -> Imputer:
    spec = manifest.imputer
    if spec.value is not None:
        return ConstantImputer(spec.value)
    name = IMPUTER_FILES[spec.kind]
    if spec.kind == "compiled":
        session = _open_session(files[name], len(IMPUTER_INPUTS), f"{origin}/{name}")
        return CompiledImputer(session, spec.per_household)
    return _open_neighbours(files[name], f"{origin}/{name}")


def _open_neighbourhood(
    manifest: BundleManifest, files: Mapping[str, bytes], origin: str
) -> Neighbourhood | None:
    if not manifest.preprocessing.neighbours:
        return None
    name = f"{origin}/{NEIGHBOURS_FILE}"
    arrays = _arrays(files[NEIGHBOURS_FILE], ("latitude", "longitude", "price", "traits"), name)
    rows = arrays["price"].size
    shapes = {"latitude": (rows,), "longitude": (rows,), "price": (rows,), "traits": (len(TRAITS), rows)}
    wrong = [
        column
        for column, array in arrays.items()
        if array.shape != shapes[column] or array.dtype != np.float64 or not np.isfinite(array).all()
    ]
    if wrong or rows < 2:
        raise BundleCorrupt(f"{name} holds {', '.join(wrong) or 'too few rows'}: export it again")
    return Neighbourhood(**arrays)


def _arrays(data: bytes, names: tuple[str, ...], origin: str) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in names}
    except Exception as error:  # zipfile, numpy and KeyError: all mean the same here
        raise BundleCorrupt(
            f"{origin} does not hold the neighbours' arrays ({', '.join(names)}) as plain numbers: "
            "export it again"
        ) from error


def _open_neighbours(data: bytes, origin: str) -> NeighboursImputer:
    arrays = _arrays(data, ("reference", "values", "mean", "scale", "k"), origin)
    if (k := arrays.pop("k")).ndim or k.dtype.kind not in "iu":
        raise BundleCorrupt(f"{origin} does not hold the neighbours' arrays: k is no whole number")
    neighbours = int(k)
    width = len(IMPUTER_INPUTS)
    rows = len(arrays["values"]) if arrays["values"].ndim else 0
    shapes = {"reference": (rows, width), "values": (rows,), "mean": (width,), "scale": (width,)}
    wrong = [
        name for name, array in arrays.items() if array.shape != shapes[name] or array.dtype != np.float64
    ]
    if wrong or not 1 <= neighbours <= rows:
        raise BundleCorrupt(
            f"{origin} holds {', '.join(wrong) or 'k'} in a wrong shape or type: export it again"
        )
    return NeighboursImputer(**arrays, k=neighbours)
