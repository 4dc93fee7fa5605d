"""The Dagster UI in a real browser, after the backfill: looking around, and what people do there by clicking.

With `HOUSING_UPDATE_IMAGES=1` the pictures become those of the documentation.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Locator, Page, ViewportSize, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from housing_assets_tests.running_stack import Stack, wait_for
from housing_assets_tests.stack.conftest import ASSETS, SNAPSHOTS, DisturbedBackfill, updates_images
from housing_assets_tests.stack.released import MODEL, deployed
from housing_assets_tests.system_programs import require

GROUPS = ("data", "preprocessing", "training", "serving", "batch", "monitoring")
# What the backfill leaves alone: the deployment is the sensor's, and nobody has asked for a price yet.
OTHERS = ("api_deployment", "batch_predictions", "prediction_log", "drift_report", "performance_report")
# The range of a backfill by hand: two weeks take two runs, which tells as much as more.
CLICKED = SNAPSHOTS[:2]
# The plots of `registered_model`, each behind a link of its materialization.
PLOTS = ("feature_importance", "residual_map", "predicted_vs_actual")
LARGEST_PICTURE_BYTES = 400_000
TIMEOUT_MILLISECONDS = 60_000
# The graph draws an asset's state only where a box is large enough for it.
LARGE: ViewportSize = {"width": 1500, "height": 1760}
# Left alone, Chromium asks its vendor for updates; no name but the loopback address resolves here.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
HIDE_NAVIGATION = "localStorage.setItem('dagster-nav-collapsed', 'true')"
# From left to right the graph is so wide that a page of documentation makes its text too small to read.
DOWNWARDS = """localStorage.setItem('asset-graph-direction', '"vertical"')"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Where pictures go."""
    if updates_images():
        return Path(__file__).parents[2] / "docs" / "images"
    return tmp_path


@pytest.fixture
def page(stack: Stack) -> Iterator[Page]:
    """A page of a headless Chromium, at the address of the webserver."""
    program = require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(
            base_url=f"http://127.0.0.1:{stack.dagster_port}", viewport={"width": 1600, "height": 1000}
        )
        page.add_init_script(HIDE_NAVIGATION)
        page.set_default_timeout(TIMEOUT_MILLISECONDS)
        expect.set_options(timeout=TIMEOUT_MILLISECONDS)
        yield page
        browser.close()


def take_picture(page: Page, path: Path) -> None:
    """Save what the page shows."""
    page.wait_for_load_state("networkidle")
    page.screenshot(path=path, animations="disabled")
    assert 20_000 < path.stat().st_size < LARGEST_PICTURE_BYTES


def test_the_graph_shows_every_asset_in_its_group(
    page: Page, backfill: DisturbedBackfill, images: Path
) -> None:
    expanded = ",".join(f"global@global:{group}" for group in GROUPS)
    page.add_init_script(DOWNWARDS)
    page.set_viewport_size(LARGE)
    page.goto(f"/asset-groups?expanded={expanded}")
    graph = page.locator("svg foreignObject")
    expect(graph.get_by_text("raw_housing").first).to_be_visible()
    # Give the graph the whole page, and let it fit itself in again: only then it shows what is in its boxes.
    page.get_by_placeholder("Jump to…").locator("xpath=following::button[1]").click()
    page.mouse.dblclick(LARGE["width"] * 0.3, LARGE["height"] * 0.9)
    for name in (*GROUPS, *ASSETS, *OTHERS):
        expect(graph.get_by_text(name, exact=True).first).to_be_visible()
    # Which share some snapshots are depends on how many weeks there have been.
    expect(graph.get_by_text(re.compile(r"^[1-9]\d*% filled$"))).to_have_count(len(ASSETS))
    take_picture(page, images / "asset-graph.png")


def test_the_page_of_the_model_shows_its_plots(page: Page, backfill: DisturbedBackfill, images: Path) -> None:
    page.goto("/assets/registered_model?view=events")
    for plot in PLOTS:
        row = page.locator("tr").filter(has=page.get_by_text(plot, exact=True))
        row.get_by_text("Show Markdown").click()
        picture = page.get_by_role("img", name=plot.replace("_", " "))
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.naturalWidth") >= 1000
        if plot == "residual_map":
            take_picture(page, images / "asset-page.png")
        page.get_by_role("button", name="Close").click()
        expect(picture).to_have_count(0)


def test_the_partitions_page_shows_what_the_backfill_has_filled(
    page: Page, backfill: DisturbedBackfill, images: Path
) -> None:
    page.goto("/assets/registered_model?view=partitions")
    expect(page.get_by_text(f"Materialized ({len(SNAPSHOTS)})")).to_be_visible()
    expect(page.get_by_text("Failed (0)")).to_be_visible()
    page.get_by_text("Missing (").click()
    expect(page.get_by_text(f"{len(SNAPSHOTS)} Partitions Selected")).to_be_visible()
    for snapshot in SNAPSHOTS:
        expect(page.get_by_text(snapshot, exact=True).first).to_be_visible()
    page.get_by_text(SNAPSHOTS[-1], exact=True).first.click()
    expect(page.get_by_role("cell", name="interval_coverage")).to_be_visible()
    take_picture(page, images / "partitions.png")


