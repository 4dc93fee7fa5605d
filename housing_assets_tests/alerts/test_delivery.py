"""From reports in a storage root to messages: nothing twice, nothing lost, nobody waits for anybody."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest

from housing_assets.alerts import channels
from housing_assets.alerts.book import ALERT_BOOK, AlertBookConflict, AlertBookStore, AlertBookUnreadable
from housing_assets.alerts.channels import Channel, EmailChannel, WebhookChannel
from housing_assets.alerts.delivery import FIRST_RETRY, LONGEST_RETRY
from housing_assets.alerts.messages import Message
from housing_assets.alerts.watch import Look, watch
from housing_assets.monitoring.findings import report_name
from housing_assets.storage import LocalStore, ObjectStore, open_store
from housing_assets_tests.alerts.mail_server import mail_server
from housing_assets_tests.alerts.reports import NOW, day, finding, publish, report
from housing_assets_tests.conftest import free_port
from housing_assets_tests.running_stack import wait_for
from housing_assets_tests.scripted_http import ScriptedHandler, ScriptedServer, answer, scripted_server


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(channels, "LONGEST_WAIT_SECONDS", 0.02)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return LocalStore(tmp_path)


class Chat:
    """A webhook that keeps the texts it has taken."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.texts: list[str] = []
        server.afterwards = self.take
        self.channels: dict[str, Channel] = {"webhook": WebhookChannel(server.url)}

    def take(self, handler: ScriptedHandler, body: bytes) -> None:
        self.texts.append(json.loads(body)["text"])
        handler.reply(200, [], b"ok")


@pytest.fixture
def chat() -> Iterator[Chat]:
    with scripted_server() as server:
        yield Chat(server)


class FakeChannel:
    """Does what a test says."""

    def __init__(self, name: str, do: Callable[[Message], None]) -> None:
        self.name = name
        self.send = do


def titles(texts: list[str]) -> list[str]:
    return [text.splitlines()[0] for text in texts]


def test_a_cause_is_told_once_however_often_one_looks(store: ObjectStore, chat: Chat) -> None:
    publish(store, report(day(1), finding("drift:median_income")))
    for minutes in range(5):
        look = watch(store, chat.channels, NOW + timedelta(minutes=minutes))
    # A new process knows nothing but the storage root.
    watch(LocalStore(store.root), chat.channels, NOW + timedelta(hours=3))
    assert titles(chat.texts) == ["*housing-price-api: drift:median_income opened*"]
    assert [alert.cause for alert in look.opened] == ["drift:median_income"]


def test_a_look_at_what_is_known_writes_nothing(store: ObjectStore, chat: Chat) -> None:
    publish(store, report(day(1), finding("drift:median_income")))
    watch(store, chat.channels, NOW)
    before = store.info(ALERT_BOOK).generation
    watch(store, chat.channels, NOW + timedelta(minutes=1))
    assert store.info(ALERT_BOOK).generation == before


def test_without_reports_there_is_no_book(store: ObjectStore, chat: Chat) -> None:
    assert watch(store, chat.channels, NOW) == Look((), (), ())
    assert not store.exists(ALERT_BOOK)


def test_an_alert_from_its_first_day_to_its_last_in_a_bucket(gcs_bucket: str, chat: Chat) -> None:
    store = open_store(f"gs://{gcs_bucket}")
    for back, findings in ((3, [finding("drift:median_income")]), (2, []), (1, [])):
        publish(store, report(day(back), *findings))
        watch(store, chat.channels, NOW - timedelta(days=back))
        watch(store, chat.channels, NOW - timedelta(days=back))
    assert titles(chat.texts) == [
        "*housing-price-api: drift:median_income opened*",
        "*housing-price-api: drift:median_income closed*",
    ]
    book = AlertBookStore(store).read().book
    assert ([alert.cause for alert in book.closed], book.opened) == (["drift:median_income"], ())


def test_what_one_look_finds_is_one_message(store: ObjectStore, chat: Chat) -> None:
    publish(store, report(day(1), *(finding(f"drift:f{number}") for number in range(9))))
    publish(store, report(day(5), finding("performance:mape"), kind="performance"))
    watch(store, chat.channels, NOW)
    assert titles(chat.texts) == ["*housing-price-api: 10 alerts opened*"]


