"""What a registered version says about itself: Markdown description and searchable tags."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from housing_assets.ml.promotion import Decision
from housing_assets.ml.sweep import BestParams
from housing_serving.features import TARGET

# What databases behind MLflow keep of a description; some refuse a longer one.
MAX_DESCRIPTION = 5_000


@dataclass(frozen=True)
class ModelCard:
    """Everything that identifies one candidate.

    Attributes:
        best: family and hyperparameters, from the sweep.
        test_metrics: the ten metrics on the test set, scored once.
        spatial_metrics: the ten metrics of the cross-validation by whole spatial blocks.
        coverage: share of test prices within their interval.
        interval_level: share the interval is built to cover.
        features: names of the model's input columns.
        snapshot: weekly snapshot it was trained on.
        train_hash: content hash of the training rows.
        test_hash: content hash of the test rows.
        commit: git commit of the code.
        dagster_run_id: the run that registered it.
    """

    best: BestParams
    test_metrics: dict[str, float]
    spatial_metrics: dict[str, float]
    coverage: float
    interval_level: float
    features: tuple[str, ...]
    snapshot: str
    train_hash: str
    test_hash: str
    commit: str
    dagster_run_id: str

    def tags(self) -> dict[str, str]:
        """Searchable tags; metrics at full precision, since a gate may compare them."""
        return {
            "algorithm": self.best.model_type,
            "framework": "scikit-learn",
            "target": TARGET,
            "n_features": str(len(self.features)),
            "snapshot": self.snapshot,
            "data_hash": self.train_hash,
            "test_set_id": self.test_hash,
            "git_commit": self.commit,
            "sweep_id": self.best.sweep_id,
            "interval_coverage": repr(self.coverage),
            "deployment_alias": "staging",
            **{name: repr(float(value)) for name, value in self.test_metrics.items()},
            **{f"cv_{name}": repr(float(value)) for name, value in self.best.metrics.items()},
            **{f"spatial_cv_{name}": repr(float(value)) for name, value in self.spatial_metrics.items()},
        }

    def description(self, bundle_uri: str) -> str:
        """What the version is, in Markdown."""
        settings = "\n".join(f"| `{k}` | {v} |" for k, v in sorted(self.best.hyperparameters.items()))
        metrics = "\n".join(
            f"| {name} | {value:,.4f} | {self.best.metrics[name]:,.4f} | {self.spatial_metrics[name]:,.4f} |"
            for name, value in self.test_metrics.items()
        )
        return (
            f"## {self.best.model_type}, snapshot {self.snapshot}\n\n"
            f"Predicts `{TARGET}` in 1990 US dollars per census block group.\n\n"
            f"| hyperparameter | value |\n|---|---|\n{settings}\n\n"
            "The test set was scored once, after every choice was made on training rows; "
            "the cross-validation column is what the choice was made by. For the last column, whole squares "
            "of the map were held out: it tells the error in places without known neighbours.\n\n"
            f"| metric | test set | cross-validation | spatial blocks |\n|---|---|---|---|\n{metrics}\n\n"
            f"{self.interval_level:.0%} intervals cover {self.coverage:.1%} of the test prices.\n\n"
            f"Features ({len(self.features)}): {', '.join(f'`{name}`' for name in self.features)}\n\n"
            f"Bundle: `{bundle_uri}`\n\nTraining rows `{self.train_hash[:16]}`, commit `{self.commit[:12]}`, "
            f"Dagster run `{self.dagster_run_id}`\n"
        )

    def page(self, bundle_uri: str, decision: Decision, report_uri: str) -> str:
        """The description and the report on the promotion, of which only the outcome where space is short."""
        description, report = self.description(bundle_uri), f"Report: `{report_uri}`\n"
        whole = f"{description}\n{decision.to_markdown()}\n{report}"
        return whole if len(whole) <= MAX_DESCRIPTION else f"{description}\n{decision.summary()}\n{report}"


def git_commit() -> str:
    """Commit of the code that runs: of the image, or the checkout; `unknown` elsewhere."""
    built_from = os.environ.get("GIT_COMMIT")
    if built_from:
        return built_from
    command = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(  # noqa: S603
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=10
        )
    except FileNotFoundError:
        return "unknown"
    return found.stdout.strip() if found.returncode == 0 else "unknown"
