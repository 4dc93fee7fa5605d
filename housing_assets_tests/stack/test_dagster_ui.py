"""The Dagster UI in a real browser, after the backfill: the graph, an asset with its plots, the partitions.

With `HOUSING_UPDATE_IMAGES=1` the pictures become those of the documentation.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, ViewportSize, expect, sync_playwright

from housing_assets_tests.running_stack import Stack
from housing_assets_tests.stack.conftest import ASSETS, SNAPSHOTS, DisturbedBackfill, updates_images
from housing_assets_tests.system_programs import require

GROUPS = ("data", "preprocessing", "training")
# The plots of `registered_model`, each behind a link of its materialization.
PLOTS = ("feature_importance", "residual_map", "predicted_vs_actual")
LARGEST_PICTURE_BYTES = 400_000
TIMEOUT_MILLISECONDS = 60_000
# The graph draws an asset's state only where a box is large enough for it.
LARGE: ViewportSize = {"width": 2200, "height": 1500}
# Left alone, Chromium asks its vendor for updates; no name but the loopback address resolves here.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
HIDE_NAVIGATION = "localStorage.setItem('dagster-nav-collapsed', 'true')"


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


@pytest.mark.timeout(900)
def test_the_graph_shows_every_asset_in_its_group(
    page: Page, backfill: DisturbedBackfill, images: Path
) -> None:
    expanded = ",".join(f"global@global:{group}" for group in GROUPS)
    page.set_viewport_size(LARGE)
    page.goto(f"/asset-groups?expanded={expanded}")
    graph = page.locator("svg foreignObject")
    expect(graph.get_by_text("raw_housing").first).to_be_visible()
    # Give the graph the whole page, and let it fit itself in again: only then it shows what is in its boxes.
    page.get_by_placeholder("Jump to…").locator("xpath=following::button[1]").click()
    page.mouse.dblclick(LARGE["width"] * 0.2, LARGE["height"] * 0.9)
    for name in (*GROUPS, *ASSETS):
        expect(graph.get_by_text(name, exact=True).first).to_be_visible()
    # Which share some snapshots are depends on how many weeks there have been.
    expect(graph.get_by_text(re.compile(r"^[1-9]\d*% filled$"))).to_have_count(len(ASSETS))
    take_picture(page, images / "asset-graph.png")


@pytest.mark.timeout(900)
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


@pytest.mark.timeout(900)
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
