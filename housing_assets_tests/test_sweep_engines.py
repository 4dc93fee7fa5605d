"""The sweep on a cluster: the trials of this machine, and none is lost with a worker that is killed."""

from collections import Counter
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from housing_assets.sweep_engines import SweepResource, score_on
from housing_assets_tests.dask_cluster import KillingEngine, dask_cluster
from housing_assets_tests.ml.test_sweep_processes import (
    TRIALS,
    boosting_sweep,
    journal_of,
    scored_folds,
)


def test_a_cluster_that_loses_a_worker_finds_what_this_machine_finds(tmp_path: Path) -> None:
    here = boosting_sweep(None)
    victims = tmp_path / "victims"
    victims.mkdir()
    with dask_cluster(tmp_path) as cluster:
        engine = KillingEngine(cluster, victims, ["_score_one"])
        there = boosting_sweep(tmp_path / "study", elsewhere=partial(score_on, engine))
        assert sum(worker.poll() is None for worker in cluster.workers) == 1
    assert there.best_params == here.best_params
    pd.testing.assert_frame_equal(
        there.trials.drop(columns="seconds"), here.trials.drop(columns="seconds"), check_exact=True
    )
    assert set(scored_folds(journal_of(tmp_path)).values()) == {1}
    assert Counter(there.trials["number"]) == dict.fromkeys(range(TRIALS), 1)


@pytest.mark.parametrize(
    ("compute", "expected"), [("local", "n_processes"), ("dask://scheduler:8786", "elsewhere")]
)
def test_who_fits_is_a_value(tmp_path: Path, compute: str, expected: str) -> None:
    resource = SweepResource(
        folder=str(tmp_path), wandb_project="x", wandb_folder=str(tmp_path), compute=compute
    )
    engine = resource.engine("auto", 2)
    assert isinstance(engine, partial)
    assert set(engine.keywords) == {"folder", expected}
