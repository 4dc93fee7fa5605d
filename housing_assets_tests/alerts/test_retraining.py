"""When a training follows what was found, and what is said when none does."""

from datetime import datetime, timedelta

from housing_assets.monitoring.findings import Report
from housing_assets.recent_reports import RecentReports
from housing_assets.retraining import COOL_DOWN, Cause, Decision, Retraining, causes_of, decide
from housing_assets_tests.alerts.reports import NOW, day, finding, report

INCOME = Cause("drift:median_income", day(0))
MAPE = Cause("performance:mape", day(0))


def training(ago: timedelta, *causes: Cause, running: bool = False, failed: bool = False) -> Retraining:
    return Retraining("run-1", tuple(cause.name for cause in causes), NOW - ago, not running, failed)


def said(causes: list[Cause], *trainings: Retraining, now: datetime = NOW) -> str:
    decision = decide(causes, trainings, now)
    return "train: " + ", ".join(decision.causes) if isinstance(decision, Decision) else decision


def causes(*newest: Report) -> list[Cause]:
    return causes_of([RecentReports(one.kind, (one,)) for one in newest])


def test_critical_findings_that_a_training_would_help_are_causes() -> None:
    drift = report(
        day(0),
        finding("drift:median_income"),
        finding("drift:latitude", "warning"),
        finding("drift:p99_latency", retrain=False),
    )
    late = report(day(9), finding("performance:mape"), kind="performance")
    assert causes(late, drift) == [INCOME, Cause("performance:mape", day(9))]
    assert causes(report(day(0), finding("drift:median_income"), rows=20)) == []


def test_a_first_cause_is_trained_on() -> None:
    decision = decide([INCOME], [], NOW)
    assert isinstance(decision, Decision)
    assert decision.causes == ("drift:median_income",)
    assert decision.because == "critical on 2026-11-26: drift:median_income"


def test_two_looks_at_the_same_findings_have_one_run_key() -> None:
    first, later = decide([INCOME, MAPE], [], NOW), decide([INCOME, MAPE], [], NOW + timedelta(hours=3))
    other = decide([INCOME], [], NOW)
    assert isinstance(first, Decision) and isinstance(later, Decision) and isinstance(other, Decision)
    assert first.run_key == later.run_key != other.run_key


def test_nothing_is_requested_while_a_training_is_under_way() -> None:
    waits = said([INCOME], training(timedelta(hours=1), running=True))
    assert waits == "drift:median_income: a training is under way already, run run-1"


def test_one_training_a_day_whatever_the_causes_and_however_it_ended() -> None:
    for failed in (False, True):
        assert "1 of at most 1 training(s) a day were requested today" in said(
            [MAPE], training(timedelta(hours=7), INCOME, failed=failed)
        )
    assert said([MAPE], training(timedelta(hours=9), INCOME)) == "train: performance:mape"


def test_a_training_that_no_finding_led_to_counts_for_nothing() -> None:
    assert said([INCOME], training(timedelta(hours=1))) == "train: drift:median_income"


def test_a_cause_rests_after_its_training_but_another_one_does_not() -> None:
    before = training(COOL_DOWN - timedelta(hours=1), INCOME)
    assert said([INCOME], before) == (
        "each cause led to a training already (drift:median_income on 2026-11-19 09:00 UTC): it rests for 7 "
        "days, and until it is found on a day after that training"
    )
    assert said([INCOME, MAPE], before) == "train: performance:mape"
    assert said([INCOME], training(COOL_DOWN, INCOME)) == "train: drift:median_income"


def test_after_a_failed_training_the_cause_is_trained_on_the_next_day() -> None:
    assert said([INCOME], training(timedelta(days=1), INCOME, failed=True)) == "train: drift:median_income"


def test_old_labels_do_not_blame_the_model_that_was_trained_since() -> None:
    trained = training(timedelta(days=20), MAPE)
    assert "each cause led to a training already" in said([Cause("performance:mape", day(25))], trained)
    assert said([Cause("performance:mape", day(19))], trained) == "train: performance:mape"
