"""The promotion gate: whether a candidate may replace the version in production, and why.

Both models price the same held-out rows. Every check is evaluated whatever the others say, so that a report
tells all there is to mend.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import TypeAdapter

from housing_assets.ml.columns import columns_of
from housing_assets.ml.comparison import (
    Improvement,
    absolute_errors,
    bootstrap_improvement,
    by_category,
    by_price_decile,
    latency_ms,
)
from housing_assets.ml.export import PARITY_TOLERANCE
from housing_assets.ml.metrics import regression_metrics
from housing_serving.bundle import Bundle, Predictions
from housing_serving.features import TARGET, Columns, FloatArray

# Floors of any model worth storing, on the test set.
METRIC_FLOORS = {"r2": 0.70}
METRIC_CEILINGS = {"mape": 25.0}

# Failed checks that the reason names; the report lists all of them.
NAMED_FAILURES = 3


@dataclass(frozen=True)
class PromotionRules:
    """What a candidate must show; shares are fractions, errors percent, latencies milliseconds.

    Attributes:
        min_improvement: share by which its mean absolute error must be below production's.
        confidence: one-sided confidence of every comparison with production.
        resamples: bootstrap resamples of a comparison.
        seed: their seed.
        min_r2: floor of R².
        max_mape: ceiling of the mean absolute percentage error.
        min_rows: test rows from which on a segment, or the whole set, is judged.
        max_segment_regression: share by which a segment's mean absolute error may be above production's.
        max_category_wmape: ceiling of the error of an `ocean_proximity`, weighted by price.
        max_decile_wmape: the same of a tenth of the rows by price; the cheapest are the hardest.
        coverage_tolerance: how far the intervals' coverage may be below their level.
        max_parity_difference: dollars between bundle and pipeline.
        max_row_ms: median latency of one row.
        max_thousand_rows_ms: median latency of 1,000 rows, on one thread.
    """

    min_improvement: float = 0.005
    confidence: float = 0.95
    resamples: int = 2_000
    seed: int = 42
    min_r2: float = METRIC_FLOORS["r2"]
    max_mape: float = METRIC_CEILINGS["mape"]
    min_rows: int = 100
    max_segment_regression: float = 0.03
    max_category_wmape: float = 30.0
    max_decile_wmape: float = 60.0
    coverage_tolerance: float = 0.03
    max_parity_difference: float = PARITY_TOLERANCE
    max_row_ms: float = 5.0
    max_thousand_rows_ms: float = 500.0


@dataclass(frozen=True)
class Check:
    """One condition: `found` was held against `limit` (None without a number), `detail` is a sentence."""

    name: str
    passed: bool
    found: float | None
    limit: float | None
    detail: str


@dataclass(frozen=True)
class Segment:
    """Errors on a part of the test rows; None where an error is no number, or there is no champion."""

    name: str
    rows: int
    mae: float | None
    wmape: float | None
    champion_mae: float | None
    judged: bool
    passed: bool


@dataclass(frozen=True)
class UnreadableChampion:
    """The version in production, when its bundle cannot be loaded."""

    version: int
    problem: str


Champion = Bundle | UnreadableChampion | None


@dataclass(frozen=True)
class Decision:
    """Whether a candidate may replace production, and everything that led to it.

    Attributes:
        candidate_version: Version that was judged.
        champion_version: Version in production at that moment; None without one.
        snapshot: Snapshot of the candidate.
        promote: Whether every check passed.
        reason: Why, in one sentence.
        checks: All of them.
        segments: Errors by `ocean_proximity` and by price decile.
        test_rows: Held-out rows that both priced.
        rules: What was asked.
    """

    candidate_version: int
    champion_version: int | None
    snapshot: str
    promote: bool
    reason: str
    checks: tuple[Check, ...]
    segments: tuple[Segment, ...]
    test_rows: int
    rules: PromotionRules

    @property
    def verdict(self) -> str:
        """`promote`, or `keep` (in staging)."""
        return "promote" if self.promote else "keep"

    @property
    def champion(self) -> str:
        """Number of the version in production, or `none`."""
        return "none" if self.champion_version is None else str(self.champion_version)

    def tags(self) -> dict[str, str]:
        """The decision as searchable tags."""
        return {
            "promotion": self.verdict,
            "promotion_reason": self.reason,
            "promotion_champion": self.champion,
        }

    def table(self) -> pd.DataFrame:
        """One row per check."""
        columns = ["check", "passed", "found", "limit", "detail"]
        rows = [(one.name, one.passed, one.found, one.limit, one.detail) for one in self.checks]
        return pd.DataFrame(rows, columns=columns).astype({"found": float, "limit": float})

    def to_json(self) -> str:
        """The report for programs; `from_json` reads it."""
        return _DECISION.dump_json(self, indent=2).decode() + "\n"

    @staticmethod
    def from_json(text: str | bytes) -> "Decision":
        """A report that `to_json` wrote."""
        return _DECISION.validate_json(text)

    def to_markdown(self) -> str:
        """The report for people."""
        return f"{self.summary()}\n" + "\n".join(_details(self))

    def summary(self) -> str:
        """The report's first lines: the outcome, and why."""
        version, champion = self.candidate_version, self.champion_version
        place = "go to production" if champion is None else f"replace version {champion} in production"
        outcome = f"may {place}" if self.promote else "stays in staging"
        return f"## Promotion: version {version} {outcome}\n\n{_sentence(self.reason)}.\n"


