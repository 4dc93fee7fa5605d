"""Channels, each against a real server of its protocol."""

import json
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from housing_assets.alerts import channels
from housing_assets.alerts.book import Alert, Notice
from housing_assets.alerts.channels import (
    ChannelValues,
    DeliveryFailed,
    EmailChannel,
    LogChannel,
    WebhookChannel,
    deliver,
    open_channels,
)
from housing_assets.alerts.messages import MAX_LINES, message_of
from housing_assets_tests.alerts.mail_server import MailServer, mail_server
from housing_assets_tests.alerts.reports import NOW, day, finding
from housing_assets_tests.conftest import free_port
from housing_assets_tests.scripted_http import Behaviour, ScriptedServer, answer, break_off, scripted_server

INCOME = Alert.open("drift", day(1), finding("drift:median_income", value=0.8342), NOW)
OPENED = Notice(event="opened", alert=INCOME)
MESSAGE = message_of([OPENED])
BODY = (
    "CRITICAL drift:median_income, 2026-11-25: median_income is not as it was in training. "
    "Measured 0.8342, limit 0.2.\n"
    "What to do: Look at its plot. See docs/runbook.md#drift."
)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(channels, "LONGEST_WAIT_SECONDS", 0.02)


@pytest.fixture
def webhook() -> Iterator[ScriptedServer]:
    """Keeps the bodies that it takes in `bodies`."""
    with scripted_server() as server:
        yield server


def keep(bodies: list[bytes]) -> Behaviour:
    def behave(handler: object, body: bytes) -> None:
        bodies.append(body)
        answer(200, b"ok")(handler, body)  # type: ignore[arg-type]

    return behave


def test_one_notice_says_all_that_a_person_needs() -> None:
    assert (MESSAGE.title, MESSAGE.severity) == ("housing-price-api: drift:median_income opened", "critical")
    assert MESSAGE.body == BODY


def test_several_notices_are_one_message() -> None:
    closed = Notice(event="closed", alert=INCOME.model_copy(update={"closed_at": NOW}))
    message = message_of([OPENED, OPENED, closed])
    assert message.title == "housing-price-api: 2 alerts opened, 1 alert closed"
    assert message.body.count("CRITICAL") == 2
    assert "CLOSED drift:median_income: last found on 2026-11-25, first on 2026-11-25." in message.body
    assert message_of([closed]).severity is None


def test_a_flood_of_notices_stays_readable() -> None:
    message = message_of([OPENED] * (MAX_LINES + 3))
    assert message.body.count("CRITICAL") == MAX_LINES
    assert message.body.endswith("... and 3 more: housing alerts")


def test_the_log_has_the_message_at_the_level_of_its_severity(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "housing_assets.alerts"):
        deliver(LogChannel(), MESSAGE)
    [record] = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", f"{MESSAGE.title}\n{BODY}")


def test_a_webhook_gets_what_slack_expects(webhook: ScriptedServer) -> None:
    bodies: list[bytes] = []
    webhook.afterwards = keep(bodies)
    text = finding("drift:median_income").model_copy(update={"text": "a < b & c > d."})
    alert = Alert.open("drift", day(1), text, NOW)
    deliver(WebhookChannel(f"{webhook.url}/hook"), message_of([Notice(event="opened", alert=alert)]))
    assert webhook.requests == ["POST /hook"]
    [content] = [json.loads(body) for body in bodies]
    assert list(content) == ["text"]
    assert content["text"].startswith("*housing-price-api: drift:median_income opened*\n")
    assert "a &lt; b &amp; c &gt; d." in content["text"]


@pytest.mark.parametrize("trouble", [answer(503), answer(429)])
def test_a_webhook_in_transient_trouble_is_asked_again(webhook: ScriptedServer, trouble: Behaviour) -> None:
    webhook.script = [trouble, trouble]
    webhook.afterwards = answer(200)
    deliver(WebhookChannel(webhook.url), MESSAGE)
    assert len(webhook.requests) == 3


def test_a_webhook_whose_answer_breaks_off_has_taken_the_message(webhook: ScriptedServer) -> None:
    webhook.script = [break_off]
    deliver(WebhookChannel(webhook.url), MESSAGE)
    assert len(webhook.requests) == 1


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (302, 1), (500, 3)])
def test_a_webhook_that_refuses_is_named_without_its_address(
    webhook: ScriptedServer, status: int, attempts: int
) -> None:
    webhook.afterwards = answer(status, Location=webhook.url)
    with pytest.raises(
        DeliveryFailed, match=rf"the webhook answered {status} .*HOUSING_ALERT_WEBHOOK_URL"
    ) as raised:
        deliver(WebhookChannel(f"{webhook.url}/T0/B0/secret"), MESSAGE)
    assert len(webhook.requests) == attempts
    assert "secret" not in str(raised.value)


