"""Files of the prediction log: columns as Parquet, stored whole or not at all in a folder or a bucket."""

import io
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import numpy as np
from arro3.core import Array, DataType, RecordBatch, Table
from arro3.io import write_parquet

from housing_serving.answers import AnswerBatch
from housing_serving.features import CATEGORICAL_FEATURE, NULLABLE_FEATURE, NUMERIC_FEATURES
from housing_serving.settings import ServingSettings

if TYPE_CHECKING:
    from google.cloud import storage

PREFIX = "monitoring/predictions"
# Encoding holds the interpreter's lock: less than a millisecond for so many rows, then others get a turn.
ROW_GROUP_ROWS = 500
# So much work is done at a time, and others get four times as long before it goes on.
WORK_SECONDS = 0.0003
TURN_PER_WORK = 4.0
# Elsewhere values hardly repeat, and a dictionary costs a third of the time and makes the file larger.
REPEATING = frozenset({"model_version", CATEGORICAL_FEATURE, "level"})
# To connect, and between two pieces of an answer.
GCS_TIMEOUT_SECONDS = (5.0, 10.0)


class WriteFailed(Exception):
    """A file could not be stored; the message says where and what to do."""


@dataclass(frozen=True)
class PredictionFile:
    """A file that is ready to be stored; its name is its own for ever, so it can be stored again."""

    name: str
    rows: int
    data: bytes


class Turns:
    """Work in the background that leaves the event loop most of the interpreter's lock."""

    def __init__(self) -> None:
        # There is nobody to wait for once the service ends.
        self.hurry = False
        self._resumed = time.perf_counter()

    def begin(self) -> None:
        """Work begins after a wait."""
        self._resumed = time.perf_counter()

    def offer(self) -> None:
        """Let others run if the work since the last time was long, and longer than it was."""
        worked = time.perf_counter() - self._resumed
        if worked > WORK_SECONDS and not self.hurry:
            time.sleep(TURN_PER_WORK * worked)
            self.begin()


def record_batch(batch: AnswerBatch) -> RecordBatch:
    """The rows as Arrow columns, null bedrooms as null."""
    text = DataType.utf8()
    moments = np.rint(batch.answered_at * 1e6).astype("datetime64[us]")
    columns: dict[str, Array] = {
        "request_id": Array(batch.request_id.tolist(), text),
        "instance": Array.from_numpy(batch.instance),
        "answered_at": Array.from_numpy(moments).cast(DataType.timestamp("us", tz="UTC")),
        "latency_ms": Array.from_numpy(batch.latency_seconds * 1e3),
        "model_version": Array(batch.model_version.tolist(), text),
    }
    for name in NUMERIC_FEATURES:
        values = batch.columns[name]
        if name == NULLABLE_FEATURE:
            nullable = values.astype(object)
            nullable[np.isnan(values)] = None
            columns[name] = Array(nullable.tolist(), DataType.float64())
        else:
            columns[name] = Array.from_numpy(np.ascontiguousarray(values))
    columns[CATEGORICAL_FEATURE] = Array(batch.columns[CATEGORICAL_FEATURE].tolist(), text)
    columns["predicted_price"] = Array.from_numpy(batch.price)
    columns["lower"] = Array.from_numpy(batch.lower)
    columns["upper"] = Array.from_numpy(batch.upper)
    columns["level"] = Array.from_numpy(batch.level)
    return RecordBatch.from_arrays(list(columns.values()), names=list(columns))


