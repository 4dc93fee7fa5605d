"""`housing doctor`: what is wrong with this set-up, and how to mend it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from housing_assets.command_help import epilog

if TYPE_CHECKING:
    from housing_assets.doctor.findings import Finding

EPILOG = epilog(
    ("housing doctor", "when something does not work, and before asking anybody"),
    ("housing doctor --json", "for programs: a list of check, status, text and mend"),
    done="nothing is wrong; there may be warnings",
    failed="1: something is wrong",
)
MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "error": "[bold red]✗[/]"}
console = Console(highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print the findings as a JSON list.")]


def doctor(as_json: JsonOption = False) -> None:
    """Check every setting and what it refers to, and say how to mend what is wrong.

    Looks at Python and packages, settings, folder, disk, ports, processes, storage, MLflow, W&B, the model in
    service, the Dagster instance, and the channels of alerts. Nothing is changed.
    """
    from housing_assets.doctor.examination import examine  # noqa: PLC0415  (seconds to import)

    if as_json:
        findings = list(examine())
        typer.echo(json.dumps([asdict(one) for one in findings], indent=2))
    else:
        with console.status("looking"):
            findings = list(examine())
        _show(findings)
    if any(one.status == "error" for one in findings):
        raise typer.Exit(1)


def _show(findings: "Sequence[Finding]") -> None:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    for one in findings:
        mend = f"\n[bold]→ {escape(one.mend)}[/]" if one.mend else ""
        table.add_row(MARKS[one.status], one.check, escape(one.text) + mend)
    console.print(table)
    wrong = sum(one.status == "error" for one in findings)
    doubtful = sum(one.status == "warning" for one in findings)
    if any(one.check == "settings" and one.status == "error" for one in findings):
        console.print("The rest is looked at once the settings are valid.")
    console.print(f"{wrong} to mend, {doubtful} to look at" if wrong or doubtful else "Nothing is wrong.")
