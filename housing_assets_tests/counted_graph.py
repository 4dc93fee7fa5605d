"""One asset that says in a file who made which of its partitions, for tests of who does what how often."""

import os
from pathlib import Path

import dagster as dg

PARTITIONS = tuple(f"part-{number:02d}" for number in range(20))


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(list(PARTITIONS)))
def counted(context: dg.AssetExecutionContext) -> None:
    """A line in the file of the partition."""
    with Path(os.environ["COUNTED_FOLDER"], context.partition_key).open("a") as file:
        file.write(f"{context.run.run_id}\n")


defs = dg.Definitions(assets=[counted], executor=dg.in_process_executor)