class _YieldingBuffer(io.BytesIO):
    """Collects what an encoder writes, and lets other threads run in between."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]
        """Append a piece of what was encoded."""
        self._turns.offer()
        return super().write(data)


def prediction_file(day: date, batches: Sequence[RecordBatch], turns: Turns) -> PredictionFile:
    """The rows of one day as a new file."""
    table = Table.from_batches(batches)
    buffer = _YieldingBuffer(turns)
    write_parquet(
        table,
        buffer,
        # As small as with zstd here, in a quarter of the time.
        compression="snappy",
        column_dictionary_enabled={name: name in REPEATING for name in table.column_names},
        max_row_group_size=ROW_GROUP_ROWS,
    )
    written_at = time.strftime("%H%M%S", time.gmtime())
    name = f"{PREFIX}/{day.isoformat()}/{written_at}-{uuid4().hex}.parquet"
    return PredictionFile(name, table.num_rows, buffer.getvalue())


class PredictionStorage(Protocol):
    """Where files of the prediction log are kept."""

    uri: str

    def prepare(self) -> None:
        """Do what takes its time once, before there is traffic."""

    def store(self, file: PredictionFile) -> None:
        """Store a file whole or not at all; storing it twice is storing it once.

        Raises:
            WriteFailed: it could not be stored.
        """


def prediction_storage(settings: ServingSettings) -> PredictionStorage:
    """The storage root of the deployment."""
    if settings.housing_deployment == "gcp":
        # The settings refuse this deployment without a bucket.
        return BucketStorage(str(settings.gcs_bucket_name), settings.gcp_project_id)
    return FolderStorage((settings.housing_home / "storage").resolve())


class FolderStorage:
    """A storage root that is a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.uri = f"{root}/{PREFIX}"

    def prepare(self) -> None:
        """Nothing takes its time."""

    def store(self, file: PredictionFile) -> None:
        """Write beside the file's place, then move it there."""
        path = self._root / file.name
        unfinished = path.with_name(f".{path.name}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                unfinished.write_bytes(file.data)
                os.replace(unfinished, path)  # noqa: PTH105  (says that an existing file is replaced)
            except OSError:
                unfinished.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise WriteFailed(
                f"{self.uri} cannot be written ({error.strerror}): check the disk and its permissions"
            ) from error


class BucketStorage:
    """A storage root that is a Google Cloud Storage bucket."""

    def __init__(self, bucket: str, project: str | None) -> None:
        self._bucket = bucket
        self._project = project
        self._client: storage.Client | None = None
        self.uri = f"gs://{bucket}/{PREFIX}"

    def prepare(self) -> None:
        """Import Google's client, most of a second that would be felt under traffic."""
        import google.cloud.storage  # noqa: F401, PLC0415

    def store(self, file: PredictionFile) -> None:
        """Upload in one checksummed request; the caller retries."""
        from google.api_core import exceptions as api  # noqa: PLC0415
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
        from google.cloud.storage.exceptions import DataCorruption  # noqa: PLC0415

        try:
            self._connected().bucket(self._bucket).blob(file.name).upload_from_string(
                file.data,
                content_type="application/vnd.apache.parquet",
                checksum="crc32c",
                if_generation_match=0,
                timeout=GCS_TIMEOUT_SECONDS,
                retry=None,
            )
        except api.PreconditionFailed:
            # Nobody else uses this name: an earlier attempt got through and its answer was lost.
            return
        except api.NotFound as error:
            raise WriteFailed(
                f"bucket {self._bucket} does not exist: create it, or set GCS_BUCKET_NAME to another"
            ) from error
        except (api.Forbidden, api.Unauthorized) as error:
            raise WriteFailed(
                f"{self.uri} is forbidden: grant this service account roles/storage.objectCreator"
                f" on the bucket {self._bucket}"
            ) from error
        except (GoogleAuthError, OSError) as error:
            raise WriteFailed(
                f"{self.uri} cannot be reached: check the network and the Google credentials"
            ) from error
        except (api.GoogleAPIError, DataCorruption) as error:
            raise WriteFailed(f"{self.uri} cannot be written: the storage keeps failing") from error

    def _connected(self) -> "storage.Client":
        from google.cloud import storage  # noqa: PLC0415

        if self._client is None:
            # The client would ask for the bucket's metadata in a thread of its own, for traces nobody
            # collects; that request needs a permission a writer of objects does not have.
            os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
            self._client = storage.Client(project=self._project)
        return self._client
