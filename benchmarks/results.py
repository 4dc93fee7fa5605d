"""Printed tables kept as JSON, for the documentation: what was measured, when, at which commit, on what."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

REPOSITORY = Path(__file__).parents[1]


def save(folder: Path, benchmark: str, tables: Sequence[Table], *, quick: bool) -> Path:
    """Write the tables of one benchmark to `<benchmark>.json` in a folder; returns the file.

    Args:
        folder: Created if it does not exist.
        benchmark: What was measured.
        tables: As they were printed.
        quick: Whether it was measured on a few rows only.
    """
    content = {
        "benchmark": benchmark,
        "quick": quick,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": f"{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}",
        "tables": [as_data(table) for table in tables],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{benchmark}.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def as_data(table: Table) -> dict[str, Any]:
    """Title, note, header and rows of a table of texts."""
    return {
        "title": str(table.title or ""),
        "note": str(table.caption or ""),
        "columns": [str(column.header) for column in table.columns],
        "rows": [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)],
    }


def commit() -> str:
    """The commit that is measured, marked where files differ from it; `unknown` outside of a checkout."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
