"""Partitions: weekly snapshots of the source, named by their Sunday, and days of service; both in UTC."""

import dagster as dg

# A snapshot is taken on its Sunday, so the key of the running week exists already (end_offset=1).
SNAPSHOTS = dg.WeeklyPartitionsDefinition(start_date="2025-01-05", end_offset=1)

# Monitoring goes by UTC days, as the service files its predictions. The running day exists already, so that
# it can be looked at before it ends.
DAYS = dg.DailyPartitionsDefinition(start_date="2025-01-05", end_offset=1)


def latest_snapshot() -> str:
    """The newest snapshot key, for example `2026-11-22`."""
    key = SNAPSHOTS.get_last_partition_key()
    if key is None:
        raise ValueError("no snapshot exists yet: the clock stands before the first Sunday, 2025-01-05")
    return key
