"""The gate: who may replace the version in production, who may not, and what the report says of it."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from housing_assets.ml.columns import columns_of
from housing_assets.ml.export import bundle_files
from housing_assets.ml.imputation import BedroomImputer
from housing_assets.ml.intervals import Interval
from housing_assets.ml.preprocessing import fit_preprocessing
from housing_assets.ml.promotion import Champion, Decision, PromotionRules, UnreadableChampion, decide
from housing_assets.ml.split import split
from housing_assets.ml.training import fit_model
from housing_assets_tests.ml.block_groups import PLAIN, block_groups
from housing_serving.bundle import Bundle, Predictions
from housing_serving.features import TARGET, Columns, FloatArray

RULES = PromotionRules()
# Wide enough for both models on these rows.
INTERVAL = Interval(0.9, -85_000.0, 105_000.0)
GOOD = ("RandomForest", 30)
WEAKER = ("RandomForest", 8)
CONSTANT = ("DecisionTree", 0)
HYPERPARAMETERS: dict[tuple[str, int], dict[str, Any]] = {
    GOOD: {"n_estimators": 30},
    WEAKER: {"n_estimators": 8, "max_depth": 8},
    # A root that may not be split: the mean of the training rows for everybody.
    CONSTANT: {"min_samples_leaf": 100_000},
}


@cache
def rows() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test rows."""
    return split(block_groups(6_000))


def held_out() -> pd.DataFrame:
    return rows()[1]


@cache
def files_of(model: tuple[str, int], version: int, snapshot: str, seed: int) -> dict[str, bytes]:
    train, _ = rows()
    preprocessing = fit_preprocessing(BedroomImputer("ratio_boosting").fit(train), train, PLAIN)
    pipeline = fit_model(preprocessing, train, model[0], HYPERPARAMETERS[model], seed)
    return bundle_files(
        pipeline,
        train,
        model_name="housing_price_model",
        model_version=version,
        algorithm=model[0],
        snapshot=snapshot,
        data_hash="d" * 64,
        git_commit="abc123",
        created_at=datetime(2026, 1, 4, 2, 0, tzinfo=UTC),
        metrics={},
        interval=INTERVAL,
    )


def model(kind: tuple[str, int], version: int = 6, snapshot: str = "2026-01-11", seed: int = 42) -> Bundle:
    return Bundle.from_files(files_of(kind, version, snapshot, seed), origin="memory")


def in_production(kind: tuple[str, int], snapshot: str = "2026-01-04", seed: int = 42) -> Bundle:
    return model(kind, 5, snapshot, seed)


class Altered(Bundle):
    """A fake: a real bundle whose prices something is done to."""

    alter: Callable[[Columns, FloatArray], FloatArray]

    def predict(self, columns: Columns) -> Predictions:
        price = self.alter(columns, super().predict(columns).price)
        return Predictions(price, price + INTERVAL.lower_offset, price + INTERVAL.upper_offset)


def altered(
    kind: tuple[str, int], alter: Callable[[Columns, FloatArray], FloatArray], version: int = 6
) -> Bundle:
    bundle = Altered.from_files(files_of(kind, version, "2026-01-11", 42), origin="memory")
    bundle.alter = alter
    return bundle


def mean_error(price: FloatArray, chosen: Any = slice(None)) -> float:
    return float(np.abs(price - held_out()[TARGET].to_numpy())[chosen].mean())


def factor_for(price: FloatArray, error: float, chosen: Any = slice(None)) -> float:
    """What to multiply prices with so that their mean error becomes this large."""
    factors = np.linspace(1.0, 2.0, 20_001)
    return float(next(factor for factor in factors if mean_error(factor * price, chosen) >= error))


def prices(bundle: Bundle) -> FloatArray:
    return bundle.predict(columns_of(held_out())).price


def judged(
    candidate: Bundle, champion: Champion = None, rules: PromotionRules = RULES, parity: float = 0.0
) -> Decision:
    return decide(candidate, champion, held_out(), parity, rules)


def failed(decision: Decision) -> list[str]:
    return [check.name for check in decision.checks if not check.passed]


def test_a_first_model_that_clears_every_floor_is_promoted() -> None:
    decision = judged(model(GOOD))
    assert failed(decision) == []
    assert decision.promote
    assert decision.reason == "no version is in production yet, and every floor is cleared"
    assert (decision.candidate_version, decision.champion_version, decision.champion) == (6, None, "none")
    assert decision.tags()["promotion"] == "promote"