_DECISION = TypeAdapter(Decision)


def decide(
    candidate: Bundle, champion: Champion, test: pd.DataFrame, parity: float, rules: PromotionRules
) -> Decision:
    """Judge a candidate on the held-out rows, next to the version in production if there is one.

    Args:
        candidate: As the service would load it.
        champion: What is in production.
        test: Held-out rows with their published prices.
        parity: Largest difference in dollars between the candidate and its fitted pipeline.
        rules: What it must show.
    """
    columns = columns_of(test)
    answers = candidate.predict(columns)
    errors = _errors(answers, champion, test)
    judged = [
        *(
            _judged(name, errors.of(rows), rules.max_category_wmape, rules)
            for name, rows in by_category(test)
        ),
        *(
            _judged(name, errors.of(rows), rules.max_decile_wmape, rules)
            for name, rows in by_price_decile(test)
        ),
    ]
    checks = (
        *_sanity_checks(answers, len(test), rules),
        *_champion_checks(candidate, champion, errors, rules),
        *_floor_checks(answers, errors.actual, candidate.manifest.interval.level, rules),
        _parity_check(parity, rules),
        *_latency_checks(candidate, columns, rules),
        *(check for _, of_segment in judged for check in of_segment),
    )
    return Decision(
        candidate_version=candidate.manifest.model_version,
        champion_version=errors.version,
        snapshot=candidate.manifest.snapshot,
        promote=all(check.passed for check in checks),
        reason=_reason(checks, champion),
        checks=checks,
        segments=tuple(segment for segment, _ in judged),
        test_rows=len(test),
        rules=rules,
    )


@dataclass(frozen=True)
class _Errors:
    """Absolute errors of the candidate and, if it can be asked, of the champion, row by row."""

    actual: FloatArray
    ours: FloatArray
    theirs: FloatArray | None
    version: int | None

    def of(self, rows: NDArray[np.bool_]) -> "_Errors":
        theirs = None if self.theirs is None else self.theirs[rows]
        return _Errors(self.actual[rows], self.ours[rows], theirs, self.version)


def _errors(answers: Predictions, champion: Champion, test: pd.DataFrame) -> _Errors:
    actual = test[TARGET].to_numpy(dtype=np.float64)
    ours = absolute_errors(answers, actual)
    if not isinstance(champion, Bundle):
        return _Errors(actual, ours, None, None if champion is None else champion.version)
    theirs = absolute_errors(champion.predict(columns_of(test)), actual)
    return _Errors(actual, ours, theirs, champion.manifest.model_version)


def _judged(name: str, errors: _Errors, ceiling: float, rules: PromotionRules) -> tuple[Segment, list[Check]]:
    """The errors of one segment, and what is wrong with them."""
    rows, total = len(errors.ours), float(errors.actual.sum())
    wmape = 100 * float(errors.ours.sum()) / total if total else float("nan")
    checks = []
    if judged := rows >= rules.min_rows:
        checks = [_at_most(f"wmape of {name}", f"the wMAPE of {name}", wmape, ceiling, "{:.1f} %")]
        if errors.theirs is not None:
            checks = [_regression_check(name, errors.ours, errors.theirs, errors.version, rules), *checks]
    segment = Segment(
        name=name,
        rows=rows,
        mae=_mean(errors.ours),
        wmape=_number(wmape),
        champion_mae=None if errors.theirs is None else _mean(errors.theirs),
        judged=judged,
        passed=all(check.passed for check in checks),
    )
    return segment, checks


def _regression_check(
    name: str, ours: FloatArray, theirs: FloatArray, version: int | None, rules: PromotionRules
) -> Check:
    """Fails when a segment is worse by more than is accepted, and that is hardly chance."""
    limit, found = -rules.max_segment_regression, _improvement(ours, theirs, rules)
    passed = found.at_most >= limit
    detail = _compared(f"mean error of {name}", found.estimate, ours, theirs, version)
    accepted = "" if passed else f", at most {_percent(limit)} worse is accepted"
    return Check(f"mean error of {name}", passed, _number(found.at_most), limit, detail + accepted)


