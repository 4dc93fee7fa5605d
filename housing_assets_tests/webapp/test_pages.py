"""The web app in a real browser, with a real API on a trained model: what people do, and what goes wrong.

With `HOUSING_UPDATE_IMAGES=1` the pictures become those of the documentation.
"""

import csv
import io
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from housing_assets.sources import packaged_source, parse
from housing_assets_tests.system_programs import require
from housing_assets_tests.webapp.running_webapp import Api, running_webapp, write_storage
from housing_serving.features import RAW_FEATURES
from housing_serving.neighbours import LONGITUDE_SCALE
from housing_serving.webapp.california_map import NORTH, SCALE, WEST
from housing_serving.webapp.places import known_places
from housing_serving.webapp.price_page import BERKELEY
from housing_serving.webapp.values import money

UPDATES_IMAGES = os.environ.get("HOUSING_UPDATE_IMAGES") == "1"
PATIENCE_MILLISECONDS = 60_000
LARGEST_PICTURE_BYTES = 400_000
DESK = (1280, 1760)
PHONE = (390, 844)
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
FRESNO = (-119.79, 36.74)
PRICE = re.compile(r"^\$\d{2,3},\d{3}$")
BAD = {
    13: ("longitude", "0"),
    700: ("median_income", "high"),
    1400: ("population", ""),
    2100: ("ocean_proximity", "LAKE"),
    2800: ("households", "-3"),
    3500: ("latitude", "99"),
    4999: ("total_rooms", ""),
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API that serves version 1, as it was released."""
    api = Api(tmp_path_factory.mktemp("webapp") / "home")
    write_storage(api.home / "storage", *((20_640, 300) if UPDATES_IMAGES else (3_000, 40)))
    try:
        api.start()
        api.release(1)
        yield api
    finally:
        api.stop()


@pytest.fixture(scope="module")
def url(api: Api) -> Iterator[str]:
    """Where the web app is."""
    with running_webapp(api.home.parent, api.url) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = require("chromium")
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def visiting(
    browser: Browser, url: str, path: str = "/", size: tuple[int, int] = DESK, **options: Any
) -> Iterator[Page]:
    """A visitor with a new browser, whose page asks nobody but the web app and reports no error."""
    context = browser.new_context(
        base_url=url, viewport={"width": size[0], "height": size[1]}, locale="en-US", **options
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    problems: list[str] = []

    def note_request(address: str) -> None:
        if not address.startswith((f"{url}/", "data:", "blob:", f"ws{url.removeprefix('http')}/")):
            problems.append(f"a request to {address}")

    page.on("request", lambda request: note_request(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(path)
    try:
        yield page
        assert problems == []
    finally:
        context.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The page that prices one block group."""
    with visiting(browser, url) as page:
        expect(price_of(page)).to_have_text(PRICE)
        yield page


def price_of(page: Page) -> Locator:
    return page.get_by_test_id("stMetricValue").first


def settled(page: Page) -> None:
    """Return when the page has run for the latest change, and all its parts are loaded."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)


def take_picture(page: Page, name: str, tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "docs" / "images" if UPDATES_IMAGES else tmp_path
    settled(page)
    path = folder / name
    page.screenshot(path=path, animations="disabled")
    assert 20_000 < path.stat().st_size < LARGEST_PICTURE_BYTES


def field(page: Page, label: str) -> Locator:
    return page.get_by_label(label, exact=True)


def enter(page: Page, label: str, value: str) -> None:
    """Enter a value as a person does: when the page has come to rest."""
    settled(page)
    field(page, label).fill(value)
    field(page, label).press("Enter")


def click_on_map(page: Page, longitude: float, latitude: float) -> None:
    """Click the spot of a place, wherever the drawing is on the screen."""
    drawn = [(longitude - WEST) * LONGITUDE_SCALE * SCALE, (NORTH - latitude) * SCALE]
    spot = page.get_by_role("application").evaluate(
        """(map, [x, y]) => {
            const spot = new DOMPoint(x, y).matrixTransform(map.getScreenCTM());
            return [spot.x, spot.y];
        }""",
        drawn,
    )
    page.mouse.click(*spot)


def asked_price(api: Api, values: Any) -> str:
    answer = requests.post(f"{api.url}/api/v1/predict", json={"instances": [values]}, timeout=30).json()
    return money(answer["predictions"][0]["predicted_price"])


def test_a_place_on_the_map_is_priced_explained_and_compared(page: Page, api: Api, tmp_path: Path) -> None:
    take_picture(page, "webapp-price.png", tmp_path)
    click_on_map(page, *FRESNO)

    longitude, latitude = field(page, "Longitude (°)"), field(page, "Latitude (°)")
    expect(longitude).to_have_value(re.compile(r"^-119\.(78|79|80)$"))
    expect(latitude).to_have_value(re.compile(r"^36\.7[345]$"))
    place = float(longitude.input_value()), float(latitude.input_value())
    values = {**known_places().typical_near(*place), "longitude": place[0], "latitude": place[1]}
    price = asked_price(api, values)
    expect(price_of(page)).to_have_text(price)
    expect(page.get_by_text("With a probability of 90%")).to_be_visible()
    expect(page.get_by_text("Answered by model version 1.")).to_be_visible()
    expect(page.get_by_text(f"together they make {price}")).to_be_visible()
    expect(page.get_by_text("The 10 nearest block groups have a median price of")).to_be_visible()
    for name in ("Next to its neighbours", "What makes this price"):
        expect(page.get_by_role("heading", name=name)).to_be_visible()
    page.get_by_text("The same as a table").last.click()
    expect(page.get_by_role("row", name=re.compile("^Median income"))).to_be_visible()


def test_the_map_is_used_by_keyboard(page: Page) -> None:
    page.get_by_role("application").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    expect(field(page, "Longitude (°)")).to_have_value("-122.13")
    expect(field(page, "Latitude (°)")).to_have_value("37.93")
    expect(page.get_by_text("37.93° N, 122.13° W")).to_be_visible()


def test_ratios_follow_what_is_entered_and_examples_replace_it(page: Page) -> None:
    ratio = page.get_by_test_id("stMetric").filter(has_text="Rooms per household")
    expect(ratio).to_contain_text("6.98")
    enter(page, "Households", "440")
    expect(ratio).to_contain_text("2.00")
    before = price_of(page).inner_text()
    page.get_by_role("button", name="Fresno").click()
    expect(field(page, "Households")).to_have_value("420")
    expect(price_of(page)).not_to_have_text(before)
    expect(field(page, "Bedrooms in all homes")).to_have_value("")


def test_a_wrong_value_is_named_at_its_field_and_costs_nothing(page: Page) -> None:
    enter(page, "Median income ($10,000 a year)", "500")
    error = page.get_by_role("alert").filter(has_text="at most 100")
    expect(error).to_be_visible()
    place, beside = field(page, "Median income ($10,000 a year)").bounding_box(), error.bounding_box()
    assert place is not None
    assert beside is not None
    assert 0 < beside["y"] - place["y"] < 150
    assert beside["x"] <= place["x"] < beside["x"] + beside["width"]
    expect(page.get_by_text("There is a price as soon as")).to_be_visible()
    expect(page.get_by_text("Median home price")).to_have_count(0)

    enter(page, "Median income ($10,000 a year)", "4")
    expect(price_of(page)).to_have_text(PRICE)
    expect(error).to_have_count(0)
    expect(field(page, "Households")).to_have_value("126")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5,000 rows, seven of them wrong, and a column of the visitor's own."""
    rows = parse(packaged_source())[list(RAW_FEATURES)].sample(5_000, random_state=1).astype(object)
    rows["note"] = [f"row {number}" for number in range(len(rows))]
    for position, (column, value) in BAD.items():
        rows.iloc[position, rows.columns.get_loc(column)] = value
    path = tmp_path_factory.mktemp("tables") / "block groups.csv"
    rows.to_csv(path, index=False)
    return path


def test_of_5000_rows_7_are_shown_and_4993_priced(
    browser: Browser, url: str, api: Api, table: Path, tmp_path: Path
) -> None:
    with visiting(browser, url, "/batch") as page:
        page.locator("input[type=file]").set_input_files(table)
        expect(page.get_by_text("Rows that can be priced: 4,993.")).to_be_visible()
        expect(page.get_by_text("Rows that cannot be priced: 7.")).to_be_visible()
        shown = page.get_by_role("table").first.get_by_role("row")
        expect(shown).to_have_count(1 + len(BAD))
        for number, (column, value) in BAD.items():
            row = shown.filter(has_text=re.compile(rf"^\s*{number + 1:,}"))
            expect(row).to_contain_text(f"({column})")
            expect(row).to_contain_text(value)
        page.get_by_role("button", name="Price the rows (4,993)").click()
        button = page.get_by_role("button", name="Download the results as CSV")
        expect(button).to_be_visible()
        expect(page.get_by_test_id("stMetric").filter(has_text="Rows priced")).to_contain_text("4,993")
        take_picture(page, "webapp-batch.png", tmp_path)
        problems_of_access(page)
        with page.expect_download() as download:
            button.click()
        text = Path(download.value.path()).read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["note"] for row in rows] == [f"row {number}" for number in range(5_000)]
    assert {number for number, row in enumerate(rows) if not row["predicted_price"]} == set(BAD)
    assert all(bool(row["problem"]) == (number in BAD) for number, row in enumerate(rows))
    priced = rows[0]
    assert priced["model_version"] == str(api.version())
    assert float(priced["lower"]) <= float(priced["predicted_price"]) <= float(priced["upper"])
    values = {name: float(priced[name]) for name in RAW_FEATURES[:-1] if priced[name]}
    assert money(float(priced["predicted_price"])) == asked_price(
        api, {**values, "ocean_proximity": priced["ocean_proximity"]}
    )


