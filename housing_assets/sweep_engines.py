"""Which engine runs a sweep: W&B where a key is set, else Optuna, on this machine or on a cluster."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import dagster as dg
from pydantic import Field

from housing_assets.engines import LOCAL, Engine, engine_at
from housing_assets.ml.families import Params
from housing_assets.ml.selection import Fold, FoldScore, score_folds
from housing_assets.ml.sweep import run_sweep
from housing_assets.ml.sweep_results import SweepEngine
from housing_assets.wandb_sweep import WandbTarget, run_wandb_sweep

EngineName = Literal["auto", "optuna", "wandb"]


class SweepResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The engines of the sweep, with the values of the deployment."""

    folder: str = Field(description="Keeps Optuna's studies, so that a killed sweep resumes.")
    wandb_project: str
    wandb_entity: str | None = None
    wandb_online: bool = False
    wandb_folder: str
    compute: str = Field(default=LOCAL, description="Who fits Optuna's trials: local, or dask://host:port.")

    def engine(self, name: EngineName, n_processes: int) -> SweepEngine:
        """The engine of that name, working in so many processes of this machine; `auto` goes by the key.

        Optuna's trials go to the workers of a cluster where one is set, however many they are.

        Raises:
            ValueError: W&B is asked for by name, and there is no key.
        """
        if name == "optuna" or (name == "auto" and not self.wandb_online):
            kept = partial(run_sweep, folder=Path(self.folder))
            if self.compute == LOCAL:
                return partial(kept, n_processes=n_processes)
            return partial(kept, elsewhere=partial(score_on, engine_at(self.compute)))
        if not self.wandb_online:
            raise ValueError("engine wandb needs a key: set WANDB_API_KEY, or engine to auto or optuna")
        target = WandbTarget(self.wandb_project, self.wandb_entity, Path(self.wandb_folder))
        return partial(run_wandb_sweep, target=target, n_processes=n_processes)


def score_on(engine: Engine, family: str, tasks: Sequence[tuple[Params, Fold]], seed: int) -> list[FoldScore]:
    """Fit and score each setting on its fold, one by one, by whoever is free; as `score_folds` does."""
    return engine.map(partial(_score_one, family, seed), tasks)


def _score_one(family: str, seed: int, task: tuple[Params, Fold]) -> FoldScore:
    [score] = score_folds(family, [task], seed)
    return score
