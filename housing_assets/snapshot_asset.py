"""What all assets and checks of the weekly graph share: partitions, owners, retries, place of storage."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from housing_assets.metadata import markdown_table
from housing_assets.ml.schemas import ValidationReport
from housing_assets.partitions import SNAPSHOTS

OWNERS = ["team:ml-platform"]
CODE_VERSION = "1"
OBJECT_KEY = "object"

# What a step gets where steps are pods (HOUSING_EXECUTOR=k8s); elsewhere nobody reads it.
K8S_TAG = "dagster-k8s/config"
LIGHT = {"cpu": "500m", "memory": "1Gi"}, {"memory": "2Gi"}
HEAVY = {"cpu": "2", "memory": "4Gi"}, {"memory": "8Gi"}

# Only transient storage errors reach this policy; everything else fails at once (see `tracking.final`).
TRANSIENT_RETRIES = dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL)


def snapshot_asset(
    *,
    group: str,
    kinds: set[str],
    stored_at: str | None,
    heavy: bool = False,
    **options: Any,  # noqa: ANN401  (passed on to dg.asset)
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """An asset of one weekly snapshot, stored at the object name `stored_at` (with `{snapshot}` in it).

    A heavy one fits many models.
    """
    decorate: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
        partitions_def=SNAPSHOTS,
        group_name=group,
        kinds=kinds,
        owners=OWNERS,
        code_version=CODE_VERSION,
        retry_policy=TRANSIENT_RETRIES,
        metadata=object_metadata(stored_at),
        op_tags=step_resources(*(HEAVY if heavy else LIGHT)),
        **options,
    )
    return decorate


def step_resources(requests: Mapping[str, str], limits: Mapping[str, str]) -> Mapping[str, Any]:
    """Tags of a step that ask Kubernetes for so much."""
    resources = {"requests": dict(requests), "limits": dict(limits)}
    return {K8S_TAG: {"container_config": {"resources": resources}}}


def object_metadata(stored_at: str | None) -> Mapping[str, str]:
    """Asset metadata by which the IO manager finds the object name."""
    return {} if stored_at is None else {OBJECT_KEY: stored_at}


def blocking_check(
    asset: str | dg.AssetsDefinition,
    description: str,
    **options: Any,  # noqa: ANN401  (passed on to dg.asset_check)
) -> Callable[[Callable[..., dg.AssetCheckResult]], dg.AssetChecksDefinition]:
    """A check that stops what is downstream of its asset when it fails."""
    return dg.asset_check(
        asset=asset, description=description, blocking=True, partitions_def=SNAPSHOTS, **options
    )


def validation_result(report: ValidationReport, rows: int) -> dg.AssetCheckResult:
    """A schema validation as a check result that names rows, columns and reasons."""
    metadata: dict[str, Any] = {"rows_checked": rows, "failures": len(report.failures)}
    if not report.passed:
        metadata["failing_rows"] = markdown_table(report.failures)
    return dg.AssetCheckResult(passed=report.passed, description=report.summary, metadata=metadata)
