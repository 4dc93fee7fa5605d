"""What a step has to tell: parameters, metrics, tables and figures, free of any tracker.

The same report becomes Dagster metadata, an MLflow run and a W&B run.
"""

from dataclasses import dataclass, field

import pandas as pd

Param = str | int | float | bool | None


@dataclass(frozen=True)
class StepReport:
    """The outcome of one step.

    Attributes:
        params: settings that produced the outcome, by name.
        metrics: figures that chart over runs, by name.
        tables: small tables for people, by name.
        figures: PNG images, by name.
        texts: small text files (YAML, JSON, Markdown), by file name.
    """

    params: dict[str, Param] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, bytes] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