def test_a_file_that_is_no_table_is_refused_with_what_to_do(
    browser: Browser, url: str, tmp_path: Path
) -> None:
    file = tmp_path / "homes.csv"
    file.write_text("longitude,latitude\n-122,37\n")
    with visiting(browser, url, "/batch") as page:
        page.locator("input[type=file]").set_input_files(file)
        expect(page.get_by_role("alert").filter(has_text="These columns are missing")).to_contain_text(
            "housing_median_age, total_rooms, population"
        )


def test_the_page_goes_on_by_itself_when_the_api_hangs_or_is_down(page: Page, api: Api) -> None:
    status = page.get_by_text("The service does not answer")
    enter(page, "Households", "130")
    with api.frozen():
        expect(status).to_be_visible()
        # The page itself does not hang.
        page.get_by_text("Español").click()
        expect(page.get_by_text("El servicio no responde")).to_be_visible()
        page.get_by_text("English").click()
        expect(status).to_be_visible()
        expect(page.get_by_text("This page goes on by itself")).to_be_visible()
    expect(page.get_by_text("Answered by model version")).to_be_visible()

    api.stop()
    expect(status).to_be_visible()
    enter(page, "People", "400")
    expect(page.get_by_test_id("stMetric").filter(has_text="People per household")).to_contain_text("3.08")
    api.start()
    expect(page.get_by_text("Answered by model version")).to_be_visible()
    expect(page.get_by_text("The service answers again.")).to_be_visible()
    expect(field(page, "Households")).to_have_value("130")
    expect(field(page, "People")).to_have_value("400")


