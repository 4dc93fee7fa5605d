"""The web app without its pages: settings, start, client, and what is known of places."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from housing_assets.sources import packaged_source, parse
from housing_assets_tests.conftest import free_port
from housing_assets_tests.serving.bundles import INSTANCE
from housing_assets_tests.serving.running_service import RunningService, running_service
from housing_serving.features import CATEGORICAL_FEATURE, RAW_FEATURES
from housing_serving.webapp.api import ApiRefused, ApiUnavailable, PriceApi
from housing_serving.webapp.california_map import STEPS, dots
from housing_serving.webapp.places import FILE, known_places
from housing_serving.webapp.settings import WebappSettings
from housing_serving.webapp.texts import ENGLISH
from housing_serving.webapp.values import problems_of
from housing_serving.webapp.watch import ServiceStatus, ServiceWatch

KEY = "k3y-0123456789abcdef"
# Degrees of a place of the file.
PLACE = 0.05


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> RunningService:  # type: ignore[misc]
    """A service that asks for a key."""
    with running_service(tmp_path_factory.mktemp("service"), HOUSING_API_KEYS=KEY) as started:
        yield started


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in WebappSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("clean")
def test_the_api_is_the_one_beside_it_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (WebappSettings.load().api_url, WebappSettings.load().api_key) == ("http://127.0.0.1:8080", None)
    monkeypatch.setenv("PORT", "9000")
    assert WebappSettings.load().api_url == "http://127.0.0.1:9000"
    monkeypatch.setenv("HOUSING_API_URL", "https://prices.example.org/")
    monkeypatch.setenv("HOUSING_API_KEYS", f"{KEY}, another-key-0123456")
    assert (WebappSettings.load().api_url, WebappSettings.load().api_key) == (
        "https://prices.example.org",
        KEY,
    )


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HOUSING_API_URL", "prices.example.org", "HOUSING_API_URL holds 'prices.example.org': set it to"),
        ("WEBAPP_PORT", "0", "WEBAPP_PORT Input should be greater than or equal to 1"),
    ],
)
def test_a_setting_that_cannot_be_ends_the_start(
    variable: str, value: str, message: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "housing_serving.webapp"]
    environment = {**os.environ, variable: value}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 1
    assert f"The web app cannot start:\n  {message}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_client_sends_its_key_and_tells_refusals_from_silence(service: RunningService) -> None:
    api = PriceApi(service.url, KEY)
    assert api.ready_version() == "3"
    assert api.predict([INSTANCE]).predictions[0].predicted_price == 300_000
    assert api.explain(INSTANCE).predicted_price == 300_000
    assert api.model_info().algorithm == "RandomForest"
    assert api.releases().changes == []
    assert api.monitoring().reports == []
    for call, code in (
        (api.evaluation, "not_recorded"),
        (lambda: api.nearest(-122.23, 37.88), "neighbours_unavailable"),
        (lambda: api.predict([{**INSTANCE, "longitude": 0}]), "invalid_request"),
        (PriceApi(service.url).model_info, "unauthorized"),
    ):
        with pytest.raises(ApiRefused) as refused:
            call()
        assert refused.value.error.code == code


def test_nobody_and_somebody_else_at_the_address_are_both_said(service: RunningService) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ApiUnavailable, match="does not answer"):
        PriceApi(nobody).model_info()
    with pytest.raises(ApiUnavailable, match="answers 200 with something else"):
        PriceApi(f"{service.url}/docs?", KEY).model_info()


def test_the_watch_says_how_the_service_stands(service: RunningService) -> None:
    assert ServiceWatch(PriceApi(service.url, KEY)).status() == ServiceStatus("ready", "3")
    nobody = f"http://127.0.0.1:{free_port()}"
    assert ServiceWatch(PriceApi(nobody)).status() == ServiceStatus("unavailable")


def test_places_are_the_medians_of_the_packaged_table() -> None:
    table = parse(packaged_source())
    north = (table["latitude"].astype(float) / PLACE).round().astype(int)
    east = (table["longitude"].astype(float) / PLACE).round().astype(int)
    groups = table.groupby([north.rename("north"), east.rename("east")])
    with (Path(sys.modules[known_places.__module__].__file__ or "").parent / FILE).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == groups.ngroups > 3_000
    for column, digits in (("median_house_value", 0), ("median_income", 2), ("households", 0)):
        expected = groups[column].median().round(digits).to_numpy(dtype=float)
        np.testing.assert_allclose([float(row[column]) for row in rows], expected, atol=1e-9)


def test_what_is_typical_anywhere_can_be_priced() -> None:
    for values in known_places().typical:
        assert set(values) == set(RAW_FEATURES)
        assert problems_of(values, ENGLISH) == []
    assert known_places().typical_near(-119.79, 36.74)[CATEGORICAL_FEATURE] == "INLAND"
    assert known_places().typical_near(-122.5, 37.76)[CATEGORICAL_FEATURE] != "INLAND"


def test_each_price_gets_the_colour_of_its_step() -> None:
    prices = [STEPS[0] - 1, *STEPS]
    drawn = dots([-120.0] * len(prices), [37.0] * len(prices), prices)
    assert len({colour for colour, _ in drawn}) == len(prices)
    assert all(path.count("h0") == 1 for _, path in drawn)


def test_the_extra_has_what_the_web_app_needs() -> None:
    # Of the service, it needs neither the web framework nor the runtime of models.
    code = (
        "import sys; sys.modules |= dict.fromkeys(('fastapi', 'onnxruntime', 'orjson', 'arro3', 'mlflow'));"
        "import housing_serving.webapp.__main__;"
        "from housing_serving.webapp import batch_page, model_page, price_page, session"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
