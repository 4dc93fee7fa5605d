"""Whether the API answers, and with which version: asked by one thread for all sessions, so no page waits."""

import threading
from dataclasses import dataclass
from typing import Literal

from housing_serving.webapp.api import ApiRefused, ApiUnavailable, PriceApi

POLL_SECONDS = 1.0
# How long the very first page waits for the first look.
FIRST_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class ServiceStatus:
    """How the API stands."""

    state: Literal["unknown", "ready", "no_model", "unavailable"]
    # While it is ready.
    version: str | None = None


class ServiceWatch:
    """Looks at the API again and again, for as long as the process lives."""

    def __init__(self, api: PriceApi) -> None:
        self._api = api
        self._looked = threading.Event()
        self._status = ServiceStatus("unknown")
        threading.Thread(target=self._watch, name="service watch", daemon=True).start()

    def status(self) -> ServiceStatus:
        """What the latest look has found; waits only for the first one, and not for long."""
        self._looked.wait(FIRST_LOOK_SECONDS)
        return self._status

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            self._status = self._look()
            self._looked.set()
            pause.wait(POLL_SECONDS)

    def _look(self) -> ServiceStatus:
        try:
            version = self._api.ready_version()
        except (ApiUnavailable, ApiRefused):
            return ServiceStatus("unavailable")
        return ServiceStatus("no_model") if version is None else ServiceStatus("ready", version)
