"""Partitions of the graph: one weekly snapshot of the source, named by its Sunday (UTC)."""

import dagster as dg

# A snapshot is taken on its Sunday, so the key of the running week exists already (end_offset=1).
SNAPSHOTS = dg.WeeklyPartitionsDefinition(start_date="2025-01-05", end_offset=1)


def latest_snapshot() -> str:
    """The newest snapshot key, for example `2026-11-22`."""
    key = SNAPSHOTS.get_last_partition_key()
    if key is None:
        raise ValueError("no snapshot exists yet: the clock stands before the first Sunday, 2025-01-05")
    return key
