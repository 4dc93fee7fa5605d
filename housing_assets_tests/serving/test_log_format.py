"""Log lines: one JSON object each, whatever was logged."""

import json
import logging
import sys

import pytest

from housing_serving.log_format import JsonFormatter, configure_logging


def test_extra_fields_become_fields_of_the_line() -> None:
    record = logging.makeLogRecord(
        {
            "name": "api",
            "levelname": "INFO",
            "msg": "loaded %s",
            "args": ("3",),
            "created": 0.0,
            "source": "x",
        }
    )

    assert json.loads(JsonFormatter().format(record)) == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "severity": "INFO",
        "logger": "api",
        "message": "loaded 3",
        "source": "x",
    }


def test_exceptions_and_foreign_values_stay_on_one_line() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info(), "value": {1}})

    line = JsonFormatter().format(record)

    assert "\n" not in line
    assert "ValueError: first\nsecond" in json.loads(line)["exception"]
    assert json.loads(line)["value"] == "{1}"


def test_the_whole_process_logs_json_to_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.Logger("root")
    monkeypatch.setattr(logging, "root", root)

    configure_logging()
    root.info("hello")

    assert json.loads(capsys.readouterr().err)["message"] == "hello"
