"""HTTP connections that end when a deadline passes. Imported only where a source speaks HTTP."""

from collections.abc import Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from housing_serving.deadline import Deadline


class DeadlineAdapter(HTTPAdapter):
    """Connects as `requests` always does, and lets the deadline watch every connection."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: tuple[str, str] | str | None = None,
    ) -> Any:  # noqa: ANN401
        """The pool for a request, whose new connections are watched."""
        pool: Any = super().get_connection_with_tls_context(request, verify, proxies, cert)
        connection_class = type(pool).ConnectionCls

        def watched_connection(**arguments: object) -> object:
            connection = connection_class(**arguments)
            connect = connection.connect

            def connect_and_watch() -> None:
                connect()
                self._deadline.watch(connection.sock)

            connection.connect = connect_and_watch
            return connection

        pool.ConnectionCls = watched_connection
        return pool


def end_with(deadline: Deadline, session: requests.Session) -> None:
    """Let all connections of a session end when the deadline passes."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, DeadlineAdapter(deadline))
