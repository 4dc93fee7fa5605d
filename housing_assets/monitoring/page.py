"""A report as one HTML page that needs nothing but itself: no script, no other server."""

import base64

import jinja2
import pandas as pd

from housing_assets.ml.report import StepReport
from housing_assets.monitoring.findings import Report

# Rows of a table; what is more is counted.
MAX_ROWS = 200


def page(title: str, facts: str, report: Report, step: StepReport) -> bytes:
    """The page: findings first, then figures and tables. The same report gives the same bytes.

    Args:
        title: of the page.
        facts: a sentence on what was looked at.
        report: the findings.
        step: tables and figures.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("housing_assets.monitoring", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.j2").render(
        title=title,
        facts=facts,
        report=report,
        figures={name: base64.b64encode(png).decode() for name, png in step.figures.items()},
        tables={name: _table(frame) for name, frame in step.tables.items()},
    )
    return text.encode()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def _table(frame: pd.DataFrame) -> str:
    if frame.empty:
        return "<p>None.</p>"
    text = frame.head(MAX_ROWS).to_html(
        index=False, border=0, na_rep="", justify="unset", float_format=_number
    )
    more = len(frame) - MAX_ROWS
    return text + (f"<p>… and {more:,} more rows</p>" if more > 0 else "")
