"""Reference of the model bundle: its files, and the fields of its manifest."""

from collections.abc import Iterator
from typing import Any

from docs_build.http_page import described, type_of
from docs_build.markdown import code, prose, table
from housing_serving import manifest


def bundle_page() -> str:
    """The page."""
    schema = manifest.BundleManifest.model_json_schema()
    parts = [
        "# Bundle format",
        f"A bundle is a folder that is written once and never changed, in format {manifest.FORMAT_VERSION}. "
        "[Why it is no pickle](../why.md#why-a-bundle-and-not-a-pickle) is told elsewhere.",
        "## Files",
        table(["file", "holds"], files()),
        "## bundle.json",
        f"{prose(manifest.BundleManifest.__doc__)} Its own checksum, `{manifest.CHECKSUM}`, stands beside "
        "these fields, and fits no others.",
        fields(schema),
    ]
    for name, one in sorted(schema["$defs"].items()):
        parts += [f"### {name}", prose(one.get("description")), fields(one)]
    return "\n\n".join(parts)


def files() -> Iterator[list[str]]:
    """Name and content of every file that a bundle may have."""
    imputers = " or ".join(code(name) for name in manifest.IMPUTER_FILES.values())
    yield [code(manifest.MANIFEST_FILE), "the manifest: everything below"]
    yield [code(manifest.MODEL_FILE), "the compiled model (ONNX, trees in double precision)"]
    yield [imputers, "the imputer, by its kind; a constant stands in the manifest"]
    yield [
        code(manifest.NEIGHBOURS_FILE),
        "places, prices and traits of the training rows, where prices nearby are features",
    ]
    yield [code(manifest.SPREAD_FILE), "the model of how far off a price may be, where intervals are scaled"]
    yield [code(manifest.EXPLANATION_FILE), "the trees as flat arrays, for explanations"]


def fields(schema: dict[str, Any]) -> str:
    """The fields of one part of the manifest."""
    required = schema.get("required", [])
    rows = [
        [code(name), type_of(one), "yes" if name in required else "", described(one)]
        for name, one in schema["properties"].items()
    ]
    return table(["field", "type", "always there", "meaning"], rows)