def test_a_channel_that_fails_costs_the_others_nothing_and_is_told_later(
    store: ObjectStore, chat: Chat
) -> None:
    with mail_server(free_port()) as server:
        mail = EmailChannel("127.0.0.1", server.port, "plain", "a@b.example", ("c@d.example",))
        both = {"email": mail, **chat.channels}
        chat.server.script = [answer(503)] * 3
        publish(store, report(day(1), finding("drift:median_income")))
        [failed] = [one for one in watch(store, both, NOW).delivered if one.problem]
        assert (failed.channel, failed.problem) == (
            "webhook",
            "the webhook answered 503 Service Unavailable: check HOUSING_ALERT_WEBHOOK_URL",
        )
        assert (len(server.mailbox.mails), chat.texts) == (1, [])

        assert watch(store, both, NOW + FIRST_RETRY / 2).delivered == ()
        assert watch(store, both, NOW + FIRST_RETRY).delivered[0].problem is None
        assert watch(store, both, NOW + 10 * LONGEST_RETRY).delivered == ()
        assert (len(server.mailbox.mails), len(chat.texts)) == (1, 1)


def test_retries_grow_apart_and_what_came_in_meanwhile_goes_with_them(store: ObjectStore, chat: Chat) -> None:
    chat.server.afterwards = answer(404)
    publish(store, report(day(2), finding("drift:median_income")))
    times = []
    for minute in range(0, 300):
        if watch(store, chat.channels, NOW + timedelta(minutes=minute)).delivered:
            times.append(minute)
    assert times == [0, 2, 6, 14, 30, 62, 122, 182, 242]
    publish(store, report(day(1), finding("drift:median_income"), finding("drift:latitude")))
    watch(store, chat.channels, NOW + timedelta(minutes=299))
    [box] = AlertBookStore(store).read().book.outboxes
    assert (len(box.notices), box.attempts) == (2, 9)
    assert box.problem == "the webhook answered 404 Not Found: check HOUSING_ALERT_WEBHOOK_URL"

    chat.server.afterwards = chat.take
    watch(store, chat.channels, NOW + timedelta(minutes=303))
    assert titles(chat.texts) == ["*housing-price-api: 2 alerts opened*"]
    assert AlertBookStore(store).read().book.outboxes == ()


def test_eight_daemons_at_once_tell_it_once(store: ObjectStore, chat: Chat) -> None:
    publish(store, report(day(1), finding("drift:median_income")))
    barrier = Barrier(8)

    def one(_: int) -> str:
        own = LocalStore(store.root)
        barrier.wait()
        try:
            watch(own, chat.channels, NOW)
        except AlertBookConflict as error:
            return str(error)
        return "looked"

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(one, range(8)))
    assert "looked" in said
    assert all(text == "looked" or "changed by somebody else" in text for text in said)
    watch(store, chat.channels, NOW + timedelta(days=1))
    assert len(chat.texts) == 1


def test_what_comes_in_during_a_delivery_is_kept(store: ObjectStore) -> None:
    told: list[str] = []

    def slow(message: Message) -> None:
        if not told:
            publish(store, report(day(0), finding("drift:median_income"), finding("drift:latitude")))
            look = {"chat": FakeChannel("chat", lambda _: None)}
            assert watch(store, look, NOW).delivered == ()
        told.append(message.title)

    publish(store, report(day(1), finding("drift:median_income")))
    chat = {"chat": FakeChannel("chat", slow)}
    watch(store, chat, NOW)
    watch(store, chat, NOW)
    assert told == [
        "housing-price-api: drift:median_income opened",
        "housing-price-api: drift:latitude opened",
    ]


def test_a_channel_that_hangs_does_not_cost_the_others_their_note(store: ObjectStore, chat: Chat) -> None:
    def hang(_: Message) -> None:
        wait_for("the other channel's note", lambda: left() == ["hung"], 20)

    def left() -> list[str]:
        return [box.channel for box in AlertBookStore(store).read().book.outboxes]

    publish(store, report(day(1), finding("drift:median_income")))
    both = {"hung": FakeChannel("hung", hang), **chat.channels}
    assert [outcome.problem for outcome in watch(store, both, NOW).delivered] == [None, None]
    assert (len(chat.texts), left()) == (1, [])


