"""How rows are dealt into folds: every row once, blocks whole, fewer rows nested."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from housing_assets.ml.selection import prepare_folds
from housing_assets.ml.splitters import Splitter, shuffled_blocks, shuffled_rows, spatial_blocks, thinned
from housing_assets_tests.ml.block_groups import PLAIN, block_groups

ROWS = 400


def places(*coordinates: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame(coordinates, columns=["latitude", "longitude"])


def test_a_block_is_a_square_of_the_map() -> None:
    frame = places((34.0, -118.5), (34.49, -118.01), (34.5, -118.01), (34.49, -118.0), (34.2, -118.3))
    numbers = spatial_blocks(frame, 0.5)
    assert numbers.tolist() == [0, 0, 2, 1, 0]
    # The same five places are in one square of the world when squares are large.
    assert spatial_blocks(frame, 200.0).tolist() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("splitter", [shuffled_rows, shuffled_blocks])
def test_every_row_is_scored_once_and_never_by_a_fold_it_trained(splitter: Splitter) -> None:
    folds = list(splitter(block_groups(ROWS), 4, 42))
    assert sorted(np.concatenate([valid for _, valid in folds])) == list(range(ROWS))
    for train, valid in folds:
        assert sorted([*train, *valid]) == list(range(ROWS))


@pytest.mark.parametrize("degrees", [0.5, 2.0])
def test_a_block_is_held_out_whole(degrees: float) -> None:
    frame = block_groups(ROWS)
    blocks = spatial_blocks(frame, degrees)
    for train, valid in shuffled_blocks(frame, 4, 42, degrees):
        assert set(blocks[train]).isdisjoint(blocks[valid])
        assert len(set(blocks[valid])) >= len(set(blocks)) // 4


@pytest.mark.parametrize("splitter", [shuffled_rows, shuffled_blocks])
def test_folds_depend_on_the_seed_alone(splitter: Splitter) -> None:
    one, same, other = (next(iter(splitter(block_groups(ROWS), 3, seed)))[1] for seed in (1, 1, 2))
    assert one.tolist() == same.tolist()
    assert one.tolist() != other.tolist()


def test_fewer_blocks_than_folds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 block\(s\) of 5 degrees, too few for 3 folds: set smaller"):
        list(shuffled_blocks(places((34.0, -118.0), (34.1, -117.9)), 3, 42, 5.0))


def test_a_smaller_fraction_is_part_of_a_larger_one_and_scored_on_the_same_rows() -> None:
    frame = block_groups(ROWS)
    few, more = (list(thinned(shuffled_rows, share, 2)(frame, 4, 42)) for share in (0.1, 0.5))
    whole = list(shuffled_rows(frame, 4, 42))
    assert len(few) == len(more) == 2
    for (small, scored), (large, scored_too), (train, valid) in zip(few, more, whole, strict=False):
        assert scored.tolist() == scored_too.tolist() == valid.tolist()
        assert set(small) < set(large) < set(train)
        assert (len(small), len(large)) == (30, 150)
    assert set(few[0][0]) != set(few[1][0])


def test_preprocessing_of_a_spatial_fold_never_sees_its_validation_rows() -> None:
    train = block_groups(ROWS)
    splitter = partial(shuffled_blocks, degrees=1.0)
    before = prepare_folds(train, 3, 42, splitter=splitter, features=PLAIN)[0]
    changed = train.copy()
    changed.loc[changed.index[before.valid_index], "total_bedrooms"] = 9_000.0
    after = prepare_folds(changed, 3, 42, splitter=splitter, features=PLAIN)[0]
    np.testing.assert_array_equal(after.x_train, before.x_train)
    assert not np.array_equal(after.x_valid, before.x_valid)