def _sanity_checks(answers: Predictions, rows: int, rules: PromotionRules) -> Iterator[Check]:
    """The candidate answers with numbers, not always the same one, and on enough rows to tell."""
    numbers = np.isfinite(answers.price) & np.isfinite(answers.lower) & np.isfinite(answers.upper)
    bad = int(np.sum(~numbers))
    detail = f"{bad:,} of {rows:,} prices or their intervals are no finite numbers"
    yield Check(
        "finite prices", bad == 0, float(bad), 0.0, detail if bad else "every price is a finite number"
    )
    distinct = len(np.unique(answers.price))
    same = f"every row gets the same price, {_dollars(answers.price[0])}"
    detail = f"there are {distinct:,} different prices" if distinct > 1 else same
    yield Check("varying prices", distinct > 1, float(distinct), 2.0, detail)
    yield _at_least("test rows", "the number of test rows", rows, rules.min_rows, "{:,.0f}")


def _champion_checks(
    candidate: Bundle, champion: Champion, errors: _Errors, rules: PromotionRules
) -> Iterator[Check]:
    """The candidate's snapshot is not older than production's, and its mean error is smaller."""
    if isinstance(champion, UnreadableChampion):
        detail = (
            f"version {champion.version} in production cannot be read, so nothing can be compared with it "
            f"({' '.join(champion.problem.split())}): restore its bundle and train again, or promote by hand"
        )
        yield Check("readable champion", False, None, None, detail)
    elif champion is not None and errors.theirs is not None:
        ours, theirs = candidate.manifest.snapshot, champion.manifest.snapshot
        age = "older" if ours < theirs else "not older"
        detail = f"snapshot {ours} is {age} than {theirs}, that of version {errors.version}"
        yield Check("snapshot", ours >= theirs, None, None, detail)
        yield _improvement_check(errors.ours, errors.theirs, errors.version, rules)


def _improvement_check(
    ours: FloatArray, theirs: FloatArray, version: int | None, rules: PromotionRules
) -> Check:
    found, limit = _improvement(ours, theirs, rules), rules.min_improvement
    detail = _compared("mean error", found.estimate, ours, theirs, version)
    needed, confidence = f"it must be at least {_percent(limit)} better", _confidence(rules)
    passed = found.at_least >= limit
    if passed:
        detail += f", {confidence} at least {_percent(found.at_least)}"
    elif found.estimate < limit:
        detail += f", {needed} {confidence}"
    else:
        side = "better" if found.at_least >= 0 else "worse"
        detail += f", but {confidence} perhaps only {_percent(found.at_least)} {side}, {needed}"
    return Check("mean error", passed, _number(found.at_least), limit, detail)


def _improvement(errors: FloatArray, others: FloatArray, rules: PromotionRules) -> Improvement:
    return bootstrap_improvement(
        errors, others, confidence=rules.confidence, resamples=rules.resamples, seed=rules.seed
    )


def _floor_checks(
    answers: Predictions, actual: FloatArray, level: float, rules: PromotionRules
) -> Iterator[Check]:
    """The metrics and the intervals are good enough, whatever is in production."""
    scores = {"r2": -np.inf, "mape": np.inf}
    if np.isfinite(answers.price).all():
        scores = regression_metrics(actual, answers.price)
    yield _at_least("r2", "R²", scores["r2"], rules.min_r2, "{:.4f}")
    yield _at_most("mape", "MAPE", scores["mape"], rules.max_mape, "{:.1f} %")
    covered = 100 * float(np.mean((answers.lower <= actual) & (actual <= answers.upper)))
    lowest = 100 * (level - rules.coverage_tolerance)
    subject = f"the coverage of the {100 * level:g} % intervals"
    yield _at_least("interval coverage", subject, covered, lowest, "{:.1f} %")


def _latency_checks(bundle: Bundle, columns: Columns, rules: PromotionRules) -> Iterator[Check]:
    """The model answers within its budgets."""
    for rows, budget in ((1, rules.max_row_ms), (1_000, rules.max_thousand_rows_ms)):
        name = f"latency of {rows:,} row{'s' if rows > 1 else ''}"
        yield _at_most(name, f"the {name}", latency_ms(bundle, columns, rows), budget, "{:.3g} ms")


def _parity_check(parity: float, rules: PromotionRules) -> Check:
    subject = "the largest difference from the fitted pipeline"
    return _at_most("parity", subject, parity, rules.max_parity_difference, "${:g}")


def _at_least(name: str, subject: str, found: float, limit: float, form: str) -> Check:
    return Check(
        name, bool(found >= limit), _number(found), limit, _bound(subject, found, form, "at least", limit)
    )