def test_a_better_model_replaces_production() -> None:
    decision = judged(model(GOOD), in_production(WEAKER))
    assert failed(decision) == []
    assert decision.promote
    assert decision.tags()["promotion_champion"] == "5"
    ours, theirs = mean_error(prices(model(GOOD))), mean_error(prices(in_production(WEAKER)))
    start = (
        f"mean error is {100 * (1 - ours / theirs):.1f} % better than version 5 (${ours:,.0f} against "
        f"${theirs:,.0f}), with 95 % confidence at least "
    )
    assert decision.reason.startswith(start)
    assert decision.reason.endswith("; every other check passed")


def test_a_candidate_made_worse_by_two_percent_is_kept() -> None:
    champion = in_production(GOOD)
    factor = factor_for(prices(champion), 1.02 * mean_error(prices(champion)))
    decision = judged(altered(GOOD, lambda _, price: factor * price), champion)
    assert not decision.promote
    assert "mean error" in failed(decision)
    ours, theirs = mean_error(factor * prices(champion)), mean_error(prices(champion))
    assert decision.reason.startswith(
        f"mean error is 2.0 % worse than version 5 (${ours:,.0f} against ${theirs:,.0f}), "
        "it must be at least 0.5 % better with 95 % confidence"
    )


def test_a_candidate_good_overall_but_ten_percent_worse_inland_is_kept() -> None:
    champion, strong = in_production(WEAKER), model(GOOD)
    inland = (held_out()["ocean_proximity"] == "INLAND").to_numpy()
    error = 1.10 * mean_error(prices(champion), inland)
    factor = factor_for(prices(strong), error, inland)

    def worse_inland(columns: Columns, price: FloatArray) -> FloatArray:
        return np.where(columns["ocean_proximity"] == "INLAND", factor * price, price)

    decision = judged(altered(GOOD, worse_inland), champion)
    checks = {check.name: check for check in decision.checks}
    assert checks["mean error"].passed
    assert not checks["mean error of INLAND"].passed
    assert not decision.promote
    assert "mean error of INLAND is 10.0 % worse than version 5" in decision.reason
    assert ", at most 3.0 % worse is accepted" in decision.reason
    [row] = [one for one in decision.segments if one.name == "INLAND"]
    assert not row.passed
    others = [one for one in decision.segments if one.name in ("<1H OCEAN", "NEAR BAY", "NEAR OCEAN")]
    assert [one.passed for one in others] == [True] * 3


def test_a_constant_candidate_is_kept_whether_or_not_something_is_in_production() -> None:
    for champion in (None, in_production(GOOD)):
        decision = judged(model(CONSTANT), champion)
        assert not decision.promote
        assert decision.reason.startswith("every row gets the same price, $")
        assert {"varying prices", "r2", "mape"} <= set(failed(decision))
        assert "mean error" in failed(decision) or champion is None


def test_a_candidate_that_answers_slowly_is_kept() -> None:
    def slowly(_: Columns, price: FloatArray) -> FloatArray:
        time.sleep(0.25)
        return price

    decision = judged(altered(GOOD, slowly), in_production(WEAKER), replace(RULES, max_thousand_rows_ms=100))
    assert not decision.promote
    assert failed(decision) == ["latency of 1 row", "latency of 1,000 rows"]
    found = decision.checks[[check.name for check in decision.checks].index("latency of 1 row")].found
    assert found is not None
    assert found >= 250
    assert f"the latency of 1 row is {found:.3g} ms, it must be at most 5 ms" in decision.reason


def test_the_model_in_production_registered_again_is_no_improvement() -> None:
    decision = judged(model(GOOD), in_production(GOOD))
    assert failed(decision) == ["mean error"]
    error = mean_error(prices(model(GOOD)))
    assert decision.reason == (
        f"mean error is the same as that of version 5 (${error:,.0f}), it must be at least 0.5 % better "
        "with 95 % confidence"
    )


def test_an_improvement_that_may_be_chance_is_kept_and_called_so() -> None:
    champion, strong = in_production(WEAKER), model(GOOD)
    factor = factor_for(prices(strong), 0.99 * mean_error(prices(champion)))
    decision = judged(altered(GOOD, lambda _, price: factor * price), champion)
    assert not decision.promote
    assert "mean error is 1.0 % better than version 5" in decision.reason
    assert ", but with 95 % confidence perhaps only " in decision.reason
    assert " worse, it must be at least 0.5 % better" in decision.reason


