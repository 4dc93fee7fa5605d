"""A real SMTP server on a free port, with a login, STARTTLS and replies by value."""

from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from email.policy import default
from ssl import SSLContext

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as SmtpProtocol
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session


class Mailbox:
    """Keeps what it takes; refuses as `replies` say, one for each mail, then takes everything."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.replies: list[str] = []
        self.refused: set[str] = set()

    async def handle_RCPT(
        self, _server: SmtpProtocol, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SmtpProtocol, _session: Session, envelope: Envelope) -> str:
        if self.replies:
            return self.replies.pop(0)
        assert isinstance(envelope.content, bytes)
        self.mails.append(message_from_bytes(envelope.content, policy=default))
        return "250 OK"


class MailServer(Controller):
    """The server; `mailbox` has what was sent to it."""

    def __init__(
        self, port: int, login: tuple[str, str] | None, starttls: SSLContext | None, tls: SSLContext | None
    ) -> None:
        self.mailbox = Mailbox()

        def check(*arguments: object) -> AuthResult:
            data = arguments[-1]
            assert isinstance(data, LoginPassword) and login is not None
            # Not handled: the server answers 535 by itself.
            return AuthResult(success=(data.login.decode(), data.password.decode()) == login, handled=False)

        super().__init__(
            self.mailbox,
            hostname="127.0.0.1",
            port=port,
            ssl_context=tls,
            tls_context=starttls,
            require_starttls=starttls is not None,
            authenticator=check if login else None,
            auth_required=login is not None,
            auth_require_tls=False,
        )


@contextmanager
def mail_server(
    port: int,
    login: tuple[str, str] | None = None,
    starttls: SSLContext | None = None,
    tls: SSLContext | None = None,
) -> Iterator[MailServer]:
    """A running server."""
    server = MailServer(port, login, starttls, tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()