def _at_most(name: str, subject: str, found: float, limit: float, form: str) -> Check:
    return Check(
        name, bool(found <= limit), _number(found), limit, _bound(subject, found, form, "at most", limit)
    )


def _bound(subject: str, found: float, form: str, side: str, limit: float) -> str:
    value = form.format(found) if np.isfinite(found) else "no number"
    return f"{subject} is {value}, it must be {side} {form.format(limit)}"


def _compared(
    name: str, improvement: float, ours: FloatArray, theirs: FloatArray, version: int | None
) -> str:
    if improvement == 0:
        return f"{name} is the same as that of version {version} ({_dollars(_mean(theirs))})"
    size = _percent(improvement) if np.isfinite(improvement) else "infinitely"
    side = "better" if improvement > 0 else "worse"
    errors = f"{_dollars(_mean(ours))} against {_dollars(_mean(theirs))}"
    return f"{name} is {size} {side} than version {version} ({errors})"


def _reason(checks: Iterable[Check], champion: Champion) -> str:
    failed = [check.detail for check in checks if not check.passed]
    if failed:
        more = len(failed) - NAMED_FAILURES
        rest = [f"and {more} more failed check{'s' if more > 1 else ''}"] if more > 0 else []
        return "; ".join([*failed[:NAMED_FAILURES], *rest])
    if champion is None:
        return "no version is in production yet, and every floor is cleared"
    [better] = [check.detail for check in checks if check.name == "mean error"]
    return f"{better}; every other check passed"


def _mean(errors: FloatArray) -> float | None:
    return _number(float(errors.mean())) if len(errors) else None


def _number(value: float) -> float | None:
    """What JSON can say of a number."""
    return float(value) if np.isfinite(value) else None


def _dollars(value: float | None) -> str:
    return "no number" if value is None or not np.isfinite(value) else f"${value:,.0f}"


def _confidence(rules: PromotionRules) -> str:
    return f"with {100 * rules.confidence:g} % confidence"


def _percent(share: float) -> str:
    """A share's size, with more digits where one would round it to nothing."""
    percent = abs(100 * share)
    return f"{percent:.1f} %" if percent >= 0.1 or percent == 0 else f"{percent:.1g} %"


def _details(decision: Decision) -> Iterator[str]:
    """What was checked, and the errors by segment."""
    champion = decision.champion_version
    rival = "no version was in production" if champion is None else f"version {champion} was in production"
    yield f"Judged on {decision.test_rows:,} held-out rows of snapshot {decision.snapshot}; {rival}.\n"
    yield "| | check |\n|---|---|"
    in_segments = tuple(f" of {segment.name}" for segment in decision.segments)
    for check in decision.checks:
        if not check.name.endswith(in_segments):
            yield f"| {_mark(check.passed)} | {_sentence(check.detail).replace('|', '/')} |"
    yield from _segment_table(decision)


def _segment_table(decision: Decision) -> Iterator[str]:
    judged = [segment for segment in decision.segments if segment.judged]
    compared = any(segment.champion_mae is not None for segment in judged)
    if judged:
        versus = f" version {decision.champion_version} | change |" if compared else ""
        yield f"\n| | segment | rows | mean error |{versus} wMAPE |"
        yield f"|---|---|--:|--:|{'--:|--:|' if compared else ''}--:|"
    for one in judged:
        versus = f" {_dollars(one.champion_mae)} | {_difference(one)} |" if compared else ""
        share = "no number" if one.wmape is None else f"{one.wmape:.1f} %"
        yield f"| {_mark(one.passed)} | {one.name} | {one.rows:,} | {_dollars(one.mae)} |{versus} {share} |"
    few = [f"{one.name} ({one.rows:,})" for one in decision.segments if not one.judged]
    if few:
        yield f"\nNot judged, with fewer than {decision.rules.min_rows:,} rows: {', '.join(few)}."
    yield "\n" + _segment_rules(decision.rules, compared)


def _segment_rules(rules: PromotionRules, compared: bool) -> str:
    """What a reader needs to know of the table."""
    ceilings = f"wMAPE may be {rules.max_category_wmape:g} % ({rules.max_decile_wmape:g} % in a price decile)"
    regression = (
        f", the mean error {_percent(rules.max_segment_regression)} above production's {_confidence(rules)}"
    )
    return f"At most, {ceilings}{regression if compared else ''}. Price decile 1 holds the cheapest rows.\n"


def _difference(segment: Segment) -> str:
    if segment.mae is None or not segment.champion_mae:
        return "no number"
    return f"{100 * (segment.mae / segment.champion_mae - 1):+.1f} %"


def _mark(passed: bool) -> str:
    return "passed" if passed else "**failed**"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
