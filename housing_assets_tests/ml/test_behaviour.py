"""Every property of a sensible model is held by one that has it, and missed by one that violates it."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from housing_assets.ml.behaviour import EXTRA_COLUMN, Behaviour, BehaviourRules, behaviour_table, examine
from housing_assets_tests.ml.block_groups import block_groups
from housing_serving.features import FloatArray

ROWS = 300
RULES = BehaviourRules(max_rows=200, single_rows=20)


def sensible(frame: pd.DataFrame) -> FloatArray:
    """Dearer with income, and a little towards the south."""
    prices = 1e5 + 3e4 * np.minimum(frame["median_income"], 10) + 1_000 * (42 - frame["latitude"])
    return np.asarray(prices, dtype=np.float64)


def by_position(frame: pd.DataFrame) -> FloatArray:
    return sensible(frame) + np.arange(len(frame))


def by_copies(frame: pd.DataFrame) -> FloatArray:
    return sensible(frame) + 10.0 * frame.duplicated(["longitude", "latitude", "total_rooms"]).to_numpy()


def by_company(frame: pd.DataFrame) -> FloatArray:
    return sensible(frame) + len(frame)


def by_unknown_column(frame: pd.DataFrame) -> FloatArray:
    return sensible(frame) + np.asarray(frame.get(EXTRA_COLUMN, 0.0))


def cheaper_with_income(frame: pd.DataFrame) -> FloatArray:
    return 8e5 - sensible(frame)


def sometimes_cheaper_with_income(frame: pd.DataFrame) -> FloatArray:
    """One block group in eight."""
    odd = frame["total_rooms"].to_numpy() % 8 == 0
    return np.where(odd, 6e5 - sensible(frame), sensible(frame))


def below_zero(frame: pd.DataFrame) -> FloatArray:
    """Fine for nearly all block groups, and absurd for the most populous ones."""
    population = frame["population"].to_numpy()
    return sensible(frame) - np.where(population > 5_000, 100.0 * population, 0.0)


def shaky(frame: pd.DataFrame) -> FloatArray:
    """Every hundredth of a degree has a price level of its own."""
    return sensible(frame) * (1 + 0.2 * np.sin(1e5 * frame["latitude"].to_numpy()))


def not_a_number(frame: pd.DataFrame) -> FloatArray:
    return np.where(frame["total_rooms"] % 50 == 0, np.nan, sensible(frame))


Model = Callable[[pd.DataFrame], FloatArray]
ORDER, TWICE, BATCH, UNKNOWN = (
    *("invariance: rows in another order", "invariance: every row twice"),
    *("invariance: other batch sizes", "invariance: an unknown column"),
)
RANGE, ON_AVERAGE, NOT_CHEAPER, NOISE = (
    *("plausible prices", "more income is not cheaper on average"),
    *("more income is not cheaper", "robustness to coordinate noise"),
)
VIOLATIONS: dict[str, tuple[Model, set[str]]] = {
    "none": (sensible, set()),
    "the position counts": (by_position, {ORDER, TWICE, BATCH}),
    "copies count": (by_copies, {TWICE}),
    "the company counts": (by_company, {TWICE, BATCH}),
    "an unknown column counts": (by_unknown_column, {UNKNOWN}),
    "income makes it cheaper": (cheaper_with_income, {ON_AVERAGE, NOT_CHEAPER}),
    "income makes some cheaper": (sometimes_cheaper_with_income, {NOT_CHEAPER}),
    "prices below zero": (below_zero, {RANGE}),
    "every hundredth of a degree counts": (shaky, {NOISE}),
}


def failed(found: tuple[Behaviour, ...]) -> set[str]:
    return {one.name for one in found if not one.passed}


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_a_violation_is_found_and_nothing_else(violation: str) -> None:
    model, expected = VIOLATIONS[violation]
    assert failed(examine(model, block_groups(ROWS), RULES)) == expected


def test_an_answer_that_is_no_number_breaks_whatever_it_touches() -> None:
    found = failed(examine(not_a_number, block_groups(ROWS), RULES))
    assert {ORDER, TWICE, BATCH, UNKNOWN, RANGE, ON_AVERAGE} <= found


def test_a_constant_price_is_not_cheaper_with_more_income() -> None:
    assert failed(examine(lambda frame: np.full(len(frame), 2e5), block_groups(ROWS), RULES)) == set()


@pytest.mark.parametrize(("drop", "passes"), [(0.019, True), (0.021, False)])
def test_a_drop_within_the_tolerance_counts_as_not_cheaper(drop: float, passes: bool) -> None:
    incomes = block_groups(ROWS)["median_income"].to_numpy()

    def model(frame: pd.DataFrame) -> FloatArray:
        raised = ~np.isin(frame["median_income"], incomes)
        return np.where(raised, 2e5 * (1 - drop), 2e5)

    found = {one.name: one for one in examine(model, block_groups(ROWS), RULES)}
    assert found[NOT_CHEAPER].passed is passes
    # On average there is no tolerance.
    assert not found[ON_AVERAGE].passed


def test_limits_are_values_and_details_say_what_was_found() -> None:
    lenient = BehaviourRules(max_rows=200, max_median_change=0.5)
    [noise] = [one for one in examine(shaky, block_groups(ROWS), lenient) if one.name == NOISE]
    assert noise.passed
    assert not noise.defect
    assert (noise.limit, noise.found > 0.03) == (0.5, True)
    assert "0.01 degrees in both coordinates change half of the prices by more than" in noise.detail


def test_a_model_must_be_asked_something() -> None:
    with pytest.raises(ValueError, match="no rows"):
        examine(sensible, block_groups(ROWS).head(0))


def test_the_table_has_a_row_per_property() -> None:
    table = behaviour_table(examine(sensible, block_groups(ROWS), RULES))
    assert table["name"].tolist() == [ORDER, TWICE, BATCH, UNKNOWN, RANGE, ON_AVERAGE, NOT_CHEAPER, NOISE]
    assert table["passed"].all()
