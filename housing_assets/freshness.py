"""How old an asset may be before the UI calls it stale: the policies of the groups."""

from datetime import timedelta

import dagster as dg

# A snapshot is taken on its Sunday; by Monday morning everything is computed from it.
WEEKLY = dg.FreshnessPolicy.cron(deadline_cron="0 6 * * 1", lower_bound_delta=timedelta(hours=30))
# A day is over at midnight; in the morning people look at what it brought.
DAILY = dg.FreshnessPolicy.cron(deadline_cron="0 6 * * *", lower_bound_delta=timedelta(hours=6))

# `serving` has none: a deployment is as old as the last model that was better than the one before. Nor has
# `batch`: its inputs come when somebody has some.
POLICIES = {"data": WEEKLY, "preprocessing": WEEKLY, "training": WEEKLY, "monitoring": DAILY}


def with_freshness(definition: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """The same assets, each with the policy of its group."""

    def policed(spec: dg.AssetSpec) -> dg.AssetSpec:
        policy = POLICIES.get(spec.group_name or "")
        return spec if policy is None else dg.apply_freshness_policy(spec, policy)

    return definition.map_asset_specs(policed)
