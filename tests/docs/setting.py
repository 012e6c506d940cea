"""Every setting, as the JSON Schema of its file has it: path, type and default."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.settings.base import Model
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet

Schema = Mapping[str, Any]
_SECONDS = (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001))
_BYTES = (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024))
_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One key that a file may hold; `default` None means that the file must say it."""

    file: str
    path: str
    type: str
    default: str | None


def files() -> Mapping[str, type[Model]]:
    """The model of each settings file, by the name that `gateway schema` takes."""
    found: dict[str, type[Model]] = {"gateway": Settings}
    for name, field in PolicySet.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, Model)
        found[name] = field.annotation
    return found


def file_name(name: str) -> str:
    """Where the file of this name stands."""
    return "gateway.yaml" if name == "gateway" else f"policies/{name}.yaml"


def settings() -> list[Setting]:
    """Every setting of every file, in the order of the models."""
    return [
        setting
        for name, model in files().items()
        for setting in _Walk(file_name(name), model.model_json_schema()).settings()
    ]


class _Walk:
    """Goes through one schema."""

    def __init__(self, file: str, schema: Schema) -> None:
        self._file = file
        self._root = schema

    def settings(self) -> Iterator[Setting]:
        return self._below(self._root, "")

    def _below(self, schema: Schema, prefix: str) -> Iterator[Setting]:
        required = schema.get("required", ())
        section = schema.get("default") or {}
        for name, entry in schema["properties"].items():
            # What a section has when it is left out, its keys have.
            known = {"default": section[name]} if name in section else {}
            yield from self._at({**entry, **known}, prefix + name, is_required=name in required)

    def _at(self, schema: Schema, path: str, *, is_required: bool) -> Iterator[Setting]:
        found = self._resolved(schema)
        items = self._resolved(found.get("items", {}))
        values = found.get("additionalProperties")
        values = self._resolved(values) if isinstance(values, dict) else {}
        if "properties" in found:
            yield from self._below(found, f"{path}.")
            return
        default = None if is_required else _written(found.get("default"), found, items)
        yield Setting(self._file, path, self._type(found), default)
        if "properties" in items:
            yield from self._below(items, f"{path}[].")
        if "properties" in values:
            yield from self._below(values, f"{path}.<name>.")
        inner = values.get("additionalProperties")  # a mapping of mappings
        inner = self._resolved(inner) if isinstance(inner, dict) else {}
        if "properties" in inner:
            yield from self._below(inner, f"{path}.<name>.<name>.")

    def _resolved(self, schema: Schema) -> Schema:
        """The schema itself, without `$ref` and without `or null`."""
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/$defs/")
            return {**self._root["$defs"][name], **_without(schema, "$ref")}
        real = [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
        if len(real) == 1:
            return {**self._resolved(real[0]), **_without(schema, "anyOf")}
        return schema

    def _type(self, schema: Schema) -> str:
        if kind := _kind(schema):
            return kind
        if "enum" in schema or "const" in schema:
            return " or ".join(f"`{word}`" for word in schema.get("enum", [schema.get("const")]))
        if schema["type"] == "array":
            return f"list of {self._element(schema['items'])}"
        if schema["type"] == "object":
            return f"name → {self._element(schema['additionalProperties'])}"
        bounds = [f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if key in schema]
        return ", ".join([_WORDS[schema["type"]], *bounds])

    def _element(self, schema: Schema) -> str:
        found = self._resolved(schema)
        word = "mapping" if "properties" in found else self._type(found)
        is_optional = {"type": "null"} in schema.get("anyOf", ())
        return f"{word} or null" if is_optional else word


def _without(schema: Schema, name: str) -> Schema:
    return {key: value for key, value in schema.items() if key != name}


def _kind(schema: Schema) -> str | None:
    """Durations and sizes are told by the example that their schema gives."""
    return {("15s",): "duration", ("1MiB",): "size"}.get(tuple(schema.get("examples", ())))


def _written(value: Any, schema: Schema, items: Schema) -> str:
    """A default as a file would write it."""
    kind = _kind(schema)
    if value is None:
        return "none"
    if isinstance(value, list):
        return f"`[{', '.join(_element(each, items) for each in value)}]`"
    if kind == "duration":
        return f"`{_with_unit(value, _SECONDS)}`"
    if kind == "size":
        return f"`{_with_unit(value, _BYTES)}`"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _element(value: Any, items: Schema) -> str:
    if isinstance(value, dict):
        known = items["properties"]
        said = {k: v for k, v in value.items() if v != known[k].get("default")}
        return "{" + ", ".join(f"{k}: {v}" for k, v in said.items()) + "}"
    if _kind(items) == "duration":
        return _with_unit(value, _SECONDS)
    return str(value)


def _with_unit(value: float, units: tuple[tuple[str, float], ...]) -> str:
    """`value` in the largest unit that leaves a whole number."""
    for unit, size in units:
        count = value / size
        if value and abs(count - round(count)) < 1e-9:
            return f"{round(count)}{unit}"
    return f"{value:g}"