def test_what_a_process_that_died_had_begun_is_delivered_by_the_next(store: ObjectStore, chat: Chat) -> None:
    def die(_: Message) -> None:
        raise KeyboardInterrupt

    publish(store, report(day(1), finding("drift:median_income")))
    with pytest.raises(KeyboardInterrupt):
        watch(store, {"webhook": FakeChannel("webhook", die)}, NOW)
    # It may still be at it.
    assert watch(store, chat.channels, NOW + FIRST_RETRY / 2).delivered == ()
    watch(store, chat.channels, NOW + FIRST_RETRY)
    watch(store, chat.channels, NOW + 10 * LONGEST_RETRY)
    assert titles(chat.texts) == ["*housing-price-api: drift:median_income opened*"]


def test_a_defect_of_one_channel_is_noted_and_does_not_undo_the_others(
    store: ObjectStore, chat: Chat
) -> None:
    def broken(_: Message) -> None:
        raise KeyError("title")

    publish(store, report(day(1), finding("drift:median_income")))
    both = {"broken": FakeChannel("broken", broken), **chat.channels}
    watch(store, both, NOW)
    watch(store, both, NOW + timedelta(seconds=30))
    assert len(chat.texts) == 1
    [box] = AlertBookStore(store).read().book.outboxes
    assert (box.channel, box.problem) == ("broken", "KeyError: 'title'")


def test_old_and_future_days_alarm_nobody(store: ObjectStore, chat: Chat) -> None:
    publish(store, report(day(-1), finding("drift:latitude")), report(day(30), finding("drift:longitude")))
    assert watch(store, chat.channels, NOW).opened == ()


def test_what_labels_show_is_found_weeks_later_and_not_gone_with_the_labels(
    store: ObjectStore, chat: Chat
) -> None:
    def scored(back: int, *, labels: int, wrong: bool = False) -> None:
        found = [finding("performance:mape", from_labels=True)] if wrong else []
        publish(store, report(day(back), *found, kind="performance", labels=labels))

    for back in range(1, 25):
        scored(back, labels=0)
    assert watch(store, chat.channels, NOW).opened == ()
    scored(20, labels=500, wrong=True)
    assert [alert.cause for alert in watch(store, chat.channels, NOW).opened] == ["performance:mape"]
    # A few labels show nothing, and two days that have enough of them are what it takes.
    for back, labels, opened in ((19, 40, 1), (18, 500, 1), (17, 500, 0)):
        scored(back, labels=labels)
        assert len(watch(store, chat.channels, NOW).opened) == opened
    assert titles(chat.texts) == [
        "*housing-price-api: performance:mape opened*",
        "*housing-price-api: performance:mape closed*",
    ]


def test_what_needs_no_labels_is_found_on_the_newest_day(store: ObjectStore, chat: Chat) -> None:
    publish(
        store, report(day(9), finding("performance:mape", from_labels=True), kind="performance", labels=500)
    )
    publish(store, report(day(3), finding("performance:price_spread"), kind="performance"))
    for back in (2, 1):
        assert len(watch(store, chat.channels, NOW).opened) == 2
        publish(store, report(day(back), kind="performance"))
    assert [alert.cause for alert in watch(store, chat.channels, NOW).opened] == ["performance:mape"]


def test_a_damaged_report_is_named_and_the_others_are_looked_at(store: ObjectStore, chat: Chat) -> None:
    publish(store, report(day(5), finding("performance:mape"), kind="performance"))
    store.write(report_name("drift", day(1)), b'{"day": "2026-11-25"}')
    look = watch(store, chat.channels, NOW)
    assert [alert.cause for alert in look.opened] == ["performance:mape"]
    [problem] = look.problems
    assert problem.startswith(f"{store.root}/monitoring/reports/drift/2026-11-25.json is no report (kind: ")
    assert problem.endswith("materialize drift_report of 2026-11-25 again")


def test_what_lies_beside_the_reports_is_none(store: ObjectStore, chat: Chat) -> None:
    for name in ("2026-11-25.html", "20261125.json", "2026-11-25/plot.json"):
        store.write(f"monitoring/reports/drift/{name}", b"something else")
    assert watch(store, chat.channels, NOW) == Look((), (), ())


def test_a_damaged_book_is_named_and_stays_as_it_is(store: ObjectStore, chat: Chat) -> None:
    store.write(ALERT_BOOK, b'{"opened": 1}')
    publish(store, report(day(1), finding("drift:median_income")))
    with pytest.raises(
        AlertBookUnreadable, match=r"alerts.json is no alert book \(opened: .*restore it, or delete"
    ):
        watch(store, chat.channels, NOW)
    assert store.read(ALERT_BOOK) == b'{"opened": 1}'
    assert chat.texts == []
