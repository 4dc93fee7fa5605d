"""Imputation of bedrooms: each strategy, the comparison, and the truth the other data file knows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from housing_assets.formats import decode, encode
from housing_assets.ml.cleaning import process
from housing_assets.ml.imputation import STRATEGIES, BedroomImputer, compare_strategies
from housing_assets.ml.split import split
from housing_assets.sources import packaged_source, parse
from housing_assets_tests.ml.block_groups import block_groups
from housing_serving.features import TARGET

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "housing.csv"
RATIOS = ["bedrooms_per_household", "bedrooms_per_room"]


def with_nulls(frame: pd.DataFrame, every: int = 7) -> pd.DataFrame:
    """The frame with bedrooms, and what hangs on them, null in every so-many-th row."""
    null = np.arange(len(frame)) % every == 0
    return frame.assign(**{name: frame[name].mask(null) for name in ["total_bedrooms", *RATIOS]})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_fills_nulls_with_whole_counts_and_leaves_known_values(strategy: str) -> None:
    frame = with_nulls(block_groups(400))
    filled = BedroomImputer(strategy).fit(frame).transform(frame)
    known = frame["total_bedrooms"].notna()
    assert (filled["total_bedrooms"] >= 1).all()
    assert (filled["total_bedrooms"] % 1 == 0).all()
    pd.testing.assert_series_equal(filled["total_bedrooms"][known], frame["total_bedrooms"][known])
    assert filled["bedrooms_per_room"].tolist() == (filled["total_bedrooms"] / filled["total_rooms"]).tolist()
    assert list(filled.columns) == list(frame.columns)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_fits_and_one_row_alone_give_the_same_bits(strategy: str) -> None:
    frame = with_nulls(block_groups(300))
    first, second = (BedroomImputer(strategy, 1).fit(frame) for _ in range(2))
    filled = first.transform(frame)
    pd.testing.assert_frame_equal(second.transform(frame), filled, check_exact=True)
    alone = pd.concat([first.transform(frame.iloc[[row]]) for row in range(0, 70, 7)])
    pd.testing.assert_frame_equal(alone, filled.loc[alone.index], check_exact=True)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_price_is_no_predictor(strategy: str) -> None:
    frame = with_nulls(block_groups(200))
    blind = frame.drop(columns=TARGET)
    filled = BedroomImputer(strategy).fit(frame).transform(blind)
    pd.testing.assert_frame_equal(filled, BedroomImputer(strategy).fit(blind).transform(blind))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_stored_imputer_answers_as_the_fitted_one(strategy: str) -> None:
    frame = with_nulls(block_groups(200))
    fitted = BedroomImputer(strategy).fit(frame)
    stored = decode("imputer.skops", encode("imputer.skops", fitted))
    pd.testing.assert_frame_equal(stored.transform(frame), fitted.transform(frame), check_exact=True)


def test_constants_are_the_rounded_median_and_mean_of_the_known() -> None:
    frame = block_groups(4).assign(total_bedrooms=[10.0, 20.0, 61.0, np.nan])
    filled = {name: BedroomImputer(name).fit(frame).transform(frame) for name in ("median", "mean")}
    assert filled["median"]["total_bedrooms"].tolist() == [10.0, 20.0, 61.0, 20.0]
    assert filled["mean"]["total_bedrooms"].tolist() == [10.0, 20.0, 61.0, 30.0]


def test_neighbours_are_the_most_similar_rows_after_scaling() -> None:
    rows = block_groups(1)
    frame = pd.concat([rows] * 12, ignore_index=True).assign(
        total_rooms=[100.0] * 6 + [9_000.0] * 6, total_bedrooms=[30.0] * 6 + [1_500.0] * 6
    )
    asked = frame.iloc[[0, 11]].assign(total_bedrooms=np.nan)
    filled = BedroomImputer("knn").fit(frame).transform(asked)
    assert filled["total_bedrooms"].tolist() == [30.0, 1_500.0]


def test_fewer_known_rows_than_neighbours_are_all_neighbours() -> None:
    frame = block_groups(3).assign(total_bedrooms=[10.0, 30.0, np.nan])
    assert BedroomImputer("knn").fit(frame).transform(frame)["total_bedrooms"].tolist() == [10.0, 30.0, 20.0]


def test_boosting_answers_per_household_so_size_does_not_matter() -> None:
    frame = block_groups(2_000)
    fitted = BedroomImputer("ratio_boosting").fit(frame.assign(total_bedrooms=2 * frame["households"]))
    filled = fitted.transform(frame.assign(total_bedrooms=np.nan))
    assert fitted.per_household
    np.testing.assert_allclose(filled["total_bedrooms"], 2 * frame["households"], atol=0.5)


def test_a_frame_without_nulls_comes_back_as_it_is_and_the_argument_is_not_changed() -> None:
    frame = with_nulls(block_groups(50))
    before = frame.copy()
    full = BedroomImputer("median").fit(frame).transform(frame)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(BedroomImputer("median").fit(frame).transform(full), full)


def test_raw_columns_without_ratios_get_none() -> None:
    raw = block_groups(50).drop(columns=[*RATIOS, "rooms_per_household", "population_per_household"])
    assert list(BedroomImputer("mean").fit(raw).transform(raw).columns) == list(raw.columns)


def test_unknown_strategies_are_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="unknown imputation strategy 'magic', choose one of median, mean, knn"
    ):
        BedroomImputer("magic").fit(block_groups(10))


def test_nothing_known_is_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="no row has a known total_bedrooms"):
        BedroomImputer().fit(block_groups(10).assign(total_bedrooms=np.nan))


def test_an_imputer_knows_whether_it_is_fitted() -> None:
    with pytest.raises(NotFittedError):
        check_is_fitted(BedroomImputer())
    check_is_fitted(BedroomImputer("median").fit(block_groups(10)))


def test_the_comparison_takes_the_lowest_rmse_and_ranks_constants_last() -> None:
    comparison = compare_strategies(block_groups(3_000), seed=1)
    table = comparison.table.set_index("strategy")
    assert tuple(table.index) == STRATEGIES
    assert comparison.best == table["rmse"].idxmin()
    assert table["rmse"].nlargest(2).index.tolist() == ["median", "mean"]
    assert table.loc["ratio_boosting", "rmse"] < 0.3 * table.loc["median", "rmse"]
    assert table.loc["mean", "rmse"] < table.loc["median", "rmse"]
    assert table.loc["median", "mae"] < table.loc["mean", "mae"]


def test_the_comparison_depends_on_the_seed_alone_and_pools_repeats() -> None:
    train = block_groups(300)
    first, again, other, twice = (
        compare_strategies(train, seed=seed, repeats=repeats).table.drop(columns="seconds")
        for seed, repeats in ((1, 1), (1, 1), (2, 1), (1, 2))
    )
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert not first["rmse"].equals(other["rmse"])
    assert not first["rmse"].equals(twice["rmse"])


@pytest.mark.parametrize("fraction", [0.0, 0.01, 1.0])
def test_a_mask_that_hides_nothing_or_everything_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"mask_fraction {fraction} hides"):
        compare_strategies(block_groups(10), mask_fraction=fraction)


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"the published table is not at {PUBLISHED}")
@pytest.mark.parametrize("nulls_of", ["packaged", "published"])
def test_blanked_bedrooms_come_close_to_the_truth_in_the_other_file(nulls_of: str) -> None:
    """Each file lacks 207 values that the other has; the imputer is fitted on its own training rows."""
    packaged, published = process(parse(packaged_source())).frame, process(pd.read_csv(PUBLISHED)).frame
    assert packaged["block_group_id"].equals(published["block_group_id"])
    asked, truth = (packaged, published) if nulls_of == "packaged" else (published, packaged)
    judged = asked["total_bedrooms"].isna() & truth["total_bedrooms"].notna()
    errors = {}
    for strategy in ("median", "ratio_boosting"):
        filled = BedroomImputer(strategy).fit(split(asked)[0]).transform(asked)
        difference = (filled["total_bedrooms"] - truth["total_bedrooms"])[judged]
        errors[strategy] = float(np.sqrt(np.mean(difference**2)))
    assert int(judged.sum()) >= 200
    assert errors["ratio_boosting"] < 60
    assert errors["ratio_boosting"] < 0.2 * errors["median"]
