"""Log lines as JSON objects, one a line, as log collectors read them."""

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime

import orjson

# What every record carries; anything else was given as `extra` and belongs into the line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """Time, severity, logger, message and every `extra` field of a record."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "severity": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure_logging(level: str = "INFO") -> None:
    """Send all logs of the process to standard error as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class RequestLines:
    """The log line of each request, in the same form, written several at once.

    By way of `logging` a line costs as much as a prediction. The lines of a tenth of a second are written
    together instead.
    """

    LOGGER = "housing_serving.requests"
    SECONDS = 0.1

    def __init__(self) -> None:
        self._waiting: list[bytes] = []

    def add(self, **fields: object) -> None:
        """Note a request that was answered just now."""
        if not self._waiting:
            if not logging.getLogger(self.LOGGER).isEnabledFor(logging.INFO):
                return
            asyncio.get_running_loop().call_later(self.SECONDS, self.flush)
        line = {
            "time": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds"),
            "severity": "INFO",
            "logger": self.LOGGER,
            "message": "request",
            **fields,
        }
        self._waiting.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def flush(self) -> None:
        """Write what waits."""
        lines, self._waiting = self._waiting, []
        sys.stderr.flush()
        sys.stderr.buffer.write(b"".join(lines))
        sys.stderr.buffer.flush()
