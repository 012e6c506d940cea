"""What is wrong with a tree of settings, said so that a person can mend it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from gateway.settings.yaml import Location, dotted

Problem = tuple[Location, str]

_SAID = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping (key: value)",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "missing": "is required",
    "model_type": "must be a mapping (key: value)",
    "string_type": "must be text",
    "tuple_type": "must be a list ([a, b], or lines that begin with -)",
}
_BOUNDS = {
    "greater_than": ("must be more than", "gt"),
    "greater_than_equal": ("must be at least", "ge"),
    "less_than": ("must be less than", "lt"),
    "less_than_equal": ("must be at most", "le"),
}


def nearest(name: str, known: Collection[str]) -> str:
    """The hint that ends a problem about an unknown name."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"


def of_schema(model: type[BaseModel], error: ValidationError) -> Iterator[Problem]:
    """The problems that a validation met. No value is quoted: it may be a secret."""
    for detail in error.errors(include_url=False):
        yield detail["loc"], _said(model, detail)


def annotation_at(model: type[BaseModel], location: Location) -> Any:
    """The type that the schema gives a location; None when it knows no such place."""
    annotation: Any = model
    for step in location:
        annotation = _child(bare(annotation), step)
    return annotation


def bare(annotation: Any) -> Any:
    """The annotation without `Annotated` and without `| None`."""
    if get_origin(annotation) is Annotated:
        return bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not NoneType]
        return bare(parts[0]) if len(parts) == 1 else annotation
    return annotation


def takes(annotation: Any, kind: type) -> bool:
    """True when the annotation is `kind`, or a union that holds it."""
    if get_origin(annotation) in (Union, UnionType):
        return any(takes(part, kind) for part in get_args(annotation))
    if get_origin(annotation) is Annotated:
        return takes(get_args(annotation)[0], kind)
    return annotation is kind


def is_secret(model: type[BaseModel], location: Location) -> bool:
    """True when the schema keeps what stands there secret."""
    return takes(annotation_at(model, location), SecretStr)


def place(origins: Mapping[Location, str], location: Location, name: str) -> str:
    """Where a location, or the nearest thing around it, stands: `file:line`."""
    for end in range(len(location), 0, -1):
        if location[:end] in origins:
            return origins[location[:end]]
    return name


def line(origins: Mapping[Location, str], problem: Problem, name: str) -> str:
    """A problem as it is reported: `file:line: path.to.key: message`."""
    location, message = problem
    where = place(origins, location, name)
    return f"{where}: {dotted(location)}: {message}" if location else f"{where}: {message}"


def _said(model: type[BaseModel], detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        parent = bare(annotation_at(model, detail["loc"][:-1]))
        return f"unknown key; {nearest(str(detail['loc'][-1]), parent.model_fields)}"
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"{words} {context[bound]:g}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}"
    return _SAID.get(kind, detail["msg"])


def _child(annotation: Any, step: str | int) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(step))
        return field.annotation if field else None
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0]
    return None
