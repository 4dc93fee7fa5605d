"""Jobs: named selections of the graph."""

import dagster as dg

training_job = dg.define_asset_job(
    "training_job",
    selection=dg.AssetSelection.groups("data", "preprocessing", "training"),
    description="From the source rows of one weekly snapshot to a registered model version in `staging`.",
    tags={"housing/kind": "training"},
)
