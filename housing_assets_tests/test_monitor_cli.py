"""`housing monitor` as a workflow uses it: in a process of its own, without a daemon."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from housing_assets.storage import LocalStore
from housing_assets_tests.command_line import housing


def test_yesterday_is_looked_at(tmp_path: Path) -> None:
    yesterday = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    looked = housing("monitor", "--day", yesterday, home=tmp_path)
    assert looked.returncode == 0, looked.stderr
    assert f"{yesterday}: 0 predictions" in looked.stdout
    LocalStore(tmp_path / "storage").read(f"monitoring/reports/drift/{yesterday}.json")


def test_what_is_no_day_is_a_clear_error(tmp_path: Path) -> None:
    refused = housing("monitor", "--day", "yesterday", home=tmp_path)
    assert refused.returncode == 1
    assert "'yesterday' is no day: give one from 2025-01-05 to today" in refused.stderr
