"""Hook of MkDocs: adds the reference, fills results of benchmarks in, and ships what draws the diagrams.

The site is built from this checkout alone; neither its build nor its reader asks another server.
"""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

from docs_build.assets_page import assets_page
from docs_build.bundle_page import bundle_page
from docs_build.command_page import command_page
from docs_build.http_page import http_page
from docs_build.metrics_page import metrics_page
from docs_build.results_page import with_results
from docs_build.settings_page import settings_page

REFERENCE: Mapping[str, Callable[[], str]] = {
    "reference/settings.md": settings_page,
    "reference/http.md": http_page,
    "reference/assets.md": assets_page,
    "reference/bundle.md": bundle_page,
    "reference/metrics.md": metrics_page,
    "reference/command-line.md": command_page,
}
MERMAID = "assets/javascripts/mermaid.js"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the reference, and mermaid, which the theme would fetch from elsewhere."""
    for path, page in REFERENCE.items():
        files.append(File.generated(config, path, content=page()))
    files.append(File.generated(config, MERMAID, abs_src_path=str(mermaid_script())))
    return files


def mermaid_script() -> Path:
    """Mermaid for browsers, as the package mermaidx carries it."""
    spec = importlib.util.find_spec("mermaidx")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("mermaidx is not installed: install the extra docs")
    return Path(spec.origin).parent / "assets" / "mermaid.js"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Fill results in."""
    return with_results(markdown)


def on_page_context(
    context: dict[str, object],
    page: Page,
    config: MkDocsConfig,  # noqa: ARG001
    nav: Navigation,  # noqa: ARG001
) -> dict[str, object]:
    """Load mermaid, some megabytes, only where there is a diagram."""
    context["has_diagrams"] = 'class="mermaid"' in (page.content or "")
    return context
