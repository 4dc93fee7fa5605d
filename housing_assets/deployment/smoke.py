"""One request to a service, compared with what the bundle itself answers."""

from dataclasses import dataclass

import numpy as np
import requests

from housing_serving.bundle import Bundle
from housing_serving.features import CATEGORICAL_FEATURE, NUMERIC_FEATURES

TIMEOUT_SECONDS = 10.0
# As `registration` asks of bundle and pipeline.
TOLERANCE_DOLLARS = 0.01
# A block group in the Berkeley hills, the first row of the published table.
EXAMPLE: dict[str, float | str] = {
    "longitude": -122.23,
    "latitude": 37.88,
    "housing_median_age": 41,
    "total_rooms": 880,
    "total_bedrooms": 129,
    "population": 322,
    "households": 126,
    "median_income": 8.3252,
    "ocean_proximity": "NEAR BAY",
}


@dataclass(frozen=True)
class SmokeResult:
    """What came of asking a service for one price."""

    passed: bool
    # Whether anybody answered at all.
    reached: bool
    text: str


def smoke(url: str, bundle: Bundle, api_key: str | None = None) -> SmokeResult:
    """Ask for one price; version and price must be the bundle's."""
    try:
        answer = requests.post(
            f"{url.rstrip('/')}/api/v1/predict",
            json={"instances": [EXAMPLE]},
            headers={"X-API-Key": api_key} if api_key else {},
            timeout=TIMEOUT_SECONDS,
        )
    except requests.RequestException as error:
        return SmokeResult(False, False, f"{url} cannot be reached ({type(error).__name__})")
    if answer.status_code != requests.codes.ok:
        return SmokeResult(False, True, f"{url} answers with status {answer.status_code}")
    body = answer.json()
    version, expected = str(bundle.manifest.model_version), expected_price(bundle)
    found = float(body["predictions"][0]["predicted_price"])
    if body["model_version"] != version or not abs(found - expected) <= TOLERANCE_DOLLARS:
        return SmokeResult(
            False,
            True,
            f"{url} answers ${found:,.2f} by version {body['model_version']}, not ${expected:,.2f} by "
            f"version {version}",
        )
    return SmokeResult(True, True, f"{url} answers ${found:,.2f} by version {version}, as its bundle does")


def expected_price(bundle: Bundle) -> float:
    """The bundle's own answer to the example, in dollars."""
    columns = {name: np.array([float(EXAMPLE[name])]) for name in NUMERIC_FEATURES}
    category = np.array([EXAMPLE[CATEGORICAL_FEATURE]], dtype=object)
    return float(bundle.predict({**columns, CATEGORICAL_FEATURE: category}).price[0])
