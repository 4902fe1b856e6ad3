"""The reference of a kind of configuration, made from its model itself: a Markdown page and a JSON schema."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtan_core.config import Config, Kind

Schema = Mapping[str, Any]


def json_schema(kind: Kind[Config], title: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a configuration file."""
    schema = kind.model.model_json_schema()
    named = {"title": title, "description": schema.pop("description")}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, **named}


def markdown(kind: Kind[Config], opening: str, each: str) -> str:
    """The reference page: a table of keys for each table of the file, and what the presets change.

    It begins with `opening`; `each` is what values of tables with free keys are given by, such as "domain".
    """
    schema = kind.model.model_json_schema()
    parts = [opening, "## Top level\n", _keys(schema, schema, "", each)]
    for name, field in schema["properties"].items():
        inner = _resolved(field, schema)
        if "properties" in inner:
            parts += [f"## `[{name}]`\n\n{inner['description']}\n", _keys(inner, schema, f"{name}.", each)]
        elif _is_list_of_tables(inner, schema):
            item = _resolved(inner["items"], schema)
            parts += [f"## `[[{name}]]`\n\n{item['description']}\n", _keys(item, schema, "", each)]
    return "\n".join([*parts, "## Presets\n", _presets(kind)])


def _keys(table: Schema, schema: Schema, prefix: str, each: str) -> str:
    """The rows of one table; what is a table itself has a section of its own."""
    fields = {name: _resolved(field, schema) for name, field in table["properties"].items()}
    rows = [
        (f"`{prefix}{name}`", _values(field, each), _default(field, name in table.get("required", ())), _meaning(field))
        for name, field in fields.items()
        if "properties" not in field and not _is_list_of_tables(field, schema)
    ]
    return _table(("key", "values", "default", "meaning"), rows)


def _resolved(field: Schema, schema: Schema) -> Schema:
    """The field with a reference to another part of the schema replaced by that part."""
    if "$ref" not in field:
        return field
    return {**schema["$defs"][field["$ref"].rsplit("/", 1)[1]], **{k: v for k, v in field.items() if k != "$ref"}}


def _is_list_of_tables(field: Schema, schema: Schema) -> bool:
    return "properties" in _resolved(field.get("items", {}), schema)


def _values(field: Schema, each: str) -> str:
    """What a key takes, in words."""
    if "anyOf" in field:  # a value or nothing
        return _values(next(kind for kind in field["anyOf"] if kind.get("type") != "null"), each)
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field["type"] == "array":
        return f"list of {_values(field['items'], each)}"
    if field["type"] == "object":
        return f"by {each}: {_values(field['additionalProperties'], each)}"
    words = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text"}
    return " ".join([words[field["type"]], *_bounds(field)])


def _bounds(field: Schema) -> Iterator[str]:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {field[key]}" for key, sign in signs.items() if key in field]
    if told:
        yield ", ".join(told)


def _default(field: Schema, required: bool) -> str:
    if required:
        return "*must be given*"
    value = field.get("default")
    return "" if value is None or value in ([], {}) else f"`{json.dumps(value)}`"


def _meaning(field: Schema) -> str:
    return str(field["description"])


def _presets(kind: Kind[Config]) -> str:
    """A table of every key in which some preset differs from the defaults."""
    names = kind.preset_names()
    presets = {name: _flat(kind.parse(kind.read_preset(name), name).model_dump(mode="json")) for name in names}
    defaults = _flat(kind.model().model_dump(mode="json"))
    keys = sorted({key for preset in presets.values() for key, value in preset.items() if value != defaults.get(key)})
    rows = [[f"`{key}`", *(_cell(presets[name].get(key)) for name in names)] for key in keys]
    return _table(["key", *(f"`{name}`" for name in names)], [row for row in rows if any(row[1:])])


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A tree of tables and lists of tables, by key with dots."""
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        tree = {str(place): item for place, item in enumerate(tree)}
    if not isinstance(tree, dict) or not tree:
        return {prefix.removesuffix("."): tree}
    return {key: value for name, inner in tree.items() for key, value in _flat(inner, f"{prefix}{name}.").items()}


def _cell(value: Any) -> str:
    if value is None or value in ([], {}):
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else f"`{json.dumps(value)}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
