"""Convex's validators, as the JSON that a deployment exports: what they accept, what narrows them.

Source: docs.convex.dev/functions/validation; the JSON is that of `SchemaDefinition.export()`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Validator = Mapping[str, Any]

_SCALARS: Mapping[str, type | tuple[type, ...]] = {
    "null": type(None),
    "boolean": bool,
    "string": str,
    "bytes": str,  # base64 in JSON
    "bigint": str,  # decimal digits in JSON
    "id": str,
}
_SPECIAL_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})  # how JSON says them
_TEXT_LENGTH = 60


def violations(validator: Validator, value: object, path: str = "") -> Iterator[str]:
    """Why Convex would refuse a value: a sentence each, with the path to what is wrong."""
    match validator["type"]:
        case "any":
            return
        case "object":
            yield from _object_violations(validator["value"], value, path)
        case "array":
            if not isinstance(value, list):
                yield _wrong(path, validator, value)
                return
            for at, item in enumerate(value):
                yield from violations(validator["value"], item, f"{path}[{at}]")
        case "record":
            if not isinstance(value, dict):
                yield _wrong(path, validator, value)
                return
            for name, item in value.items():
                yield from violations(validator["values"]["fieldType"], item, _join(path, name))
        case _:
            if not _is_one(validator, value):
                yield _wrong(path, validator, value)


def narrowings(old: Validator, new: Validator, path: str = "") -> Iterator[str]:
    """What `old` accepts and `new` does not, said of `new`: each reads on from its name."""
    if new["type"] == "any" or old == new:
        return
    if old["type"] == "union":
        for member in old["value"]:
            yield from narrowings(member, new, path)
    elif new["type"] == "union":
        if all(any(narrowings(old, member, path)) for member in new["value"]):
            yield _otherwise(path, old, new)
    elif old["type"] == "object" and new["type"] == "object":
        yield from _object_narrowings(old["value"], new["value"], path)
    elif old["type"] == new["type"] == "array":
        yield from narrowings(old["value"], new["value"], f"{path}[]")
    elif old["type"] == new["type"] == "record":
        values = (old["values"]["fieldType"], new["values"]["fieldType"])
        yield from narrowings(*values, _join(path, "*"))
    elif not _widens(old, new):
        yield _otherwise(path, old, new)


def describe(validator: Validator) -> str:
    """A type as people write it."""
    match validator["type"]:
        case "literal":
            return repr(validator["value"])
        case "union":
            return " or ".join(describe(member) for member in validator["value"])
        case "array":
            return f"an array of {describe(validator['value'])}"
        case "record":
            return f"a record of {describe(validator['values']['fieldType'])}"
        case "id":
            return f"an id of {validator['tableName']}"
        case kind:
            return str(kind)


def _object_violations(fields: Mapping[str, Any], value: object, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{_at(path)} is {_shown(value)}, not an object"
        return
    for name, field in fields.items():
        if name in value:
            yield from violations(field["fieldType"], value[name], _join(path, name))
        elif not field["optional"]:
            yield f"{_join(path, name)} is missing"
    for name in value.keys() - fields.keys():
        yield f"{_join(path, name)} is not in the schema"


def _object_narrowings(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, before in old.items():
        where = _join(path, name)
        after = new.get(name)
        if after is None:
            yield f"takes no {where}"
            continue
        if before["optional"] and not after["optional"]:
            yield f"requires {where}"
        yield from narrowings(before["fieldType"], after["fieldType"], where)
    for name, after in new.items():
        if name not in old and not after["optional"]:
            yield f"requires {_join(path, name)}"


def _is_one(validator: Validator, value: object) -> bool:
    kind = validator["type"]
    if kind == "union":
        return any(not any(violations(member, value)) for member in validator["value"])
    if kind == "literal":
        return type(value) is type(validator["value"]) and value == validator["value"]
    if kind == "number":
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number or (isinstance(value, str) and value in _SPECIAL_NUMBERS)
    return isinstance(value, _SCALARS[kind])


def _widens(old: Validator, new: Validator) -> bool:
    """A literal may become its whole type; anything else that differs is another type."""
    if old["type"] != "literal":
        return False
    value = old["value"]
    if isinstance(value, bool):
        return bool(new["type"] == "boolean")
    return bool(new["type"] == ("string" if isinstance(value, str) else "number"))


def _otherwise(path: str, old: Validator, new: Validator) -> str:
    return f"takes {_at(path)} as {describe(new)}, not as {describe(old)}"


def _wrong(path: str, validator: Validator, value: object) -> str:
    return f"{_at(path)} is {_shown(value)}, not {describe(validator)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _TEXT_LENGTH else f"{text[:_TEXT_LENGTH]}…"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _at(path: str) -> str:
    return path or "the document"