def test_a_webhook_that_is_not_there_is_named_without_its_address() -> None:
    with pytest.raises(DeliveryFailed, match="the webhook does not answer") as raised:
        deliver(WebhookChannel(f"http://127.0.0.1:{free_port()}/secret"), MESSAGE)
    assert "secret" not in str(raised.value)


def email(server: MailServer, **values: object) -> EmailChannel:
    given: dict[str, object] = {
        "host": "127.0.0.1",
        "port": server.port,
        "security": "plain",
        "sender": "housing@acme.example",
        "recipients": ("ml@acme.example", "ops@acme.example"),
    }
    return EmailChannel(**{**given, **values})  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_a_mail_reaches_all_recipients_with_a_login() -> None:
    with mail_server(free_port(), login=("housing", "s3cret")) as server:
        deliver(email(server, username="housing", password="s3cret"), MESSAGE)
    [mail] = server.mailbox.mails
    assert mail["Subject"] == "housing-price-api: drift:median_income opened"
    assert mail["To"] == "ml@acme.example, ops@acme.example"
    assert mail.get_content().splitlines() == BODY.splitlines()  # type: ignore[attr-defined]
    assert mail["Message-ID"] == f"<{MESSAGE.key[:32]}@acme.example>"


def test_the_same_notices_have_the_same_message_id() -> None:
    assert message_of([OPENED]).key == MESSAGE.key != message_of([OPENED, OPENED]).key


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_a_wrong_password_is_final_and_says_what_to_check() -> None:
    with mail_server(free_port(), login=("housing", "s3cret")) as server:
        with pytest.raises(DeliveryFailed, match=r"answered 535 .*SMTP_PASSWORD") as raised:
            deliver(email(server, username="housing", password="wrong"), MESSAGE)
        assert not raised.value.transient
        assert "wrong" not in str(raised.value)


def test_a_busy_mail_server_is_asked_again() -> None:
    with mail_server(free_port()) as server:
        server.mailbox.replies = ["451 try later", "451 try later"]
        deliver(email(server), MESSAGE)
        assert len(server.mailbox.mails) == 1


def test_one_refused_recipient_does_not_cost_the_others_their_mail(caplog: pytest.LogCaptureFixture) -> None:
    with mail_server(free_port()) as server:
        server.mailbox.refused = {"ops@acme.example"}
        deliver(email(server), MESSAGE)
        assert len(server.mailbox.mails) == 1
        assert "ops@acme.example: 550 no such mailbox" in caplog.text
        server.mailbox.refused.add("ml@acme.example")
        with pytest.raises(DeliveryFailed, match=r"refused all recipients .*HOUSING_ALERT_EMAIL_TO"):
            deliver(email(server), MESSAGE)


def test_starttls_is_not_given_up_when_the_server_has_none() -> None:
    with mail_server(free_port()) as server:
        with pytest.raises(DeliveryFailed, match=r"STARTTLS.* Check SMTP_SECURITY"):
            deliver(email(server, security="starttls"), MESSAGE)
        assert server.mailbox.mails == []


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_files: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*tls_files)
    with mail_server(free_port(), starttls=context) as server:
        with pytest.raises(DeliveryFailed, match=r"certificate verify failed.*SMTP_SECURITY"):
            deliver(email(server, security="starttls"), MESSAGE)
        assert server.mailbox.mails == []


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_trusted_certificate_is_taken(
    tls_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, security: str
) -> None:
    # Both the program's and aiosmtpd's own look at whether the server has started.
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_files[0]))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*tls_files)
    with mail_server(free_port(), **{security: context}) as server:
        deliver(email(server, security=security), MESSAGE)
        assert len(server.mailbox.mails) == 1


def test_a_mail_server_that_is_not_there_is_named() -> None:
    with pytest.raises(DeliveryFailed, match=r"127\.0\.0\.1:9 does not answer .*SMTP_HOST"):
        deliver(EmailChannel("127.0.0.1", 9, "plain", "a@b.example", ("c@d.example",)), MESSAGE)


def test_channels_are_values() -> None:
    assert list(open_channels(ChannelValues())) == ["log"]
    found = open_channels(
        ChannelValues(
            webhook_url="http://127.0.0.1:9/secret",
            email_to="ml@acme.example, ops@acme.example",
            smtp_host="mail.acme.example",
            wandb=True,
        )
    )
    assert list(found) == ["log", "webhook", "email", "wandb"]
    mail = found["email"]
    assert isinstance(mail, EmailChannel)
    assert (mail.sender, mail.recipients) == ("ml@acme.example", ("ml@acme.example", "ops@acme.example"))
    assert "secret" not in repr(found["webhook"])