def test_a_better_candidate_of_an_older_snapshot_is_kept() -> None:
    decision = judged(model(GOOD, snapshot="2025-12-28"), in_production(WEAKER, "2026-01-04"))
    assert failed(decision) == ["snapshot"]
    assert decision.reason == "snapshot 2025-12-28 is older than 2026-01-04, that of version 5"


def test_snapshots_backfilled_in_any_order_leave_production_with_the_newest_that_was_better() -> None:
    """Ten snapshots of one model and, at the fourth week, a better one."""
    weeks = [f"2026-{1 + day // 28:02d}-{1 + day % 28:02d}" for day in range(0, 70, 7)]
    for order in (weeks, weeks[::-1], weeks[5:] + weeks[:5]):
        production: Bundle | None = None
        history = []
        for version, week in enumerate(order, start=1):
            candidate = model(GOOD if week == weeks[3] else WEAKER, version, week)
            if judged(candidate, production).promote:
                production = candidate
                history.append(week)
        assert history == sorted(history)
        assert history[0] == order[0]
        assert history[-1] == max(order[0], weeks[3])


def test_noise_in_small_segments_does_not_stop_a_good_candidate() -> None:
    """Another seed changes every segment a little: some are worse, none by enough to mean anything."""
    decision = judged(model(GOOD, seed=7), in_production(GOOD, seed=8))
    worse = [one for one in decision.segments if (one.mae or 0) > (one.champion_mae or 0) and one.judged]
    assert worse
    assert all(segment.passed for segment in decision.segments)
    assert set(failed(decision)) <= {"mean error"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_prices_that_are_no_numbers_are_kept_out_and_counted(bad: float) -> None:
    def broken_bay(columns: Columns, price: FloatArray) -> FloatArray:
        return np.where(columns["ocean_proximity"] == "NEAR BAY", bad, price)

    bay = int((held_out()["ocean_proximity"] == "NEAR BAY").sum())
    decision = judged(altered(GOOD, broken_bay), in_production(WEAKER))
    assert not decision.promote
    assert decision.reason.startswith(
        f"{bay} of {len(held_out()):,} prices or their intervals are no finite numbers; mean error is "
        "infinitely worse than version 5 (no number against $"
    )
    assert "R² is no number, it must be at least 0.7000" in decision.reason
    assert Decision.from_json(decision.to_json()) == decision
    assert "| **failed** | NEAR BAY | 132 | no number | $" in decision.to_markdown()


def test_a_champion_that_answers_with_no_numbers_is_beaten() -> None:
    champion = altered(WEAKER, lambda _, price: np.full_like(price, np.nan), version=5)
    decision = judged(model(GOOD), champion)
    assert decision.promote
    assert "than version 5 ($" in decision.reason
    assert "against no number)" in decision.reason


def test_a_champion_that_cannot_be_read_stays() -> None:
    decision = judged(model(GOOD), UnreadableChampion(5, "models/5/model.onnx has\nanother sha256"))
    assert failed(decision) == ["readable champion"]
    assert (decision.champion_version, decision.champion) == (5, "5")
    assert decision.reason == (
        "version 5 in production cannot be read, so nothing can be compared with it (models/5/model.onnx has "
        "another sha256): restore its bundle and train again, or promote by hand"
    )
    assert not any(check.name.startswith("mean error") for check in decision.checks)


@pytest.mark.parametrize(
    ("rules", "name", "sentence"),
    [
        (replace(RULES, min_r2=0.95), "r2", "R² is 0.8"),
        (replace(RULES, max_mape=15.0), "mape", "MAPE is 2"),
        (replace(RULES, max_category_wmape=17.5), "wmape of INLAND", "the wMAPE of INLAND is "),
        (replace(RULES, max_decile_wmape=35.0), "wmape of price decile 1", "the wMAPE of price decile 1 is "),
        (replace(RULES, coverage_tolerance=-0.09), "interval coverage", "the coverage of the 90 % intervals"),
        (replace(RULES, max_row_ms=1e-6), "latency of 1 row", "the latency of 1 row is "),
        (replace(RULES, max_thousand_rows_ms=1e-6), "latency of 1,000 rows", "the latency of 1,000 rows is "),
        (replace(RULES, min_rows=10_000), "test rows", "the number of test rows is 1,192, it must be"),
    ],
)
def test_every_floor_stops_a_first_model(rules: PromotionRules, name: str, sentence: str) -> None:
    decision = judged(model(GOOD), rules=rules)
    assert name in failed(decision)
    assert not decision.promote
    assert sentence in decision.reason


def test_a_bundle_that_differs_from_its_pipeline_is_kept() -> None:
    decision = judged(model(GOOD), parity=0.01)
    assert failed(decision) == ["parity"]
    assert decision.reason == (
        "the largest difference from the fitted pipeline is $0.01, it must be at most $1e-06"
    )
    assert failed(judged(model(GOOD), parity=float("nan"))) == ["parity"]


def test_the_reason_names_three_failures_and_counts_the_others() -> None:
    decision = judged(model(CONSTANT), in_production(GOOD))
    named = [check.detail for check in decision.checks if not check.passed]
    assert decision.reason == "; ".join([*named[:3], f"and {len(named) - 3} more failed checks"])
    assert len(named) > 10


def test_segments_with_few_rows_are_listed_and_not_judged() -> None:
    decision = judged(model(GOOD), in_production(WEAKER))
    assert [(one.name, one.rows) for one in decision.segments if not one.judged] == [("ISLAND", 1)]
    assert not any("ISLAND" in check.name for check in decision.checks)
    assert len([check for check in decision.checks if check.name.startswith("wmape of ")]) == 4 + 10
    assert len([check for check in decision.checks if check.name.startswith("mean error of ")]) == 4 + 10


def test_the_report_is_plain_json_that_reads_back_as_the_same_decision() -> None:
    decision = judged(model(CONSTANT), in_production(WEAKER))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    parsed = json.loads(decision.to_json(), parse_constant=refuse)
    assert (parsed["candidate_version"], parsed["champion_version"], parsed["promote"]) == (6, 5, False)
    assert parsed["rules"]["min_improvement"] == 0.005
    assert {"name", "passed", "found", "limit", "detail"} == parsed["checks"][0].keys()
    assert Decision.from_json(decision.to_json()) == decision


def test_the_table_has_a_row_per_check() -> None:
    decision = judged(model(GOOD))
    table = decision.table()
    assert list(table.columns) == ["check", "passed", "found", "limit", "detail"]
    assert table["check"].tolist() == [check.name for check in decision.checks]
    assert table.dtypes[["found", "limit"]].tolist() == [np.float64, np.float64]


def test_the_markdown_tells_the_outcome_the_reason_each_check_and_each_segment() -> None:
    decision = judged(altered(WEAKER, lambda _, price: price + 5_000), in_production(WEAKER))
    lines = decision.to_markdown().splitlines()
    assert lines[0] == "## Promotion: version 6 stays in staging"
    assert lines[2].startswith("Mean error is ")
    assert lines[2].endswith(".")
    assert lines[4] == "Judged on 1,192 held-out rows of snapshot 2026-01-11; version 5 was in production."
    assert lines[6:8] == ["| | check |", "|---|---|"]
    assert "| passed | Every price is a finite number |" in lines
    assert "| passed | Snapshot 2026-01-11 is not older than 2026-01-04, that of version 5 |" in lines
    assert [line for line in lines if line.startswith("| **failed** | Mean error is ")]
    assert "| | segment | rows | mean error | version 5 | change | wMAPE |" in lines
    [inland] = [line for line in lines if "| INLAND |" in line]
    assert inland.count("|") == lines[lines.index("|---|---|--:|--:|--:|--:|--:|")].count("|") == 8
    assert "Not judged, with fewer than 100 rows: ISLAND (1)." in lines
    assert lines[-1] == (
        "At most, wMAPE may be 30 % (60 % in a price decile), the mean error 3.0 % above production's with "
        "95 % confidence. Price decile 1 holds the cheapest rows."
    )


def test_the_markdown_of_a_first_model_compares_with_nothing() -> None:
    text = judged(model(GOOD)).to_markdown()
    assert text.startswith(
        "## Promotion: version 6 may go to production\n\nNo version is in production yet, "
    )
    assert "| | segment | rows | mean error | wMAPE |\n|---|---|--:|--:|--:|\n" in text
    assert "version None" not in text
    assert (
        judged(model(GOOD), in_production(WEAKER))
        .to_markdown()
        .startswith("## Promotion: version 6 may replace version 5 in production\n\nMean error is ")
    )
