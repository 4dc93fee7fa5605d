"""A graph of two small tracked assets, for tests of tracking that need no model.

`TINY_FAIL` makes the second asset fail: `body`, or `crash` (its process kills itself).
"""

import os
import signal

import dagster as dg
import pandas as pd

from housing_assets.deployments import build_executor, build_resources
from housing_assets.ml.report import StepReport
from housing_assets.sensors import SENSORS
from housing_assets.settings import Settings
from housing_assets.snapshot_asset import snapshot_asset
from housing_assets.tracking import TrackingResource


@snapshot_asset(group="tiny", kinds={"pandas"}, stored_at="tiny/{snapshot}/first.parquet")
def first(context: dg.AssetExecutionContext, tracking: TrackingResource) -> pd.DataFrame:
    """Two rows."""
    with tracking.step(context, job_type="first", artifact_type="table") as step:
        frame = pd.DataFrame({"value": [1.0, 2.0]})
        step.log(StepReport(params={"colour": "blue"}, metrics={"rows": 2.0}, tables={"values": frame}))
    return frame


@snapshot_asset(group="tiny", kinds={"json"}, stored_at="tiny/{snapshot}/second.json")
def second(
    context: dg.AssetExecutionContext, first: pd.DataFrame, tracking: TrackingResource
) -> dict[str, float]:
    """The sum of the rows."""
    with tracking.step(context, job_type="second", artifact_type="result") as step:
        if os.environ.get("TINY_FAIL") == "body":
            raise ValueError("row 7 is wrong")
        if os.environ.get("TINY_FAIL") == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        step.log(StepReport(metrics={"sum": float(first["value"].sum())}))
    return {"sum": float(first["value"].sum())}


tiny_job = dg.define_asset_job("tiny_job", selection=[first, second])


@dg.definitions
def defs() -> dg.Definitions:
    """The tiny graph with the product's own resources, executor and sensors."""
    settings = Settings.load()
    return dg.Definitions(
        assets=[first, second],
        jobs=[tiny_job],
        sensors=SENSORS,
        resources=build_resources(settings),
        executor=build_executor(settings),
    )
