"""A forest's threads leave the process with the warning filters that it had."""

import warnings

import numpy as np
from sklearn import config_context, get_config
from sklearn.utils.parallel import Parallel, delayed

from housing_assets.ml.families import build_estimator


def test_tasks_in_threads_see_the_process_s_own_filters() -> None:
    kept = warnings.filters
    seen = Parallel(2, prefer="threads")(delayed(lambda: warnings.filters)() for _ in range(4))
    assert all(filters is kept for filters in seen)


def test_growing_a_forest_leaves_the_filters_as_they_were() -> None:
    kept, names = warnings.filters, list(warnings.filters)
    matrix = np.random.default_rng(0).normal(size=(50, 4))
    build_estimator("RandomForest", {"n_estimators": 100}, seed=1).fit(matrix, matrix[:, 0])
    assert warnings.filters is kept
    assert warnings.filters == names


def test_scikit_learn_s_settings_still_reach_the_tasks() -> None:
    with config_context(working_memory=17):
        seen = Parallel(2, prefer="threads")(delayed(get_config)() for _ in range(4))
    assert {settings["working_memory"] for settings in seen} == {17}
