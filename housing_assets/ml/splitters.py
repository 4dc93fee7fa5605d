"""How training rows are dealt into folds: row by row, or by whole squares of the map.

A splitter takes the rows, the number of folds and a seed, and gives for each fold the positions of the rows
to fit on and of those to score.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold

Positions = NDArray[np.int64]
Splitter = Callable[[pd.DataFrame, int, int], Iterable[tuple[Positions, Positions]]]

# About 55 by 45 kilometres in California: wider than a town, so that a held-out block has no close neighbour
# in training except along its border.
BLOCK_DEGREES = 0.5


def shuffled_rows(frame: pd.DataFrame, n_folds: int, seed: int) -> Iterable[tuple[Positions, Positions]]:
    """Every row falls into a fold by chance: what a model is worth between places that it knows."""
    folds: Iterable[tuple[Positions, Positions]] = KFold(n_folds, shuffle=True, random_state=seed).split(
        frame
    )
    return folds


def shuffled_blocks(
    frame: pd.DataFrame, n_folds: int, seed: int, degrees: float = BLOCK_DEGREES
) -> Iterable[tuple[Positions, Positions]]:
    """Every block falls into a fold by chance, with all of its rows: what a model is worth in new places.

    Prices of neighbours are alike, so that shuffled rows are scored by models that know their neighbours
    (Roberts et al., Cross-validation strategies for data with temporal, spatial, hierarchical, or
    phylogenetic structure, Ecography 40, 2017). Folds have as many blocks as each other, not as many rows.

    Raises:
        ValueError: there are fewer blocks than folds.
    """
    blocks = spatial_blocks(frame, degrees)
    if (found := len(np.unique(blocks))) < n_folds:
        raise ValueError(
            f"the rows lie in {found} block(s) of {degrees:g} degrees, too few for {n_folds} folds: "
            "set smaller blocks (block_degrees) or fewer folds (spatial_folds)"
        )
    splitter = GroupKFold(n_folds, shuffle=True, random_state=seed)
    folds: Iterable[tuple[Positions, Positions]] = splitter.split(frame, groups=blocks)
    return folds


def spatial_blocks(frame: pd.DataFrame, degrees: float = BLOCK_DEGREES) -> Positions:
    """Number of each row's square of the map, from 0, shape (n,); a square's side is `degrees` long."""
    corners = np.floor(frame[["latitude", "longitude"]].to_numpy(dtype=np.float64) / degrees)
    _, numbers = np.unique(corners, axis=0, return_inverse=True)
    return numbers.reshape(-1).astype(np.int64)


def thinned(splitter: Splitter, fraction: float, first_folds: int) -> Splitter:
    """The first folds of a splitter, with a fraction of their training rows and all they are scored on.

    What a smaller fraction keeps, a larger one of the same seed keeps as well.
    """

    def split(frame: pd.DataFrame, n_folds: int, seed: int) -> Iterator[tuple[Positions, Positions]]:
        folds = islice(splitter(frame, n_folds, seed), first_folds)
        for number, (train, valid) in enumerate(folds):
            order = np.random.default_rng((seed, number)).permutation(train)
            yield order[: max(1, round(fraction * len(train)))], valid

    return split
