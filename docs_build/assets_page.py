"""Reference of the asset graph, from the definitions that Dagster loads."""

from collections.abc import Iterable, Iterator
from typing import Any

import dagster as dg

from docs_build.markdown import code, prose, table
from housing_assets.definitions import build_definitions
from housing_assets.settings import Settings
from housing_assets.snapshot_asset import OBJECT_KEY

# In the order in which a row travels.
GROUPS = ("data", "preprocessing", "training", "serving", "batch", "monitoring")
DEFAULT_STATUS = {"RUNNING": "on", "STOPPED": "off"}
INTRODUCTION = """# Assets

What Dagster loads, in the order of the graph. An object's name is below the storage root: a folder, or `gs://bucket`.
"""


def definitions() -> dg.Definitions:
    """The code location with default settings, whatever the environment says."""
    return build_definitions(Settings.model_construct())


def assets_page() -> str:
    """The page."""
    loaded = definitions()
    specs = specs_in_order(loaded)
    parts = [INTRODUCTION, graph(specs)]
    checks = checks_by_asset(loaded)
    for group in groups_of(specs):
        parts.append(f"## {group}")
        for spec in specs:
            if spec.group_name == group:
                parts.append(asset_section(spec, checks.get(spec.key, []), settings_of(loaded, spec.key)))
    parts += ["## Jobs", jobs_table(loaded), "## Schedules and sensors", automation_table(loaded)]
    return "\n\n".join(parts)


def specs_in_order(loaded: dg.Definitions) -> list[dg.AssetSpec]:
    """Every asset, none before what it is made of."""
    graph = loaded.resolve_asset_graph()
    specs = {spec.key: spec for one in assets_of(loaded) for spec in one.specs}
    return [specs[key] for key in graph.toposorted_asset_keys if key in specs]


def assets_of(loaded: dg.Definitions) -> Iterator[dg.AssetsDefinition]:
    """The definitions of assets."""
    return (one for one in loaded.assets or [] if isinstance(one, dg.AssetsDefinition))


def groups_of(specs: Iterable[dg.AssetSpec]) -> list[str]:
    """The groups there are, in reading order."""
    found = {str(spec.group_name) for spec in specs}
    return [group for group in GROUPS if group in found] + sorted(found - set(GROUPS))


def graph(specs: list[dg.AssetSpec]) -> str:
    """The graph as a diagram."""
    lines = ["```mermaid", "flowchart TD"]
    for group in groups_of(specs):
        lines.append(f"  subgraph {group}")
        lines += [f"    {name(spec.key)}" for spec in specs if spec.group_name == group]
        lines.append("  end")
    edges = {(name(dependency.asset_key), name(spec.key)) for spec in specs for dependency in spec.deps}
    lines += [f"  {above} --> {below}" for above, below in sorted(edges)]
    return "\n".join([*lines, "```"])


def name(key: dg.AssetKey) -> str:
    """An asset's name."""
    return key.to_user_string()


def asset_section(spec: dg.AssetSpec, checks: list[dg.AssetCheckSpec], settings: list[list[str]]) -> str:
    """One asset: what it is, where it is stored, what is checked, and what a run may set."""
    sources = sorted(name(dependency.asset_key) for dependency in spec.deps)
    facts = {
        "Stored as": code(spec.metadata.get(OBJECT_KEY)),
        "Partitions": partitions(spec.partitions_def),
        "Made from": ", ".join(f"[{source}](#{source})" for source in sources),
        "Kinds": ", ".join(sorted(spec.kinds)),
        "Owner": ", ".join(spec.owners),
    }
    listed = "\n".join(f"- **{title}:** {text}" for title, text in facts.items() if text)
    parts = [f"### {name(spec.key)}", prose(spec.description), listed]
    if checks:
        rows = [[code(one.name), "yes" if one.blocking else "", one.description or ""] for one in checks]
        parts.append(table(["check", "stops what is downstream", "holds that"], rows))
    if settings:
        parts.append(table(["setting of a run", "default", "meaning"], settings))
    return "\n\n".join(parts)


def partitions(found: dg.PartitionsDefinition[Any] | None) -> str:
    """How an asset is partitioned, in words."""
    if isinstance(found, dg.WeeklyPartitionsDefinition):
        return f"weekly snapshots, from {found.get_first_partition_key()}"
    if isinstance(found, dg.DailyPartitionsDefinition):
        return f"days in UTC, from {found.get_first_partition_key()}"
    return "none" if found is None else type(found).__name__


def checks_by_asset(loaded: dg.Definitions) -> dict[dg.AssetKey, list[dg.AssetCheckSpec]]:
    """Every check."""
    found: dict[dg.AssetKey, list[dg.AssetCheckSpec]] = {}
    for one in [*assets_of(loaded), *(loaded.asset_checks or [])]:
        for spec in one.check_specs:
            found.setdefault(spec.asset_key, []).append(spec)
    return {key: sorted(specs, key=lambda spec: spec.name) for key, specs in found.items()}


def settings_of(loaded: dg.Definitions, key: dg.AssetKey) -> list[list[str]]:
    """What can be set for a run of an asset, a line for each field, nested ones with a dot."""
    [definition] = [one for one in assets_of(loaded) if key in one.keys]
    return list(field_rows(definition.op.config_schema.config_type, ""))


def field_rows(config: Any, prefix: str) -> Iterator[list[str]]:  # noqa: ANN401  (Dagster does not export its types)
    """The fields of one configuration."""
    for field_name, field in getattr(config, "fields", {}).items():
        if getattr(field.config_type, "fields", {}):
            yield from field_rows(field.config_type, f"{prefix}{field_name}.")
            continue
        default = field.default_value if field.default_provided else None
        yield [code(f"{prefix}{field_name}"), code(default), field.description or ""]


def jobs_table(loaded: dg.Definitions) -> str:
    """Every job, and what it is for."""
    rows = [[code(job.name), job.description or ""] for job in loaded.jobs or []]
    return table(["job", "does"], rows)


def automation_table(loaded: dg.Definitions) -> str:
    """Every schedule and sensor, and whether it is on from the start."""
    rows = [
        [
            code(one.name),
            kind,
            DEFAULT_STATUS[one.default_status.value],
            one.description or "",
        ]
        for kind, found in (("schedule", loaded.schedules or []), ("sensor", loaded.sensors or []))
        for one in found
    ]
    return table(["name", "kind", "from the start", "does"], rows)
