"""`python -m housing_serving.webapp`: the web app on WEBAPP_PORT, asking the API at HOUSING_API_URL.

Everything is set by the environment (and `.env`): see `.env.example`.
"""

import argparse
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from pydantic import ValidationError

from housing_serving.webapp.settings import WebappSettings

# As Streamlit names them. Nothing is sent to anybody, and nothing is loaded from elsewhere.
OPTIONS = {
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.toolbarMode": "minimal",
    "server.fileWatcherType": "none",
    "server.headless": "true",
    "server.maxUploadSize": "20",
    "theme.headingFontSizes": '["2.25rem", "1.5rem", "1.25rem"]',
    "theme.metricValueFontSize": "1.75rem",
    "theme.paddingTop": "1.5rem",
    # The browser chooses between the two; text on each of these colours has a contrast of 4.5 or more.
    "theme.light.primaryColor": "#0b6070",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#eef3f5",
    "theme.light.textColor": "#0a1317",
    "theme.light.linkColor": "#0b6070",
    "theme.dark.primaryColor": "#63c7d6",
    "theme.dark.backgroundColor": "#10181c",
    "theme.dark.secondaryBackgroundColor": "#1c282e",
    "theme.dark.textColor": "#e8eff2",
    "theme.dark.linkColor": "#63c7d6",
}

# Importing what the pages need takes seconds, which would otherwise be the first visitor's.
IMPORTED_FIRST = tuple(f"housing_serving.webapp.{page}_page" for page in ("price", "batch", "model"))


def main() -> None:
    """Serve until stopped."""
    argparse.ArgumentParser(prog="python -m housing_serving.webapp", description=__doc__).parse_args()
    if find_spec("streamlit") is None:
        sys.exit("The web app cannot start: install its extra, pip install 'housing-assets[webapp]'")
    try:
        settings = WebappSettings.load()
    except ValidationError as error:
        problems = "".join(
            f"\n  {str(problem['loc'][0]).upper()} {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        )
        sys.exit(f"The web app cannot start:{problems}")
    options = OPTIONS | {"server.address": settings.host, "server.port": str(settings.webapp_port)}
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    script = Path(__file__).with_name("app.py")
    for module in IMPORTED_FIRST:
        import_module(module)
    streamlit_cli = import_module("streamlit.web.cli")
    streamlit_cli.main(["run", str(script), *flags], prog_name="streamlit")


if __name__ == "__main__":
    main()
