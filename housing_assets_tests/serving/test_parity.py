"""What training answers is what the service answers: every row of both data files, alone and in batches."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import requests
import uvloop
from sklearn.pipeline import Pipeline

from benchmarks.models import PUBLISHED_FOREST, exported, fitted
from benchmarks.rows import training_rows
from housing_assets.ml.cleaning import process
from housing_assets.ml.training import predict
from housing_assets.sources import fetch, packaged_source, parse
from housing_assets_tests.command_line import HOUSING_CSV
from housing_assets_tests.serving.bundles import write_files
from housing_assets_tests.serving.running_service import running_service
from housing_serving.features import RAW_FEATURES, FloatArray

DOLLARS = 0.01
CONNECTIONS = 16
ROWS = 20_640
BATCH = 1000


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    """A forest with an imputer inside, as it is released."""
    return fitted(training_rows(), "RandomForest", PUBLISHED_FOREST)


@pytest.fixture(scope="module")
def url(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that serves it."""
    folder = tmp_path_factory.mktemp("parity")
    bundle = write_files(folder / "exported", exported(pipeline, training_rows()))
    with running_service(folder, LOCAL_MODEL_PATH=str(bundle), HOUSING_PREDICTION_LOG="false") as service:
        yield service.url


@pytest.fixture(scope="module", params=["packaged table", "published file"])
def rows(request: pytest.FixtureRequest) -> pd.DataFrame:
    """All rows of a data file, some of them without bedrooms."""
    if request.param == "packaged table":
        source = packaged_source()
    elif HOUSING_CSV.exists():
        source = fetch(str(HOUSING_CSV))
    else:
        pytest.skip(f"{HOUSING_CSV} is absent: it may not be committed")
    frame = process(parse(source)).frame
    assert len(frame) == ROWS
    assert frame["total_bedrooms"].isna().sum() == 207
    return frame


@pytest.mark.parametrize("bedrooms", ["as published", "all null"])
def test_every_row_is_priced_as_the_pipeline_prices_it(
    url: str, pipeline: Pipeline, rows: pd.DataFrame, bedrooms: str
) -> None:
    if bedrooms == "all null":
        rows = rows.assign(total_bedrooms=np.nan)
    expected = predict(pipeline, rows)
    instances = rows[list(RAW_FEATURES)].astype(object).where(rows.notna(), None).to_dict("records")

    alone = uvloop.run(_priced_alone(url, instances))

    assert _largest_difference(alone, expected) <= DOLLARS
    in_batches = _priced_in_batches(url, instances)
    assert _largest_difference(in_batches, expected) <= DOLLARS
    # More than is asked for: the same bits, whatever else is in the batch.
    np.testing.assert_array_equal(in_batches, alone)


def _largest_difference(priced: Sequence[float], expected: FloatArray) -> float:
    return float(np.abs(np.array(priced) - expected).max())


def _priced_in_batches(url: str, instances: Sequence[dict[str, Any]]) -> list[float]:
    prices: list[float] = []
    with requests.Session() as session:
        for start in range(0, len(instances), BATCH):
            body = {"instances": instances[start : start + BATCH]}
            response = session.post(f"{url}/api/v1/predict", json=body, timeout=30)
            assert response.status_code == 200, response.text
            prices += [answer["predicted_price"] for answer in response.json()["predictions"]]
    return prices


async def _priced_alone(url: str, instances: Sequence[dict[str, Any]]) -> list[float]:
    """One request per row, over several connections at once: what comes together is priced together."""
    prices = [np.nan] * len(instances)
    rows = iter(enumerate(instances))
    address = urlsplit(url)

    async def ask_one_after_the_other() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for row, instance in rows:
            body = json.dumps({"instances": [instance]}).encode()
            writer.write(
                b"POST /api/v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            (answer,) = json.loads(await reader.readexactly(length))["predictions"]
            prices[row] = answer["predicted_price"]
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(ask_one_after_the_other())
    return prices
