"""Reference of the HTTP interface, from the OpenAPI document that the service itself serves."""

import json
from typing import Any

from pydantic import SecretStr

from docs_build.markdown import code, table
from housing_serving.app import create_app
from housing_serving.settings import ServingSettings

Schema = dict[str, Any]


def service_settings() -> ServingSettings:
    """Defaults, whatever the environment says; with keys and a limit, so that what they answer is shown."""
    key = SecretStr("k3y-0123456789abcdef")
    return ServingSettings.model_construct(housing_api_keys=key, housing_rate_limit="100/minute")


def http_page() -> str:
    """The page."""
    document = create_app(service_settings()).openapi()
    parts = [f"# HTTP interface\n\n{document['info']['description']}\n"]
    parts.append("Of a service with keys and a rate limit; [the prediction API](../api.md) explains it.\n")
    for path, methods in document["paths"].items():
        parts += [operation(method.upper(), path, one) for method, one in methods.items()]
    parts.append("## Objects\n")
    parts += [schema_section(name, one) for name, one in sorted(document["components"]["schemas"].items())]
    return "\n\n".join(parts)


def operation(method: str, path: str, one: Schema) -> str:
    """One route: what it does, what it takes and what it answers."""
    parts = [f"## {method} {path}", f"**{one['summary']}.** {one.get('description', '')}"]
    for content in one.get("requestBody", {}).get("content", {}).values():
        parts.append(f"Takes {type_of(content['schema'])}:")
        example = next(iter(content["examples"].values()))["value"]
        parts.append(f"```json\n{json.dumps(example, indent=2)}\n```")
    rows = [row for status, answer in one["responses"].items() for row in answer_rows(status, answer)]
    return "\n\n".join([*parts, table(["status", "answers", "says"], rows)])


def answer_rows(status: str, answer: Schema) -> list[list[str]]:
    """One line for each thing that a status can mean."""
    content = next(iter(answer.get("content", {}).items()), None)
    if content is None:
        return [[status, "", answer["description"]]]
    media, body = content
    examples = body.get("examples", {})
    if status == "200" or not examples:
        what = type_of(body["schema"]) if "schema" in body else media
        return [[status, what or media, answer["description"]]]
    return [[status, code(name), example.get("summary", "")] for name, example in examples.items()]


def schema_section(name: str, schema: Schema) -> str:
    """The fields of one object."""
    required = schema.get("required", [])
    rows = [
        [code(field), type_of(one), "yes" if field in required else "", described(one)]
        for field, one in schema.get("properties", {}).items()
    ]
    heading = f"### {name}\n\n{schema.get('description', '')}\n"
    return f"{heading}\n{table(['field', 'type', 'always there', 'meaning'], rows)}"


def described(schema: Schema) -> str:
    """Meaning and limits of a field."""
    names = {
        **{"minimum": "from", "maximum": "to", "exclusiveMinimum": "above", "exclusiveMaximum": "below"},
        **{"minItems": "at least", "maxItems": "at most"},
    }
    options = [schema, *schema.get("anyOf", [])]
    limits = [f"{text} {one[name]:,}" for one in options for name, text in names.items() if name in one]
    values = [code(value) for one in options for value in one.get("enum", [])]
    return " ".join(part for part in (schema.get("description", ""), ", ".join(limits + values)) if part)


def type_of(schema: Schema) -> str:
    """A field's type, with a link where that is an object of its own."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(type_of(option) for option in schema["anyOf"])
    if "prefixItems" in schema:
        return f"({', '.join(type_of(item) for item in schema['prefixItems'])})"
    if schema.get("type") == "array":
        return f"list of {type_of(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map to {type_of(schema['additionalProperties'])}"
    return str(schema.get("type", ""))