def test_one_asset_is_materialized_by_clicking(page: Page, stack: Stack, backfill: DisturbedBackfill) -> None:
    before = set(stack.runs())
    chosen = choose_partitions(page, "featured_housing", SNAPSHOTS[0])
    chosen.get_by_role("button", name="Launch 1 run").click()
    [run_id] = wait_for("the run", lambda: launched_since(stack, before), 60)
    assert stack.wait_for_end(run_id, 600)["status"] == "SUCCESS"
    assert stack.runs()[run_id]["steps"] == {
        "featured_housing": "SUCCESS",
        "featured_housing_featured_rows_are_valid": "SUCCESS",
    }
    page.goto(f"/runs/{run_id}")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    page.goto(f"/assets/featured_housing?view=partitions&partition={SNAPSHOTS[0]}")
    expect(page.get_by_role("link", name=run_id[:8]).first).to_be_visible()


def test_a_backfill_is_launched_by_clicking(page: Page, stack: Stack, backfill: DisturbedBackfill) -> None:
    before = set(stack.runs())
    chosen = choose_partitions(page, "featured_housing", f"[{CLICKED[0]}...{CLICKED[-1]}]")
    chosen.get_by_role("button", name="Launch backfill").click()
    wait_for("a run for each week", lambda: len(launched_since(stack, before)) == len(CLICKED), 600)
    runs = launched_since(stack, before)
    assert {stack.wait_for_end(run_id, 600)["status"] for run_id in runs} == {"SUCCESS"}
    assert sorted(stack.runs()[run_id]["tags"]["dagster/partition"] for run_id in runs) == list(CLICKED)
    [backfill_id] = {stack.runs()[run_id]["tags"]["dagster/backfill"] for run_id in runs}
    wait_for("its end", lambda: stack.backfill(backfill_id)["status"] == "COMPLETED_SUCCESS", 300)
    page.goto(f"/runs/b/{backfill_id}")
    expect(page.get_by_text("Completed").first).to_be_visible()


def test_a_sensor_is_turned_on_and_says_in_its_tick_why_it_did_nothing(
    page: Page, stack: Stack, backfill: DisturbedBackfill
) -> None:
    page.goto("/locations/housing/sensors/train_on_new_snapshot")
    expect(page.get_by_text("When a snapshot appears at HOUSING_SOURCE_URI")).to_be_visible()
    switch = page.locator("tr").filter(has_text="Running").locator("label")
    switch.click()
    expect(switch.get_by_role("checkbox")).to_be_checked()
    tick = page.locator("tr").filter(has_text="View logs").first
    reason = page.get_by_text("new snapshots cannot be seen at the packaged table")

    def is_told_by_pointing_at_the_tick() -> bool:
        # The page refreshes itself, and takes what the pointer has opened away with it.
        page.mouse.move(0, 0)
        tick.get_by_text("0 runs requested").first.hover()
        with contextlib.suppress(PlaywrightTimeoutError):
            reason.wait_for(timeout=2_000)
        return reason.is_visible()

    wait_for("the reason", is_told_by_pointing_at_the_tick, 60)
    switch.click()
    expect(switch.get_by_role("checkbox")).not_to_be_checked()


def test_a_training_is_followed_to_the_version_that_answers(
    page: Page, stack: Stack, backfill: DisturbedBackfill, images: Path
) -> None:
    wait_for("a deployment", lambda: deployed(stack), 120)
    version = deployed(stack)[-1]
    snapshot = stack.mlflow_client().get_model_version(MODEL, str(version)).tags["snapshot"]

    page.goto(f"/assets/registered_model?view=partitions&partition={snapshot}")
    expect(row_of(page, "model_version")).to_contain_text(str(version))
    expect(row_of(page, "promotion")).to_contain_text("promote")
    expect(page.get_by_role("link", name=f"/#/models/{MODEL}/versions/{version}")).to_be_visible()

    page.goto("/locations/housing/sensors/redeploy_api_on_new_model")
    expect(page.get_by_text("won the promotion gate").first).to_be_visible()

    page.goto("/assets/api_deployment?view=events")
    expect(row_of(page, "model_version")).to_contain_text(str(version))
    take_picture(page, images / "deployment.png")
    address = page.get_by_role("link", name="/docs").get_attribute("href")
    page.get_by_text("Materialized in run").get_by_role("link").click()
    expect(page.get_by_text("Launched by")).to_be_visible()
    page.get_by_text("View tags and config").click()
    expect(page.get_by_text(f"housing/model_version: {version}")).to_be_visible()

    assert address == f"http://127.0.0.1:{stack.port}/docs"
    served = requests.get(f"http://127.0.0.1:{stack.port}/api/v1/model/info", timeout=10).json()
    assert served["model_version"] == str(version)


def choose_partitions(page: Page, asset: str, text: str) -> Locator:
    """The dialog of *Materialize* on an asset's page, with these partitions chosen."""
    page.goto(f"/assets/{asset}")
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Show all partitions").click()
    chosen = dialog.get_by_role("textbox").first
    chosen.fill(text)
    chosen.press("Enter")
    return dialog


def launched_since(stack: Stack, before: set[str]) -> list[str]:
    """Runs of people: what the sensor deploys meanwhile is none."""
    return [
        run_id
        for run_id, run in stack.runs().items()
        if run_id not in before and run["tags"].get("housing/kind") != "deployment"
    ]


def row_of(page: Page, name: str) -> Locator:
    """The line of one metadata entry."""
    return page.locator("tr").filter(has=page.get_by_text(name, exact=True))
