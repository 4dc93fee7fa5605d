"""Where alerts are delivered: the log, a Slack-compatible webhook, e-mail, Weights & Biases."""

import logging
import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import Literal, Protocol

import requests
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from housing_assets import wandb_runs
from housing_assets.alerts.messages import Message

SmtpSecurity = Literal["starttls", "tls", "plain"]

logger = logging.getLogger("housing_assets.alerts")

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
# Within one delivery; what fails all the same is delivered later.
ATTEMPTS = 3
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 4.0
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class DeliveryFailed(Exception):
    """A channel did not take a message; the message says why and what to do, without any secret.

    Attributes:
        transient: whether another attempt may help at once.
    """

    def __init__(self, problem: str, *, transient: bool) -> None:
        super().__init__(problem)
        self.transient = transient


class Channel(Protocol):
    """One way to tell people."""

    @property
    def name(self) -> str:
        """By which the alert book remembers what the channel is still to be told."""
        ...

    def send(self, message: Message) -> None:
        """Deliver once.

        Raises:
            DeliveryFailed: it was not taken.
        """
        ...


def deliver(channel: Channel, message: Message) -> None:
    """Deliver, with a few attempts where that can help.

    Raises:
        DeliveryFailed: none of them succeeded.
    """
    retrying = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS),
        retry=retry_if_exception(lambda error: isinstance(error, DeliveryFailed) and error.transient),
        reraise=True,
    )
    retrying(channel.send, message)


@dataclass(frozen=True)
class LogChannel:
    """The log of the process: always there."""

    name: str = "log"

    def send(self, message: Message) -> None:
        """One record for each message."""
        # Also what is over: processes that set up no logging show nothing below a warning.
        level = logging.ERROR if message.severity == "critical" else logging.WARNING
        logger.log(level, "%s\n%s", message.title, message.body)


@dataclass(frozen=True)
class WebhookChannel:
    """A Slack-compatible incoming webhook: `{"text": ...}`, which Slack, Mattermost and others take."""

    # A secret: who knows it can post.
    url: str = field(repr=False)
    name: str = "webhook"

    def send(self, message: Message) -> None:
        """One POST."""
        text = _slack_text(f"*{message.title}*\n{message.body}")
        try:
            response = requests.post(
                self.url,
                json={"text": text},
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                # A redirected POST arrives as a GET without a body.
                allow_redirects=False,
                # What the answer says beyond its status does not matter.
                stream=True,
            )
            response.close()
        except (requests.ConnectionError, requests.Timeout) as error:
            raise DeliveryFailed(
                f"the webhook does not answer ({type(error).__name__}): check HOUSING_ALERT_WEBHOOK_URL "
                "and the network",
                transient=True,
            ) from None
        except requests.RequestException as error:
            # Its text holds the address, which is a secret.
            raise DeliveryFailed(
                f"the webhook cannot be called ({type(error).__name__}): check HOUSING_ALERT_WEBHOOK_URL",
                transient=False,
            ) from None
        if not requests.codes.ok <= response.status_code < requests.codes.multiple_choices:
            raise DeliveryFailed(
                f"the webhook answered {response.status_code} {response.reason}: check "
                "HOUSING_ALERT_WEBHOOK_URL",
                transient=response.status_code in TRANSIENT_STATUS,
            )


