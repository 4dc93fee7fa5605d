"""`python -m housing_assets` is the `housing` command."""

from housing_assets.cli import app

app(prog_name="housing")
