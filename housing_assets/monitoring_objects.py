"""Where monitoring keeps what in the storage root, and how to read and write it.

| object | what it is |
|---|---|
| `monitoring/predictions/<day>/*.parquet` | rows as the service wrote them |
| `monitoring/prediction_log/<day>/predictions.parquet` | the table of the day, each answered instance once |
| `monitoring/labels/<day>/*.{csv,parquet,jsonl}` | prices that became known of that day's predictions |
| `monitoring/rejected/{predictions,labels}/<day>.parquet` | rows that cannot be used, with the reason |
| `monitoring/reports/{drift,performance}/<day>.{json,html}` | findings, for machines and for people |
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from functools import partial
from io import BytesIO
from tempfile import TemporaryFile

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from housing_assets.datasets.dataset import TABLE_SUFFIX, Dataset, parts_folder
from housing_assets.formats import decode
from housing_assets.ml.cleaning import content_hash
from housing_assets.monitoring.compaction import Compaction, RawFile, compact
from housing_assets.monitoring.findings import Kind, Report, report_name
from housing_assets.monitoring.labels import LabelFile
from housing_assets.monitoring.served import ServedDay
from housing_assets.monitoring.training_data import Reference
from housing_assets.registration import bundle_prefix, load_bundle
from housing_assets.storage import ObjectMissing, ObjectStore, StoredObject
from housing_serving.bundle import MANIFEST_FILE, Bundle, BundleError, BundleManifest, read_manifest


class PredictionLogMissing(ObjectMissing):
    """The table of a day was not made yet."""


class TrainingDataMissing(Exception):
    """The rows a version was trained on are not there any more; the message says which."""


def log_name(day: date) -> str:
    """The object name of a day's table."""
    return f"monitoring/prediction_log/{day}/predictions.parquet"


def compact_day(store: ObjectStore, day: date) -> tuple[Compaction, StoredObject]:
    """Make the table of a day from what the service wrote, and store it whole or not at all."""
    names = store.list(f"monitoring/predictions/{day}/")
    files = [RawFile(name, partial(store.read, name)) for name in names]
    # A nameless file: nothing is left of it, however this process ends.
    with TemporaryFile() as file:
        done = compact(files, day, file)
        _write_rejected(store, "predictions", day, done.rejected_rows)
        return done, store.write_file(log_name(day), file)


@contextmanager
def served_day(store: ObjectStore, day: date) -> Iterator[ServedDay]:
    """The table of a day.

    Raises:
        PredictionLogMissing: it was not made yet.
    """
    try:
        file = store.open(log_name(day))
    except ObjectMissing as error:
        raise PredictionLogMissing(f"{error}: materialize prediction_log of {day} first") from error
    with file:
        yield ServedDay(file)


def label_files(store: ObjectStore, days: Iterable[date]) -> list[LabelFile]:
    """All label files of some days."""
    names = [name for day in days for name in store.list(f"monitoring/labels/{day}/")]
    return [LabelFile(name, store.read(name)) for name in names]


def days_after(day: date, count: int) -> list[date]:
    """A day and so many after it."""
    return [day + timedelta(days=number) for number in range(count + 1)]


def write_rejected_labels(store: ObjectStore, day: date, rejected: pd.DataFrame) -> None:
    """Store the labels that cannot be used, or nothing when there are none."""
    texts = rejected.astype({"row": "Int64"}).reset_index(drop=True)
    _write_rejected(store, "labels", day, pa.Table.from_pandas(texts, preserve_index=False))


def _write_rejected(store: ObjectStore, what: str, day: date, rows: pa.Table) -> None:
    name = rejected_name(what, day)
    if not rows.num_rows:
        store.delete(name)
        return
    buffer = BytesIO()
    parquet.write_table(rows, buffer, compression="zstd")
    store.write(name, buffer.getvalue())


def rejected_name(what: str, day: date) -> str:
    """The object name of a day's rejected `predictions` or `labels`."""
    return f"monitoring/rejected/{what}/{day}.parquet"


def manifest_of(store: ObjectStore, model_name: str, version: str) -> BundleManifest:
    """What a version's bundle says of itself.

    Raises:
        ObjectMissing: there is no bundle.
        BundleError: it cannot be read.
    """
    name = f"{bundle_prefix(model_name, int(version))}/{MANIFEST_FILE}"
    return read_manifest(store.read(name), store.uri(name))


def reference_of(store: ObjectStore, model_name: str, version: str) -> Reference:
    """The training rows of a version, and its prices of them.

    Raises:
        TrainingDataMissing: its bundle, or the rows that its bundle names, are not there.
    """
    try:
        bundle = load_bundle(store, model_name, int(version))
    except BundleError as error:
        raise TrainingDataMissing(f"version {version} has no usable bundle: {error}") from error
    return Reference.of(bundle, training_rows(store, bundle))


def training_rows(store: ObjectStore, bundle: Bundle) -> pd.DataFrame:
    """The rows by their hash: a snapshot may have been made anew, and what it replaced lies below it."""
    manifest = bundle.manifest
    folder = f"data/04-split/{manifest.snapshot}/train"
    parts = parts_folder(f"{folder}/train")
    # What is there now comes first: it is seldom another.
    for name in sorted(store.list(f"{folder}/"), key=lambda name: name.count("/")):
        if name.startswith(f"{parts}/"):
            # A manifest leads there.
            continue
        rows = _rows_with_hash(store, name, manifest.data_hash)
        if rows is not None:
            return rows
    raise TrainingDataMissing(
        f"version {manifest.model_version} was trained on rows with the hash {manifest.data_hash[:12]}…, and "
        f"no object in {store.uri(folder)} holds them"
    )


def _rows_with_hash(store: ObjectStore, name: str, data_hash: str) -> pd.DataFrame | None:
    """The rows of a table, in one object or of a manifest, if they have this hash."""
    if not name.endswith(TABLE_SUFFIX):
        dataset = Dataset.from_json(store.root, store.read(name))
        return dataset.frame() if dataset.content_hash == data_hash else None
    rows = pd.DataFrame(decode(name, store.read(name)))
    return rows if content_hash(rows) == data_hash else None


def write_report(store: ObjectStore, report: Report, html: bytes) -> None:
    """Store findings and page; findings that are as they were keep their moment, and nothing changes."""
    name = report_name(report.kind, report.day)
    store.write(html_name(report.kind, report.day), html)
    try:
        before = Report.from_json(store.read(name))
    except (ObjectMissing, ValueError):
        before = None
    if before is None or before.model_copy(update={"created_at": report.created_at}) != report:
        store.write(name, report.to_json())


def html_name(kind: Kind, day: date) -> str:
    """The object name of a day's page."""
    return report_name(kind, day).removesuffix(".json") + ".html"
