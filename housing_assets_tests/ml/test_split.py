"""The hash split: stable, disjoint, in proportion."""

import pandas as pd
import pytest

from housing_assets.ml.cleaning import ID_COLUMN
from housing_assets.ml.split import compare_sets, split
from housing_assets_tests.ml.block_groups import block_groups
from housing_serving.features import TARGET


def ids_of(frame: pd.DataFrame) -> set[str]:
    return set(frame[ID_COLUMN])


def test_every_row_is_on_exactly_one_side() -> None:
    frame = block_groups(2_000)
    train, test = split(frame)
    assert not ids_of(train) & ids_of(test)
    assert ids_of(train) | ids_of(test) == ids_of(frame)
    assert train.index.tolist() == list(range(len(train)))


def test_the_whole_packaged_table_splits_in_proportion() -> None:
    train, test = split(block_groups(20_640))
    assert (len(train), len(test)) == (16_504, 4_136)


def test_a_row_never_changes_side_when_data_grows_or_is_reordered() -> None:
    frame = block_groups(2_000)
    _, small = split(frame.head(500))
    _, large = split(frame.sample(frac=1.0, random_state=1))
    assert ids_of(small) == ids_of(large) & ids_of(frame.head(500))


def test_a_larger_test_fraction_only_adds_test_rows() -> None:
    frame = block_groups(2_000)
    _, fifth = split(frame, 0.2)
    _, half = split(frame, 0.5)
    assert ids_of(fifth) < ids_of(half)
    assert len(half) == pytest.approx(1_000, abs=90)


def test_rows_keep_their_order_and_values() -> None:
    frame = block_groups(300)
    train, test = split(frame)
    together = pd.concat([train, test]).sort_values(ID_COLUMN, ignore_index=True)
    pd.testing.assert_frame_equal(together, frame)
    assert train[ID_COLUMN].is_monotonic_increasing


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 20])
def test_a_fraction_that_leaves_one_side_empty_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"above 0 and below 1, not {fraction}"):
        split(block_groups(10), fraction)


def test_the_sides_of_the_packaged_table_are_alike_in_every_column() -> None:
    table = compare_sets(*split(block_groups(20_640)))
    assert len(table) == 14
    assert table["difference"].abs().max() < 0.05


def test_set_statistics_are_means_spreads_and_category_shares() -> None:
    train = block_groups(4).assign(
        ocean_proximity=["INLAND", "INLAND", "INLAND", "NEAR BAY"], **{TARGET: [1.0, 2.0, 3.0, 4.0]}
    )
    table = compare_sets(train, train.head(2)).set_index("column")
    assert table.loc[TARGET, ["train_mean", "test_mean"]].tolist() == [2.5, 1.5]
    assert table.loc[TARGET, "difference"] == pytest.approx(-1 / 1.2909944)
    assert table.loc["ocean_proximity=INLAND", ["train_mean", "test_mean"]].tolist() == [0.75, 1.0]
