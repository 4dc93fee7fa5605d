"""What any sensible price model does, whatever its scores: properties that need no published price.

After Ribeiro et al., Beyond Accuracy: Behavioral Testing of NLP Models with CheckList (ACL 2020): invariance
and direction. A model is a function from rows to prices, so that a pipeline and a bundle are asked alike.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from housing_assets.ml.cleaning import PRICE_CAP
from housing_serving.features import NUMERIC_FEATURES, FloatArray

Price = Callable[[pd.DataFrame], FloatArray]

# Lowest published price of a block group, in dollars of 1990.
LOWEST_PRICE = 14_999.0
EXTRA_COLUMN = "column_that_no_model_knows"


@dataclass(frozen=True)
class BehaviourRules:
    """What a model must show.

    Attributes:
        seed: of everything random.
        max_rows: rows beyond these are left out, at random.
        single_rows: rows that are also priced one at a time.
        max_difference: dollars by which two answers to one row may differ; a linear model's sums are rounded
            by the size of the batch, trees differ by nothing.
        income_factor: incomes are raised to this multiple.
        income_tolerance: share of the price by which a row may get cheaper and still count as not cheaper.
            A tree's price is a staircase of fitted steps, each with its own error, and so is neither smooth
            nor quite monotone: moving a block group by the last digit of its coordinates, which tells
            nothing, changes half of all prices by more than 1.5 %. A drop within 2 % says no more than that.
        min_not_cheaper: share of the rows that must not get cheaper.
        coordinate_step: unit in the last published digit of a coordinate, in degrees.
        max_median_change: share of the price by which half of the rows may move with such a step.
        lowest_price: half of the lowest published price; anything below is a fault.
        highest_price: one and a half times the cap, which stands for "this much or more".
    """

    seed: int = 42
    max_rows: int = 2_000
    single_rows: int = 50
    max_difference: float = 1e-6
    income_factor: float = 1.1
    income_tolerance: float = 0.02
    min_not_cheaper: float = 0.95
    coordinate_step: float = 0.01
    max_median_change: float = 0.03
    lowest_price: float = LOWEST_PRICE / 2
    highest_price: float = 1.5 * PRICE_CAP


@dataclass(frozen=True)
class Behaviour:
    """One property of a model.

    Attributes:
        name: of the property.
        passed: whether the model has it.
        defect: whether a model without it is broken. If not, it is a tendency of a fitted model: to be known
            by whoever releases it, and no reason to stop.
        found: what was measured.
        limit: what it was held against.
        detail: in a sentence.
    """

    name: str
    passed: bool
    defect: bool
    found: float
    limit: float
    detail: str


def examine(price: Price, rows: pd.DataFrame, rules: BehaviourRules | None = None) -> tuple[Behaviour, ...]:
    """Look at every property of a model on some rows.

    Args:
        price: The model, from raw columns to prices.
        rows: Rows with the raw columns; published prices are not looked at.
        rules: What it must show; None: the defaults.

    Raises:
        ValueError: there are no rows.
    """
    if rows.empty:
        raise ValueError("there is nothing to ask the model: no rows")
    rules = rules or BehaviourRules()
    generator = np.random.default_rng(rules.seed)
    sample = rows.iloc[generator.permutation(len(rows))[: rules.max_rows]].reset_index(drop=True)
    prices = price(sample)
    return (
        *invariances(price, sample, prices, rules),
        plausible_range(price, sample, prices, rules),
        *income_direction(price, sample, prices, rules),
        coordinate_noise(price, sample, prices, rules),
    )


def behaviour_table(found: tuple[Behaviour, ...]) -> pd.DataFrame:
    """One row per property."""
    return pd.DataFrame([asdict(one) for one in found])


def invariances(
    price: Price, rows: pd.DataFrame, prices: FloatArray, rules: BehaviourRules
) -> Iterator[Behaviour]:
    """The price of a row depends on that row alone: not on order, company, copies, or unknown columns."""
    order = np.random.default_rng(rules.seed).permutation(len(rows))
    shuffled = price(rows.iloc[order].reset_index(drop=True))
    yield _unchanged("rows in another order", shuffled, prices[order], rules)
    twice = price(pd.concat([rows, rows], ignore_index=True))
    yield _unchanged("every row twice", twice, np.concatenate([prices, prices]), rules)
    first = rows.head(rules.single_rows)
    alone = [price(first.iloc[[place]].reset_index(drop=True)) for place in range(len(first))]
    # Halves too: one row at a time may take another path than a batch does.
    edges = pairwise([0, len(rows) // 2, len(rows)])
    halves = [price(rows.iloc[start:end].reset_index(drop=True)) for start, end in edges if end > start]
    answers = np.concatenate([*alone, *halves])
    yield _unchanged("other batch sizes", answers, np.concatenate([prices[: len(first)], prices]), rules)
    extended = price(rows.assign(**{EXTRA_COLUMN: np.arange(len(rows), dtype=np.float64)}))
    yield _unchanged("an unknown column", extended, prices, rules)


def _unchanged(what: str, answers: FloatArray, expected: FloatArray, rules: BehaviourRules) -> Behaviour:
    difference = np.abs(answers - expected)
    # An answer that is no number at all is the worst there is.
    found = float(np.where(np.isnan(difference), np.inf, difference).max())
    passed, limit = found <= rules.max_difference, rules.max_difference
    detail = f"with {what}, a price differs by up to ${found:,.6g}; ${limit:g} is allowed"
    return Behaviour(f"invariance: {what}", passed, True, found, limit, detail)


def plausible_range(price: Price, rows: pd.DataFrame, prices: FloatArray, rules: BehaviourRules) -> Behaviour:
    """No impossible price, also where each number in turn is as low or as high as it gets."""
    stretched = [
        price(rows.assign(**{name: extreme}))
        for name in NUMERIC_FEATURES
        for extreme in (rows[name].min(), rows[name].max())
    ]
    asked = np.concatenate([prices, *stretched])
    inside = (asked >= rules.lowest_price) & (asked <= rules.highest_price)
    outside = float(np.sum(~inside))
    detail = (
        f"{outside:,.0f} of {len(asked):,} prices are not between ${rules.lowest_price:,.0f} and "
        f"${rules.highest_price:,.0f}; they go from ${asked.min():,.0f} to ${asked.max():,.0f}"
    )
    return Behaviour("plausible prices", outside == 0, True, outside, 0.0, detail)


def income_direction(
    price: Price, rows: pd.DataFrame, prices: FloatArray, rules: BehaviourRules
) -> Iterator[Behaviour]:
    """More income makes a place no cheaper, all else equal: on average, and for nearly every row."""
    raised = price(rows.assign(median_income=rows["median_income"] * rules.income_factor))
    change = _change(prices, raised)
    mean, percent = float(change.mean()), 100 * (rules.income_factor - 1)
    detail = f"{percent:.0f} % more income changes prices by {100 * mean:+.2f} % on average"
    yield Behaviour("more income is not cheaper on average", mean >= 0, True, mean, 0.0, detail)
    share, strict = float(np.mean(change >= -rules.income_tolerance)), float(np.mean(change >= 0))
    detail = (
        f"with {percent:.0f} % more income, {100 * share:.1f} % of the rows get at most "
        f"{100 * rules.income_tolerance:g} % cheaper, {100 * strict:.1f} % not at all"
    )
    limit = rules.min_not_cheaper
    yield Behaviour("more income is not cheaper", share >= limit, False, share, limit, detail)


def coordinate_noise(
    price: Price, rows: pd.DataFrame, prices: FloatArray, rules: BehaviourRules
) -> Behaviour:
    """One unit in the last digit of both coordinates hardly changes the price of most rows."""
    generator = np.random.default_rng(rules.seed)
    steps = rules.coordinate_step * generator.choice([-1.0, 1.0], (2, len(rows)))
    moved = rows.assign(longitude=rows["longitude"] + steps[0], latitude=rows["latitude"] + steps[1])
    change = np.abs(_change(prices, price(moved)))
    found, limit = float(np.median(change)), rules.max_median_change
    detail = (
        f"{rules.coordinate_step:g} degrees in both coordinates change half of the prices by more than "
        f"{100 * found:.2f} %, one in twenty by more than {100 * float(np.quantile(change, 0.95)):.1f} %"
    )
    return Behaviour("robustness to coordinate noise", found <= limit, False, found, limit, detail)


def _change(before: FloatArray, after: FloatArray) -> FloatArray:
    """Change as a share of the price before, whatever its sign; of a dollar where there is hardly a price."""
    change: FloatArray = (after - before) / np.maximum(np.abs(before), 1.0)
    return change
