"""When alerts open, become worse and close, day by day."""

from collections.abc import Sequence
from datetime import date

from housing_assets.alerts.book import MAX_CLOSED, AlertBook
from housing_assets.alerts.rules import AlertRules, apply_reports
from housing_assets.monitoring.findings import Finding, Report
from housing_assets.recent_reports import RecentReports
from housing_assets_tests.alerts.reports import NOW, day, finding, report

RULES = AlertRules()
INCOME = "drift:median_income"


def look(book: AlertBook, reports: Sequence[Report]) -> AlertBook:
    """The book after a look at these reports, of which the last is the newest."""
    newest = tuple(reversed(reports))[: RULES.reports]
    return apply_reports(book, [RecentReports("drift", newest)], ["log"], RULES, NOW)


def events(days: Sequence[Sequence[Finding]], rows: int = 5000) -> list[tuple[date, str, str]]:
    """What happens over these days, with a look after each of them and another one before the next."""
    book, reports, happened = AlertBook(), [], []
    for number, findings in enumerate(days):
        reports.append(report(day(len(days) - number), *findings, rows=rows))
        before = len(book.outbox("log").notices)
        book = look(book, reports)
        assert look(book, reports) == book
        happened += [
            (reports[-1].day, notice.event, notice.alert.cause)
            for notice in book.outbox("log").notices[before:]
        ]
    return happened


CRITICAL, WARNING = [finding(INCOME)], [finding(INCOME, "warning")]
CLEAN: list[Finding] = []


def test_a_critical_cause_opens_on_its_first_day_and_once() -> None:
    assert events([CLEAN, CRITICAL, CRITICAL, CRITICAL]) == [(day(3), "opened", INCOME)]


def test_a_warning_opens_on_its_second_day() -> None:
    assert events([WARNING, WARNING, WARNING]) == [(day(2), "opened", INCOME)]


def test_warnings_that_come_and_go_open_nothing() -> None:
    assert events([WARNING, CLEAN] * 10) == []


def test_an_alert_closes_after_two_clean_days() -> None:
    assert events([CRITICAL, CLEAN, CLEAN, CLEAN]) == [(day(4), "opened", INCOME), (day(2), "closed", INCOME)]


def test_an_alert_whose_cause_comes_and_goes_stays_open() -> None:
    assert events([CRITICAL, CLEAN] * 10) == [(day(20), "opened", INCOME)]


def test_a_warning_keeps_a_critical_alert_open_as_it_was() -> None:
    book = look(AlertBook(), [report(day(2), *CRITICAL)])
    [alert] = look(book, [report(day(2), *CRITICAL), report(day(1), *WARNING)]).opened
    assert (alert.severity, alert.first_day, alert.last_day) == ("critical", day(2), day(1))


def test_a_warning_that_becomes_critical_is_told_once() -> None:
    assert events([WARNING, WARNING, CRITICAL, WARNING, CRITICAL]) == [
        (day(4), "opened", INCOME),
        (day(3), "worse", INCOME),
    ]


def test_a_cause_that_comes_back_is_a_new_alert() -> None:
    happened = events([CRITICAL, CLEAN, CLEAN, CRITICAL])
    assert [event for _, event, _ in happened] == ["opened", "closed", "opened"]


def test_each_cause_has_its_own_alert() -> None:
    other = finding("drift:ocean_proximity")
    assert events([[*CRITICAL, other], [other], [other]]) == [
        (day(3), "opened", INCOME),
        (day(3), "opened", "drift:ocean_proximity"),
        (day(1), "closed", INCOME),
    ]


def test_days_with_hardly_any_prediction_close_nothing() -> None:
    book = look(AlertBook(), [report(day(3), *CRITICAL)])
    quiet = [report(day(3), *CRITICAL), report(day(2), rows=3), report(day(1), rows=0)]
    assert look(book, quiet) == book


def test_one_clean_report_alone_closes_nothing() -> None:
    book = look(AlertBook(), [report(day(3), *CRITICAL)])
    assert look(book, [report(day(1))]) == book


def test_drift_reports_do_not_close_what_performance_reports_found() -> None:
    found = report(day(2), finding("performance:mape"), kind="performance")
    book = apply_reports(AlertBook(), [RecentReports("performance", (found,))], ["log"], RULES, NOW)
    assert [alert.cause for alert in look(book, [report(day(2)), report(day(1))]).opened] == [
        "performance:mape"
    ]


def test_without_any_report_nothing_changes() -> None:
    book = look(AlertBook(), [report(day(1), *CRITICAL)])
    assert apply_reports(book, [RecentReports("drift", ())], ["log"], RULES, NOW) == book


def test_every_channel_is_to_be_told_and_one_that_is_gone_is_forgotten() -> None:
    found = RecentReports("drift", (report(day(1), *CRITICAL),))
    book = apply_reports(AlertBook(), [found], ["log", "webhook"], RULES, NOW)
    assert [(box.channel, len(box.notices)) for box in book.outboxes] == [("log", 1), ("webhook", 1)]
    assert [box.channel for box in apply_reports(book, [found], ["log"], RULES, NOW).outboxes] == ["log"]


def test_the_book_stays_small() -> None:
    many = [[finding(f"drift:f{number}") for number in range(MAX_CLOSED + 50)], CLEAN, CLEAN]
    book, reports = AlertBook(), []
    for number, findings in enumerate(many):
        reports.append(report(day(3 - number), *findings))
        book = look(book, reports)
    assert (len(book.opened), len(book.closed)) == (0, MAX_CLOSED)
