"""`housing alerts` as people use it: in a process of its own, on a real storage root, to real servers."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from housing_assets.alerts.book import ALERT_BOOK
from housing_assets.alerts.channels import WebhookChannel
from housing_assets.alerts.watch import watch
from housing_assets.storage import LocalStore
from housing_assets_tests.alerts.mail_server import mail_server
from housing_assets_tests.alerts.reports import finding, publish, report
from housing_assets_tests.command_line import housing
from housing_assets_tests.conftest import free_port
from housing_assets_tests.scripted_http import ScriptedServer, answer, scripted_server
from housing_assets_tests.serving.test_wandb_summary import WandbStandIn

NOW = datetime.now(UTC)


def look(home: Path, webhook: str, *days: tuple[int, str]) -> None:
    """Reports of some days back, with what each finds, and a look after each."""
    store = LocalStore(home / "storage")
    for back, found in days:
        causes = [finding(found, "warning" if "latitude" in found else "critical")] if found else []
        publish(store, report((NOW - timedelta(days=back)).date(), *causes))
        watch(store, {"webhook": WebhookChannel(webhook)}, NOW)


def test_open_alerts_are_listed_with_what_to_do_and_what_is_undelivered(tmp_path: Path) -> None:
    quiet = housing("alerts", home=tmp_path)
    assert (quiet.returncode, quiet.stdout.strip()) == (0, "no alert is open")
    with scripted_server() as server:
        look(tmp_path, server.url, (2, "drift:median_income"))
    listed = housing("alerts", home=tmp_path)
    assert listed.returncode == 1
    for text in ("critical", "drift:median_income", "0.5", "0.2", "Look at its plot.", "docs/runbook.md"):
        assert text in listed.stdout
    assert (
        "webhook is still to be told 1 change(s); attempt 1 failed: the webhook answered 404" in listed.stdout
    )


def test_a_warning_alone_is_no_failure_and_what_is_over_is_history(tmp_path: Path) -> None:
    assert "no alert was closed yet" in housing("alerts", "history", home=tmp_path).stdout
    with scripted_server() as server:
        server.afterwards = answer(200)
        look(
            tmp_path,
            server.url,
            *((5, "drift:median_income"), (4, ""), (3, ""), (2, "drift:latitude"), (1, "drift:latitude")),
        )
    listed = housing("alerts", home=tmp_path)
    assert (listed.returncode, "drift:latitude" in listed.stdout) == (0, True)
    assert "drift:median_income" not in listed.stdout
    past = housing("alerts", "history", home=tmp_path).stdout
    assert "drift:median_income" in past
    assert f"closed {NOW:%Y-%m-%d}" in past


def test_watch_opens_what_reports_find_and_tells_once(tmp_path: Path) -> None:
    publish(
        LocalStore(tmp_path / "storage"), report(NOW.date() - timedelta(days=1), finding("drift:latitude"))
    )
    with scripted_server() as server:
        server.afterwards = answer(200)
        for _ in range(2):
            watched = housing("alerts", "watch", home=tmp_path, HOUSING_ALERT_WEBHOOK_URL=server.url)
            assert watched.returncode == 1
            assert "drift:latitude" in watched.stdout
        assert len(server.requests) == 1


def test_a_damaged_book_is_a_clear_error(tmp_path: Path) -> None:
    LocalStore(tmp_path / "storage").write(ALERT_BOOK, b"[]")
    for command in ([], ["history"], ["watch"]):
        failed = housing("alerts", *command, home=tmp_path)
        assert failed.returncode == 1
        assert "is no alert book" in failed.stderr
        assert "Traceback" not in failed.stderr


class AlertStandIn(WandbStandIn):
    """W&B as far as an alert needs it."""

    def __init__(self, server: ScriptedServer) -> None:
        super().__init__(server)
        self.alerts: list[dict[str, Any]] = []

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        if operation == "NotifyScriptableRunAlert":
            self.alerts.append(variables)
            return {"notifyScriptableRunAlert": {"success": True}}
        return super().answer(operation, variables)


def test_a_test_message_arrives_on_every_channel(tmp_path: Path) -> None:
    bodies: list[bytes] = []
    with scripted_server() as hook, scripted_server() as wandb, mail_server(free_port()) as mail:
        hook.afterwards = lambda handler, body: (bodies.append(body), answer(200)(handler, body))[1]
        stand_in = AlertStandIn(wandb)
        tested = housing(
            *("alerts", "test"),
            home=tmp_path,
            HOUSING_ALERT_WEBHOOK_URL=f"{hook.url}/hook",
            HOUSING_ALERT_EMAIL_TO="ml@acme.example",
            SMTP_HOST="127.0.0.1",
            SMTP_PORT=str(mail.port),
            SMTP_SECURITY="plain",
            HOUSING_ALERT_WANDB="true",
            WANDB_API_KEY="k" * 40,
            WANDB_BASE_URL=wandb.url,
        )
        assert tested.returncode == 0, tested.stdout + tested.stderr
    for channel in ("log", "webhook", "email", "wandb"):
        assert f"{channel} has taken a test message" in tested.stdout
    assert "housing-price-api: test" in json.loads(bodies[0])["text"]
    assert [one["Subject"] for one in mail.mailbox.mails] == ["housing-price-api: test"]
    [alert] = stand_in.alerts
    assert (alert["title"], alert["severity"]) == ("housing-price-api: test", "INFO")


def test_a_channel_that_does_not_take_it_fails_the_test(tmp_path: Path) -> None:
    with scripted_server() as hook:
        tested = housing("alerts", "test", home=tmp_path, HOUSING_ALERT_WEBHOOK_URL=f"{hook.url}/secret")
    assert tested.returncode == 1
    assert "webhook the webhook answered 404" in tested.stdout
    assert "secret" not in tested.stdout + tested.stderr


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"HOUSING_ALERT_EMAIL_TO": "a@b.example"}, "SMTP_HOST is not set: set it to the mail server"),
        ({"SMTP_HOST": "mail"}, "HOUSING_ALERT_EMAIL_TO is not set: set it to who gets mail"),
        ({"HOUSING_ALERT_WEBHOOK_URL": "acme"}, "HOUSING_ALERT_WEBHOOK_URL is no http(s) address"),
        ({"HOUSING_ALERT_WANDB": "true"}, "WANDB_API_KEY is not set"),
        ({"SMTP_USERNAME": "a"}, "one of SMTP_USERNAME and SMTP_PASSWORD is not set"),
    ],
)
def test_a_half_set_channel_is_named_at_the_start(
    tmp_path: Path, values: dict[str, str], problem: str
) -> None:
    refused = housing("alerts", home=tmp_path, **values)
    assert refused.returncode == 2
    assert problem in refused.stderr
