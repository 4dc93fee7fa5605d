"""Which engine runs a sweep: W&B where a key is set, Optuna on this machine everywhere else."""

from functools import partial
from pathlib import Path
from typing import Literal

import dagster as dg
from pydantic import Field

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

    def engine(self, name: EngineName, n_processes: int) -> SweepEngine:
        """The engine of that name, working in so many processes; `auto` goes by the key.

        Raises:
            ValueError: W&B is asked for by name, and there is no key.
        """
        if name == "optuna" or (name == "auto" and not self.wandb_online):
            return partial(run_sweep, folder=Path(self.folder), n_processes=n_processes)
        if not self.wandb_online:
            raise ValueError("engine wandb needs a key: set WANDB_API_KEY, or engine to auto or optuna")
        target = WandbTarget(self.wandb_project, self.wandb_entity, Path(self.wandb_folder))
        return partial(run_wandb_sweep, target=target, n_processes=n_processes)