def test_a_release_in_mid_session_is_shown_and_breaks_nothing(page: Page, api: Api) -> None:
    before = api.version()
    after = 3 - before
    enter(page, "Households", "140")
    expect(page.get_by_text(f"Answered by model version {before}.")).to_be_visible()
    price = asked_price(api, {**BERKELEY, "households": 140})
    expect(price_of(page)).to_have_text(price)
    api.release(after)
    expect(page.get_by_text(f"Ready · version {after}")).to_be_visible()
    expect(page.get_by_text(f"The model changed from version {before} to version {after}")).to_be_visible()
    expect(page.get_by_text(f"Answered by model version {after}.")).to_be_visible()
    expect(price_of(page)).to_have_text(price)
    expect(field(page, "Households")).to_have_value("140")


def test_the_model_page_says_what_the_api_says(browser: Browser, url: str, api: Api, tmp_path: Path) -> None:
    info = requests.get(f"{api.url}/api/v1/model/info", timeout=10).json()
    report = requests.get(f"{api.url}/api/v1/model/evaluation", timeout=10).json()
    with visiting(browser, url, "/model") as page:
        metrics = page.get_by_test_id("stMetric")
        expect(metrics.filter(has_text="Algorithm")).to_contain_text(info["algorithm"])
        expect(metrics.filter(has_text="Version")).to_contain_text(info["model_version"])
        expect(page.get_by_role("row", name="R²")).to_contain_text(f"{info['metrics']['r2']:.4g}")
        expect(page.get_by_role("row", name="inland")).to_contain_text(
            f"{next(one['mae'] for one in report['segments'] if one['name'] == 'INLAND'):,.0f}"
        )
        expect(page.get_by_role("row", name=re.compile("version 1 released")).last).to_contain_text("ann")
        expect(page.get_by_text("2026-11-21: findings in 20,640 predictions: 1.")).to_be_visible()
        expect(page.get_by_text("median_income was 18 % higher than in training")).to_be_visible()
        assert not re.search("random.?forest", page.content(), re.IGNORECASE)
        take_picture(page, "webapp-model.png", tmp_path)
        problems_of_access(page)