def _slack_text(text: str) -> str:
    """The three characters that Slack reads as markup, escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@dataclass(frozen=True)
class EmailChannel:
    """Mail by SMTP.

    Attributes:
        host: of the SMTP server.
        port: 587 is usual for STARTTLS, 465 for TLS.
        security: STARTTLS (refused if the server has none), TLS from the start, or plain text.
        sender: the From address.
        recipients: the To addresses.
        username, password: for servers that ask who sends.
    """

    host: str
    port: int
    security: SmtpSecurity
    sender: str
    recipients: tuple[str, ...]
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    name: str = "email"

    def send(self, message: Message) -> None:
        """One mail to all recipients."""
        server = f"the SMTP server {self.host}:{self.port}"
        try:
            with self._connection() as connection:
                if self.security == "starttls":
                    connection.starttls(context=ssl.create_default_context())
                if self.username is not None:
                    connection.login(self.username, self.password or "")
                refused = connection.send_message(self._mail(message))
        except smtplib.SMTPRecipientsRefused as error:
            raise DeliveryFailed(
                f"{server} refused all recipients ({_replies(error.recipients)}): check "
                "HOUSING_ALERT_EMAIL_TO",
                transient=False,
            ) from error
        except smtplib.SMTPResponseException as error:
            raise DeliveryFailed(
                f"{server} answered {error.smtp_code} {_text(error.smtp_error)}: check SMTP_USERNAME, "
                "SMTP_PASSWORD and HOUSING_ALERT_EMAIL_FROM",
                transient=400 <= error.smtp_code < 500,
            ) from error
        except smtplib.SMTPNotSupportedError as error:
            raise DeliveryFailed(f"{server}: {error} Check SMTP_SECURITY.", transient=False) from error
        except ssl.SSLError as error:
            raise DeliveryFailed(
                f"{server}: {error}; check SMTP_HOST and SMTP_SECURITY", transient=False
            ) from error
        except (smtplib.SMTPException, OSError) as error:
            raise DeliveryFailed(
                f"{server} does not answer ({error}): check SMTP_HOST and SMTP_PORT", transient=True
            ) from error
        if refused:
            # The others have it; another attempt would tell them twice.
            logger.error("%s refused some recipients: %s", server, _replies(refused))

    def _connection(self) -> smtplib.SMTP:
        if self.security == "tls":
            return smtplib.SMTP_SSL(
                self.host, self.port, timeout=ANSWER_SECONDS, context=ssl.create_default_context()
            )
        return smtplib.SMTP(self.host, self.port, timeout=ANSWER_SECONDS)

    def _mail(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        mail["Subject"] = message.title
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.recipients)
        mail["Date"] = formatdate()
        # The same for the same notices: mail programs show what arrives twice once.
        mail["Message-ID"] = f"<{message.key[:32]}@{self.sender.rpartition('@')[2].rstrip('>')}>"
        mail.set_content(message.body)
        return mail


def _replies(refused: dict[str, tuple[int, bytes]]) -> str:
    return ", ".join(f"{address}: {code} {_text(reply)}" for address, (code, reply) in refused.items())


def _text(reply: bytes | str) -> str:
    return reply.decode(errors="replace") if isinstance(reply, bytes) else reply


@dataclass(frozen=True)
class WandbChannel:
    """An alert of Weights & Biases, which sends it on as each user has chosen there."""

    project: str
    entity: str | None
    folder: Path
    name: str = "wandb"

    def send(self, message: Message) -> None:
        """One short run with one alert."""
        import wandb  # noqa: PLC0415  (a second to import)

        levels = {"critical": "ERROR", "warning": "WARN", None: "INFO"}
        try:
            run = wandb_runs.start_run(
                project=self.project,
                entity=self.entity,
                online=True,
                folder=self.folder,
                name="alert",
                group="alerts",
                job_type="alert",
                tags=["alert"],
            )
            try:
                run.alert(title=message.title, text=message.body, level=levels[message.severity])
            finally:
                run.finish()
        except wandb_runs.WandbUnavailable as error:
            raise DeliveryFailed(str(error), transient=False) from error
        except wandb.errors.Error as error:
            raise DeliveryFailed(f"W&B did not take the alert: {error}", transient=False) from error


@dataclass(frozen=True)
class ChannelValues:
    """Which channels a deployment has, by value; the log is always one.

    Attributes:
        webhook_url: of a Slack-compatible incoming webhook.
        email_to: addresses, separated by commas.
        email_from: the sender; the first recipient when left out.
        wandb: whether W&B is told.
    """

    webhook_url: str | None = field(default=None, repr=False)
    email_to: str | None = None
    email_from: str | None = None
    smtp_host: str | None = None
    smtp_port: int = 587
    smtp_security: SmtpSecurity = "starttls"
    smtp_username: str | None = None
    smtp_password: str | None = field(default=None, repr=False)
    wandb: bool = False
    wandb_project: str = ""
    wandb_entity: str | None = None
    wandb_folder: str = ""


def open_channels(values: ChannelValues) -> dict[str, Channel]:
    """The channels by name."""
    channels: list[Channel] = [LogChannel()]
    if values.webhook_url:
        channels.append(WebhookChannel(values.webhook_url))
    if values.email_to and values.smtp_host:
        recipients = tuple(part.strip() for part in values.email_to.split(",") if part.strip())
        channels.append(
            EmailChannel(
                values.smtp_host,
                values.smtp_port,
                values.smtp_security,
                values.email_from or recipients[0],
                recipients,
                values.smtp_username,
                values.smtp_password,
            )
        )
    if values.wandb:
        channels.append(WandbChannel(values.wandb_project, values.wandb_entity, Path(values.wandb_folder)))
    return {channel.name: channel for channel in channels}
