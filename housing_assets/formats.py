"""The formats of stored values, chosen by the suffix of the object name.

Tables are parquet, estimators skops (nothing is executed on load, unknown types are refused), results
YAML or JSON. Reading never runs code from the object.
"""

import io
import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any
from zipfile import ZIP_DEFLATED, BadZipFile

import pandas as pd
import pyarrow as pa
import yaml
from pyarrow import parquet

# Types beyond what skops trusts by itself; reading an object that holds any other type fails.
TRUSTED_TYPES: tuple[str, ...] = (
    "collections.OrderedDict",
    "collections.defaultdict",
    "housing_assets.ml.imputation.BedroomImputer",
    "housing_assets.ml.preprocessing.FeatureEncoder",
    "housing_assets.ml.preprocessing.RowFeatures",
    "housing_serving.features.FeatureSpec",
    "housing_serving.neighbours.Neighbourhood",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMRegressor",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


class FormatError(ValueError):
    """A value cannot be stored under that name, or an object is not what its name promises."""


class UntrustedType(FormatError):
    """An estimator holds a type that is not on the list of trusted ones."""


def encode(name: str, value: Any) -> bytes:  # noqa: ANN401  (any storable value)
    """The bytes to store under an object name; the same value gives the same bytes, except for skops."""
    encoder, _ = _format(name)
    return encoder(name, value)


def decode(name: str, data: bytes) -> Any:  # noqa: ANN401
    """The value stored under an object name."""
    _, decoder = _format(name)
    return decoder(name, data)


def _format(name: str) -> tuple[Callable[[str, Any], bytes], Callable[[str, bytes], Any]]:
    suffix = PurePosixPath(name).suffix
    if suffix not in FORMATS:
        raise FormatError(f"{name}: no format for suffix {suffix!r}; known: {', '.join(FORMATS)}")
    return FORMATS[suffix]


def _encode_parquet(name: str, value: object) -> bytes:
    if not isinstance(value, pd.DataFrame):
        raise FormatError(f"{name}: parquet holds a DataFrame, not {type(value).__qualname__}")
    if not value.index.equals(pd.RangeIndex(len(value))):
        raise FormatError(f"{name}: the index would be lost; call reset_index first")
    buffer = io.BytesIO()
    try:
        table = pa.Table.from_pandas(value, preserve_index=False)
    except (pa.ArrowException, ValueError) as error:
        raise FormatError(f"{name}: not a parquet table: {error}") from error
    parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _decode_parquet(name: str, data: bytes) -> pd.DataFrame:
    try:
        frame = parquet.read_table(io.BytesIO(data)).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{name}: not a readable parquet file: {error}") from error
    return pd.DataFrame(frame)


def _encode_skops(name: str, value: object) -> bytes:
    from skops import io as skops_io  # noqa: PLC0415  (imports all of scikit-learn)

    data = bytes(skops_io.dumps(value, compression=ZIP_DEFLATED, compresslevel=1))
    _refuse_untrusted(name, skops_io.get_untrusted_types(data=data))
    return data


def _decode_skops(name: str, data: bytes) -> object:
    from skops import io as skops_io  # noqa: PLC0415  (imports all of scikit-learn)

    try:
        found = skops_io.get_untrusted_types(data=data)
    except (BadZipFile, KeyError, ValueError) as error:
        raise FormatError(f"{name}: not a readable skops file: {error}") from error
    _refuse_untrusted(name, found)
    return skops_io.loads(data, trusted=list(TRUSTED_TYPES))


def _refuse_untrusted(name: str, types: list[str]) -> None:
    unknown = sorted(set(types) - set(TRUSTED_TYPES))
    if unknown:
        raise UntrustedType(
            f"{name}: holds untrusted type {', '.join(unknown)}; "
            "if it is harmless, add it to TRUSTED_TYPES in housing_assets/formats.py"
        )


class _PlainDumper(yaml.SafeDumper):
    """Writes a shared list twice instead of as anchor and alias, which nobody can diff."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        """No value is written as an alias."""
        return True


def _encode_yaml(name: str, value: object) -> bytes:
    _refuse_unless_plain(name, value)
    try:
        return yaml.dump(value, Dumper=_PlainDumper, sort_keys=True, allow_unicode=True, encoding="utf-8")
    except yaml.YAMLError as error:
        raise FormatError(f"{name}: not plain data: {error}") from error


def _decode_yaml(name: str, data: bytes) -> object:
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise FormatError(f"{name}: not readable YAML: {error}") from error


def _encode_json(name: str, value: object) -> bytes:
    _refuse_unless_plain(name, value)
    try:
        text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{name}: not plain data: {error}") from error
    return text.encode() + b"\n"


def _decode_json(name: str, data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError as error:
        raise FormatError(f"{name}: not readable JSON: {error}") from error


def _refuse_unless_plain(name: str, value: object) -> None:
    if not isinstance(value, (dict, list)):
        raise FormatError(f"{name}: holds a dict or list, not {type(value).__qualname__}")


FORMATS: dict[str, tuple[Callable[[str, Any], bytes], Callable[[str, bytes], Any]]] = {
    ".parquet": (_encode_parquet, _decode_parquet),
    ".skops": (_encode_skops, _decode_skops),
    ".yaml": (_encode_yaml, _decode_yaml),
    ".json": (_encode_json, _decode_json),
}