def problems_of_access(page: Page) -> None:
    """Fail on what axe-core finds serious or critical."""
    settled(page)
    found = Axe().run(page).response["violations"]
    grave = [
        f"{rule['impact']} {rule['id']}: {[node['html'] for node in rule['nodes']]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]
    assert grave == []


def test_on_a_phone_everything_fits(browser: Browser, url: str, tmp_path: Path) -> None:
    with visiting(browser, url, size=PHONE, has_touch=True, is_mobile=True) as page:
        expect(price_of(page)).to_have_text(PRICE)
        expect(page.get_by_role("heading", name="What makes this price")).to_be_visible()
        widest = page.evaluate(
            "Math.max(...[...document.querySelectorAll('[data-testid=stMain] *')]"
            ".map((one) => one.getBoundingClientRect().right))"
        )
        assert widest <= PHONE[0] + 1
        take_picture(page, "webapp-phone.png", tmp_path)
        problems_of_access(page)
        price_of(page).scroll_into_view_if_needed()
        take_picture(page, "webapp-phone-price.png", tmp_path)


@pytest.mark.parametrize("path", ["/", "/batch", "/model"])
def test_in_the_dark_everything_can_be_read(browser: Browser, url: str, path: str, tmp_path: Path) -> None:
    with visiting(browser, url, path, color_scheme="dark") as page:
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        if path != "/batch":
            expect(page.get_by_test_id("stMetricValue").first).to_be_visible()
        assert page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor") == (
            "rgb(16, 24, 28)"
        )
        if path == "/":
            take_picture(page, "webapp-price-dark.png", tmp_path)
        problems_of_access(page)


def test_in_spanish_everything_is_spanish(browser: Browser, url: str, tmp_path: Path) -> None:
    with visiting(browser, url, "/?lang=es") as page:
        expect(page.get_by_role("heading", name="¿Cuánto vale aquí una vivienda?")).to_be_visible()
        expect(price_of(page)).to_have_text(PRICE)
        expect(page.locator("html")).to_have_attribute("lang", "es")
        enter(page, "Hogares", "0")
        expect(page.get_by_role("alert").filter(has_text="como mínimo 1")).to_be_visible()
        enter(page, "Hogares", "126")
        expect(page.get_by_text("Con una probabilidad de 90%")).to_be_visible()
        take_picture(page, "webapp-price-es.png", tmp_path)
        problems_of_access(page)
        page.get_by_text("English").click()
        expect(page.get_by_role("heading", name="What is a home worth here?")).to_be_visible()
        expect(page.locator("html")).to_have_attribute("lang", "en")
        assert page.url.endswith("lang=en")


def test_in_the_light_nothing_is_in_the_way(page: Page) -> None:
    problems_of_access(page)


def test_the_first_page_is_usable_soon(browser: Browser, url: str) -> None:
    started = time.monotonic()
    with visiting(browser, url) as page:
        expect(price_of(page)).to_have_text(PRICE)
        seconds = time.monotonic() - started
    # Shown by `pytest -rP`.
    sys.stdout.write(f"a price is on the page after {seconds:.1f} s\n")
    # Three on a quiet machine; this one may have much else to do.
    assert seconds < 60
