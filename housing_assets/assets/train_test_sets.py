"""`train_set` and `test_set`: a stable hash split on `block_group_id`."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from housing_assets.compute import ComputeResource, Sides
from housing_assets.metadata import table_result
from housing_assets.ml import plots
from housing_assets.ml.report import StepReport
from housing_assets.ml.schemas import SPLIT_SCHEMA
from housing_assets.ml.split import TEST_FRACTION, compare_sets
from housing_assets.partitions import SNAPSHOTS
from housing_assets.snapshot_asset import (
    CODE_VERSION,
    LIGHT,
    OWNERS,
    TRANSIENT_RETRIES,
    blocking_check,
    object_metadata,
    step_resources,
    validation_result,
)
from housing_assets.tables import Table, sample_of
from housing_assets.tracking import TrackingResource

TRAIN_STORED_AT = "data/04-split/{snapshot}/train/train.parquet"
TEST_STORED_AT = "data/04-split/{snapshot}/test/test.parquet"

ALLOWED_TEST_SET_READERS = frozenset({"registered_model"})
# Four standard errors of a binomial share: a split outside of it is a broken hash, not chance.
PROPORTION_SIGMAS = 4.0


class SplitConfig(dg.Config):
    """How much is held out."""

    test_fraction: float = Field(
        default=TEST_FRACTION, gt=0, lt=1, description="Share of block groups held out as test set."
    )


def set_out(stored_at: str, what: str) -> dg.AssetOut:
    """One side of the split as an asset."""
    return dg.AssetOut(
        description=f"{what}: one row is one block group. A row never changes side when data grows.",
        group_name="data",
        kinds={"parquet", "pandas"},
        owners=OWNERS,
        code_version=CODE_VERSION,
        metadata=object_metadata(stored_at),
    )


@dg.multi_asset(
    name="train_test_sets",
    outs={
        "train_set": set_out(TRAIN_STORED_AT, "Rows that everything fitted is fitted on"),
        "test_set": set_out(TEST_STORED_AT, "Held-out rows, scored once per registered version"),
    },
    check_specs=[
        dg.AssetCheckSpec(
            "sets_are_disjoint_and_in_proportion",
            asset="train_set",
            blocking=True,
            description="Train and test share no block group and are in proportion.",
        )
    ],
    partitions_def=SNAPSHOTS,
    retry_policy=TRANSIENT_RETRIES,
    op_tags=step_resources(*LIGHT),
)
def train_test_sets(
    context: dg.AssetExecutionContext,
    config: SplitConfig,
    featured_housing: Table,
    tracking: TrackingResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[Table] | dg.AssetCheckResult]:
    """Split by a hash of `block_group_id`, so a row never changes side when data grows."""
    with tracking.step(context, job_type="segregation", artifact_type="split_data") as step:
        snapshot = context.partition_key
        names = TRAIN_STORED_AT.format(snapshot=snapshot), TEST_STORED_AT.format(snapshot=snapshot)
        sides = compute.split(featured_housing, names, config.test_fraction)
        step.log(split_report(sides, config.test_fraction))
    yield table_result(sides.train, step.metadata, "train_set")
    yield table_result(sides.test, step.metadata, "test_set")
    yield check_sets(sides, config.test_fraction)


def split_report(sides: Sides, test_fraction: float) -> StepReport:
    """Sizes, and how alike the two sides are."""
    train, test = sample_of(sides.train), sample_of(sides.test)
    return StepReport(
        params={"test_fraction": test_fraction},
        metrics={
            "train_samples": len(sides.train),
            "test_samples": len(sides.test),
            "test_share": len(sides.test) / max(len(sides.train) + len(sides.test), 1),
        },
        tables={"train_test_statistics": compare_sets(train, test)},
        figures={"train_test_distributions": plots.train_test_distributions(train, test)},
    )


@blocking_check("train_set", "Schema of the training rows.")
def train_rows_are_valid(train_set: Table, compute: ComputeResource) -> dg.AssetCheckResult:
    """Typed columns within limits and unique ids on the training side."""
    return validation_result(compute.check(train_set, SPLIT_SCHEMA), len(train_set))


def check_sets(sides: Sides, test_fraction: float) -> dg.AssetCheckResult:
    """No id on both sides; the test share is within four standard errors of what the hash should give."""
    shared, train_rows, test_rows = sides.shared, len(sides.train), len(sides.test)
    rows = train_rows + test_rows
    share = test_rows / max(rows, 1)
    tolerance = PROPORTION_SIGMAS * (test_fraction * (1 - test_fraction) / max(rows, 1)) ** 0.5
    return dg.AssetCheckResult(
        asset_key="train_set",
        check_name="sets_are_disjoint_and_in_proportion",
        passed=not shared and train_rows > 0 and abs(share - test_fraction) <= tolerance,
        description=(
            f"{len(shared)} block groups on both sides{': ' + ', '.join(shared[:10]) if shared else ''}; "
            f"test share {share:.4f}, expected {test_fraction} ± {tolerance:.4f}"
        ),
        metadata={"shared_rows": len(shared), "test_share": share, "tolerance": tolerance},
    )


@blocking_check("test_set", "Schema of the test rows, and no asset but the registered model reads them.")
def test_set_does_not_leak(test_set: Table, compute: ComputeResource) -> dg.AssetCheckResult:
    """The test set is valid, and its only reader is the registered model."""
    leaks = sorted(readers_of("test_set") - ALLOWED_TEST_SET_READERS)
    if leaks:
        return dg.AssetCheckResult(
            passed=False, description=f"the test set leaks: {', '.join(leaks)} must not read it"
        )
    return validation_result(compute.check(test_set, SPLIT_SCHEMA), len(test_set))


def readers_of(asset: str) -> set[str]:
    """Names of the assets that have this one upstream."""
    from housing_assets import assets  # noqa: PLC0415  (this module is part of that package)

    return {
        key.to_user_string()
        for definition in dg.load_assets_from_package_module(assets)
        if isinstance(definition, dg.AssetsDefinition)
        for key, upstream in definition.asset_deps.items()
        if dg.AssetKey(asset) in upstream
    }
