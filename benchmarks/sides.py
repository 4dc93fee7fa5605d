"""The service and its peers: how each is started on the same fitted model, asked, and checked.

What is measured is elsewhere; here nothing is timed.
"""

import http
import http.client
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from benchmarks.measuring import MeasurementRefused
from benchmarks.processes import HOST, Command, Server
from housing_serving.features import CATEGORICAL_FEATURE, NUMERIC_FEATURES, RAW_FEATURES, FloatArray

OURS = "ours"
EMPTY = "empty handler"
REFERENCE = "published design"
MLSERVER = "MLServer"
# Names an interpreter that has mlserver, mlserver-sklearn and, of the locked versions, what a pipeline needs:
# MLServer's requirements do not fit into this environment.
MLSERVER_PYTHON = "MLSERVER_PYTHON"
REPOSITORY = Path(__file__).parent.parent
# Dollars.
TOLERANCE = 0.01
ANSWER_SECONDS = 60.0
# Different bodies of each batch size; as many as there are rows for.
MOST_BODIES = 4_000

Record = Mapping[str, Any]


def _body(records: Sequence[Record]) -> bytes:
    return json.dumps({"instances": records}).encode()


def _prices(answer: Any) -> list[float]:  # noqa: ANN401 (JSON)
    return [prediction["predicted_price"] for prediction in answer["predictions"]]


@dataclass(frozen=True)
class Side:
    """One server to measure.

    Attributes:
        name: in the table.
        module: short, names its files.
        command: how to start it.
        knows_prices: False for the server that answers without a model.
        path: where predictions are asked for.
        body: the request for some block groups.
        prices: the prices in an answer.
    """

    name: str
    module: str
    command: Command
    knows_prices: bool = True
    path: str = "/api/v1/predict"
    body: Callable[[Sequence[Record]], bytes] = field(default=_body)
    prices: Callable[[Any], list[float]] = field(default=_prices)


def sides(pipeline: Pipeline, bundle: Mapping[str, bytes], folder: Path) -> list[Side]:
    """Ours first, then every peer that is there.

    Args:
        pipeline: Fitted.
        bundle: Its bundle, content by file name.
        folder: Where the files that the servers load are written.
    """
    stored = folder / "pipeline.joblib"
    joblib.dump(pipeline, stored)
    bundle_folder = folder / "bundle"
    bundle_folder.mkdir()
    for name, content in bundle.items():
        (bundle_folder / name).write_bytes(content)
    found = [_ours(bundle_folder, folder / "home"), empty(), _reference(stored)]
    interpreter = os.environ.get(MLSERVER_PYTHON)
    return [*found, _mlserver(interpreter, stored, folder / "mlserver-settings")] if interpreter else found


def _ours(bundle: Path, home: Path) -> Side:
    """The service with its defaults: request log, metrics and prediction log are on."""
    environment = {"PORT": "{port}", "LOCAL_MODEL_PATH": str(bundle), "HOUSING_HOME": str(home)}
    return Side(OURS, "ours", Command([sys.executable, "-m", "housing_serving"], environment))


def empty() -> Side:
    """The server without a model."""
    return Side(EMPTY, "empty", _peer("empty"), knows_prices=False)


def _reference(pipeline: Path) -> Side:
    return Side(REFERENCE, "reference", _peer("reference", str(pipeline)))


def _peer(module: str, *arguments: str) -> Command:
    return Command(
        [sys.executable, "-m", f"benchmarks.servers.{module}", "{port}", *arguments],
        {"PYTHONPATH": str(REPOSITORY)},
    )


def _mlserver(interpreter: str, pipeline: Path, folder: Path) -> Side:
    """Its scikit-learn runtime, asked with the columns of a frame."""
    folder.mkdir()
    model = {
        "name": "housing",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(pipeline)},
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    # One port is known to be free; the others are left to the system. One process, like every other side.
    settings = {
        "host": HOST,
        "debug": False,
        "grpc_port": 0,
        "metrics_port": 0,
        "parallel_workers": 0,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    program = "import sys; from mlserver.cli import main; sys.argv[0] = 'mlserver'; main()"
    environment = {"MLSERVER_HTTP_PORT": "{port}", "PYTHONPATH": str(REPOSITORY)}
    return Side(
        MLSERVER,
        "mlserver",
        Command([interpreter, "-c", program, "start", str(folder)], environment, "/v2/health/ready"),
        path="/v2/models/housing/infer",
        body=_columnwise,
        prices=lambda answer: answer["outputs"][0]["data"],
    )


def _columnwise(records: Sequence[Record]) -> bytes:
    """The request in the Open Inference Protocol: a tensor per column."""
    shape = [len(records), 1]
    numbers = [
        {"name": name, "shape": shape, "datatype": "FP64", "data": [record[name] for record in records]}
        for name in NUMERIC_FEATURES
    ]
    category = {
        "name": CATEGORICAL_FEATURE,
        "shape": shape,
        "datatype": "BYTES",
        "parameters": {"content_type": "str"},
        "data": [record[CATEGORICAL_FEATURE] for record in records],
    }
    return json.dumps({"parameters": {"content_type": "pd"}, "inputs": [*numbers, category]}).encode()


def records(rows: pd.DataFrame) -> list[Record]:
    """Rows as a client would send them: bedrooms that are not known are null."""
    found: list[Record] = json.loads(rows[list(RAW_FEATURES)].to_json(orient="records", double_precision=15))
    return found


def write_bodies(
    asked: Sequence[Record], batch: int, folder: Path, body: Callable[[Sequence[Record]], bytes] = _body
) -> Path:
    """A file with a request body of so many block groups on every line."""
    path = folder / f"bodies-{batch}"
    path.write_bytes(b"\n".join(body(chunk) for chunk in chunks(asked, batch)))
    return path


def chunks(asked: Sequence[Record], batch: int) -> list[Sequence[Record]]:
    """As many batches as there are rows for, up to `MOST_BODIES`."""
    count = min(len(asked) // batch, MOST_BODIES)
    return [asked[number * batch : (number + 1) * batch] for number in range(count)]


def post(server: Server, path: str, body: bytes) -> tuple[int, bytes]:
    """Status and content of one answer."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def insist_on_right_answers(
    side: Side, server: Server, asked: Sequence[Record], expected: FloatArray
) -> None:
    """Ask once, and compare with the pipeline.

    Raises:
        MeasurementRefused: the answer is no success, has another number of prices, or another price.
    """
    try:
        status, content = post(server, side.path, side.body(asked))
    except OSError as error:
        server.insist_on_running()
        raise MeasurementRefused(f"{side.name} does not answer: {error}") from error
    if status != http.HTTPStatus.OK:
        raise MeasurementRefused(f"{side.name}: status {status} for {len(asked)} rows: {content[:200]!r}")
    try:
        prices = np.array(side.prices(json.loads(content)), dtype=np.float64)
    except (ValueError, LookupError, TypeError) as error:
        raise MeasurementRefused(f"{side.name}: no prices in {content[:200]!r}") from error
    if prices.shape != expected.shape:
        raise MeasurementRefused(f"{side.name}: {prices.size} prices for {len(asked)} rows")
    if side.knows_prices and (off := np.abs(prices - expected).max()) > TOLERANCE:
        raise MeasurementRefused(f"{side.name}: a price differs by ${off:,.2f} from the pipeline's")
