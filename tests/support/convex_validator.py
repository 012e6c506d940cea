"""Convex's validators in few words."""

from __future__ import annotations

from gateway.migrate.validator import Validator

STRING, NUMBER, BOOLEAN, NULL = ({"type": kind} for kind in ("string", "number", "boolean", "null"))
ANY: Validator = {"type": "any"}


def literal(value: object) -> Validator:
    return {"type": "literal", "value": value}


def union(*members: Validator) -> Validator:
    return {"type": "union", "value": list(members)}


def array(of: Validator) -> Validator:
    return {"type": "array", "value": of}


def record(of: Validator) -> Validator:
    field = {"fieldType": of, "optional": False}
    return {"type": "record", "keys": {"type": "string"}, "values": field}


def obj(**fields: Validator) -> Validator:
    """An object; a name that ends in `_` is an optional field."""
    return {
        "type": "object",
        "value": {
            name.rstrip("_"): {"fieldType": kind, "optional": name.endswith("_")}
            for name, kind in fields.items()
        },
    }
