"""Results of benchmarks in pages of prose: `<!-- benchmark: NAME -->` becomes its tables."""

import json
import re
from pathlib import Path

from docs_build.markdown import table

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
MARK = re.compile(r"^<!-- benchmark: (\w+) -->$", re.MULTILINE)


def with_results(text: str) -> str:
    """A page with the tables in the place of its marks.

    Raises:
        FileNotFoundError: no result of that name is there.
    """
    return MARK.sub(lambda mark: result_text(mark[1]), text)


def result_text(name: str) -> str:
    """The tables of one benchmark, and when, where and from which commit they were measured.

    Raises:
        ValueError: it was measured on a few rows only.
    """
    kept = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    if kept["quick"]:
        raise ValueError(f"benchmarks/results/{name}.json was measured with --quick: measure it whole")
    parts = []
    for one in kept["tables"]:
        parts += [f"**{one['title']}**", table(one["columns"], one["rows"]), one["note"]]
    day = kept["measured_at"][:10]
    parts.append(f"*Measured on {day} at commit `{kept['commit']}`: {kept['machine']}.*")
    return "\n\n".join(part for part in parts if part)
