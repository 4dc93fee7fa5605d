"""The chosen model and the published forest: both fitted on the same rows, and scored on the same others.

Three ways to hold rows out: the stable hash split of the asset graph, the published system's own random
split, and whole blocks of the map. Family and setting are chosen anew on each split's training rows, as the
asset graph chooses them with its default budget.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.measuring import Progress
from benchmarks.models import fitted
from benchmarks.rows import raw_table
from housing_assets.ml.cleaning import add_row_features, process
from housing_assets.ml.cross_validation import spatial_cross_validation
from housing_assets.ml.published import (
    SEED,
    TEST_FRACTION,
    Comparison,
    compare_with_forest,
    fit_published_forest,
    published_split,
)
from housing_assets.ml.search_spaces import load_search_spaces
from housing_assets.ml.selection import FAMILIES, compare_families, prepare_folds
from housing_assets.ml.split import split
from housing_assets.ml.splitters import BLOCK_DEGREES, shuffled_blocks, spatial_blocks
from housing_assets.ml.sweep import run_sweep
from housing_assets.ml.training import predict
from housing_serving.features import TARGET

FOLDS, SPATIAL_FOLDS = 3, 5
Sides = tuple[pd.DataFrame, pd.DataFrame]


@dataclass(frozen=True)
class PublishedScale:
    """How much is compared.

    Attributes:
        rows: how many of the table, spread evenly since they are sorted by place; None: all.
        families: to choose from.
        trials: budget of the search, for each split.
    """

    rows: int | None
    families: Sequence[str]
    trials: int


FULL = PublishedScale(None, FAMILIES, 8)
QUICK = PublishedScale(400, ("Ridge", "DecisionTree"), 2)


@dataclass(frozen=True)
class Choice:
    """A family and its setting."""

    family: str
    hyperparameters: Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """One way to hold rows out: what it is, what was chosen, and how it compares."""

    title: str
    choice: Choice
    comparison: Comparison


def measure(source: str, scale: PublishedScale, progress: Progress) -> list[Measured]:
    """Compare on both splits, and in new places.

    Args:
        source: Location of the table.
        scale: How much is compared.
        progress: Told what is done.
    """
    raw = raw_table(source, scale.rows)
    frame = add_row_features(process(raw).frame)
    splits: dict[str, Callable[[], Sides]] = {
        f"Stable hash split, {TEST_FRACTION:.0%}": lambda: split(frame, TEST_FRACTION),
        f"Random split, {TEST_FRACTION:.0%}, seed {SEED}": lambda: published_split(frame, raw),
    }
    measured = []
    for title, sides in splits.items():
        train, test = sides()
        choice = choose(train, scale)
        progress(f"{title}: {choice.family} {dict(choice.hyperparameters)}")
        measured.append(
            Measured(f"{title}: {len(test):,} test rows", choice, on_test_rows(train, test, choice))
        )
        progress(f"{title}: RMSE ratio {measured[-1].comparison.ratios['rmse']:.3f}")
    train, _ = split(frame, TEST_FRACTION)
    title = f"Whole blocks of {BLOCK_DEGREES:g} degrees: {len(train):,} training rows, {SPATIAL_FOLDS} folds"
    return [*measured, Measured(title, measured[0].choice, in_new_places(train, measured[0].choice))]


def choose(train: pd.DataFrame, scale: PublishedScale) -> Choice:
    """The winner among the families, and the best setting found for it: by training rows alone."""
    folds = prepare_folds(train, FOLDS, SEED)
    selection = compare_families(folds, scale.families, seed=SEED)
    found = run_sweep(
        folds,
        selection.winner,
        load_search_spaces()[selection.winner],
        n_trials=scale.trials,
        seed=SEED,
        study_name="benchmark",
        start_from=selection.best_params[selection.winner],
    )
    return Choice(selection.winner, found.best_params.hyperparameters)


def on_test_rows(train: pd.DataFrame, test: pd.DataFrame, choice: Choice) -> Comparison:
    """Both models fitted on the training rows, and scored on the test rows."""
    ours = predict(fitted(train, choice.family, choice.hyperparameters), test)
    theirs = predict(fit_published_forest(train), test)
    return compare_with_forest(test[TARGET].to_numpy(dtype=np.float64), ours, theirs)


def in_new_places(train: pd.DataFrame, choice: Choice) -> Comparison:
    """Both models scored on blocks of which they know no row."""
    ours = spatial_cross_validation(train, choice.family, choice.hyperparameters, n_folds=SPATIAL_FOLDS)
    folds = list(shuffled_blocks(train, SPATIAL_FOLDS, SEED))
    theirs = [predict(fit_published_forest(train.iloc[known]), train.iloc[held]) for known, held in folds]
    order = np.concatenate([held for _, held in folds])
    return compare_with_forest(
        ours.actual, ours.predicted, np.concatenate(theirs), clusters=spatial_blocks(train)[order]
    )
