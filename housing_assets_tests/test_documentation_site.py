"""The documentation site: built and read without a network, strict about links, its reference complete."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer
import yaml
from playwright.sync_api import expect, sync_playwright

from docs_build import results_page, settings_page
from docs_build.assets_page import GROUPS, assets_of, assets_page, definitions, specs_in_order
from docs_build.bundle_page import bundle_page
from docs_build.command_page import command_page
from docs_build.http_page import http_page
from docs_build.metrics_page import RULES, metrics_page
from housing_assets.cli import app
from housing_assets.settings import Settings
from housing_assets_tests.command_line import REPOSITORY
from housing_assets_tests.system_programs import require
from housing_serving.app import create_app
from housing_serving.manifest import BundleManifest
from housing_serving.settings import ServingSettings
from housing_serving.webapp.settings import WebappSettings

# Every connection but one inside of this machine is an error, so nothing can be fetched unseen.
BUILD = """import socket, sys
def refuse(self, address):
    raise SystemExit(f"the build asks {address}")
socket.socket.connect = refuse
from mkdocs.__main__ import cli
cli(sys.argv[1:])
"""
ELSEWHERE = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//", re.I)
# Left alone, Chromium asks its vendor for updates; no name but the loopback address resolves here.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
WITH_DIAGRAMS = ("architecture", "alerts", "monitoring", "releasing", "how-to/drift", "reference/assets")
EDGE = re.compile(r"(\w+)((?: --> \w+)+)")


def build(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", BUILD, "build", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from this checkout."""
    folder = tmp_path_factory.mktemp("site")
    done = build("--site-dir", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The site behind a web server."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_site_is_built_without_a_network(site: Path) -> None:
    pages = {str(page.relative_to(site)) for page in site.rglob("*.html")}
    assert {"index.html", "tutorial.html", "how-to/your-data.html", "reference/settings.html"} <= pages
    assert [name for name in pages if ELSEWHERE.search((site / name).read_text())] == []


@pytest.mark.timeout(300)
def test_diagrams_are_drawn_and_no_page_asks_another_server(address: str) -> None:
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require("chromium"), args=CHROMIUM_ARGUMENTS)
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: asked.append(request.url))
        for name in WITH_DIAGRAMS:
            page.goto(f"{address}/{name}.html")
            # The theme draws into a closed shadow root, in place of the source.
            expect(page.locator("pre.mermaid")).to_have_count(0, timeout=60_000)
            drawn = page.locator("div.mermaid").first
            expect(drawn).to_be_visible(timeout=60_000)
            size = drawn.bounding_box()
            assert size is not None
            assert size["height"] > 50, name
        page.goto(f"{address}/tutorial.html")
        page.wait_for_load_state("networkidle")
        browser.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


@pytest.mark.parametrize("link", ["nowhere.md", "#no-such-heading", "images/none.png"])
def test_a_broken_link_ends_the_build(tmp_path: Path, link: str) -> None:
    ours = (REPOSITORY / "mkdocs.yml").read_text()
    validation = yaml.safe_load(ours[ours.index("validation:") : ours.index("nav:\n")])
    config = {"site_name": "Broken", "strict": True, "theme": "mkdocs", "plugins": [], **validation}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Here\n\n[there]({link})\n")
    done = build("--config-file", str(tmp_path / "mkdocs.yml"))
    assert done.returncode != 0
    assert link.removeprefix("#") in done.stderr
    assert yaml.safe_load(ours[ours.index("strict:") :].splitlines()[0]) == {"strict": True}


def test_the_reference_of_settings_names_every_variable() -> None:
    text = settings_page.settings_page()
    names = {str(field.validation_alias) for field in Settings.model_fields.values()}
    names |= {name.upper() for name in (*ServingSettings.model_fields, *WebappSettings.model_fields)}
    assert {name for name in names if f"| `{name}` |" not in text} == set()
    assert "| `HOUSING_CANARY_PERCENT` | number, above 0, below 100 | `10.0` | pipeline |" in text
    assert "| `HOUSING_DEPLOYMENT` | `local` or `gcp` | `local` | pipeline, service |" in text


def test_a_setting_that_the_example_does_not_list_ends_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = tmp_path / ".env.example"
    example.write_text(settings_page.EXAMPLE.read_text().replace("# GCP_REGION=", "# GCP_REGIONS="))
    monkeypatch.setattr(settings_page, "EXAMPLE", example)
    with pytest.raises(ValueError, match="differ in GCP_REGION, GCP_REGIONS"):
        settings_page.settings_page()


def test_the_reference_of_assets_names_everything_dagster_loads() -> None:
    text, loaded = assets_page(), definitions()
    for spec in specs_in_order(loaded):
        assert f"### {spec.key.to_user_string()}\n" in text
    checks = [spec for one in [*assets_of(loaded), *(loaded.asset_checks or [])] for spec in one.check_specs]
    automations = [*(loaded.jobs or []), *(loaded.schedules or []), *(loaded.sensors or [])]
    for name in [spec.name for spec in checks] + [one.name for one in automations]:
        assert f"| `{name}` |" in text
    assert "`data/04-split/{snapshot}/train/train.parquet`" in text
    assert "| `promotion.max_mape` |" in text


def test_the_reference_of_http_and_metrics_names_every_route_metric_and_alert() -> None:
    text = http_page()
    for path, methods in create_app(ServingSettings.model_construct()).openapi()["paths"].items():
        for method in methods:
            assert f"## {method.upper()} {path}\n" in text
    assert "| 429 | `too_many_requests` |" in text
    metrics = metrics_page()
    used = set(re.findall(r"housing_\w+?(?=_bucket\b|\b)", RULES.read_text()))
    assert {name for name in used if f"`{name}`" not in metrics} == set()
    for alert in re.findall(r"alert: (\w+)", RULES.read_text()):
        assert f"runbook.md#{alert.lower()}" in metrics


def test_the_reference_names_every_command_and_every_field_of_a_bundle() -> None:
    text = command_page()
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for path in [name, *(f"{name} {sub}" for sub in getattr(command, "commands", {}))]:
            assert f"## `housing {path}`" in text
    bundle = bundle_page()
    assert {name for name in BundleManifest.model_fields if f"| `{name}` |" not in bundle} == set()


def test_the_drawn_architecture_is_the_graph() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    drawn = {
        pair
        for first, rest in EDGE.findall(page[page.index("```mermaid") : page.index("Assets are partitioned")])
        for pair in zip([first, *rest.split(" --> ")[1:]], rest.split(" --> ")[1:], strict=False)
    }
    specs = specs_in_order(definitions())
    edges = {(d.asset_key.to_user_string(), s.key.to_user_string()) for s in specs for d in s.deps}
    assert drawn == edges
    assert {spec.group_name for spec in specs} == set(GROUPS)


def test_the_claim_in_readme_is_what_was_measured() -> None:
    assert "absolute error is more than a third smaller" in (REPOSITORY / "README.md").read_text()
    kept = json.loads((results_page.RESULTS / "published.json").read_text())
    for one in kept["tables"][:2]:
        [ratio] = [row[one["columns"].index("ratio")] for row in one["rows"] if row[0] == "mae"]
        assert 0.6 < float(ratio) < 2 / 3, one["title"]


def test_results_of_a_quick_benchmark_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = json.loads((results_page.RESULTS / "published.json").read_text())
    (tmp_path / "published.json").write_text(json.dumps({**kept, "quick": True}))
    monkeypatch.setattr(results_page, "RESULTS", tmp_path)
    with pytest.raises(ValueError, match="measure it whole"):
        results_page.with_results("before\n<!-- benchmark: published -->\nafter")
