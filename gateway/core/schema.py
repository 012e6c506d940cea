"""JSON Schema 2020-12, every violation at its field; a schema never makes a request."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from jsonschema_rs import Draft202012Validator, ValidationError, ValidationErrorKind

from gateway.core.violation import Violations

MAX_VIOLATIONS = 32
_THE_VALUE = "the value"  # in messages, for the value itself: it may be long, or a secret
_Path = tuple[str | int, ...]


class Schema:
    """A compiled schema. Raises ValueError for one that is none, or that points elsewhere."""

    def __init__(self, document: Any) -> None:
        try:
            self._validator = Draft202012Validator(
                document, validate_formats=False, retriever=_refuse, mask=_THE_VALUE
            )
        except ValidationError as error:
            raise ValueError(_reason(error)) from error

    def judge(self, instance: Any, violations: Violations, *path: str | int) -> None:
        """Note where `instance` breaks the schema; `path` is where it stands in the whole."""
        if self._validator.is_valid(instance):
            return
        errors = self._validator.iter_errors(instance)
        found = (each for error in errors for each in _told(error, path))
        for message, where in itertools.islice(found, MAX_VIOLATIONS):
            violations.add(message, *where)


def _told(error: ValidationError, path: _Path) -> Iterator[tuple[str, _Path]]:
    """A violation as its field's own: what is missing or unknown is pointed at by name."""
    here = (*path, *error.instance_path)
    kind = error.kind
    if isinstance(kind, ValidationErrorKind.Required):
        yield "is required", (*here, kind.property)
    elif isinstance(kind, ValidationErrorKind.AdditionalProperties):
        yield from (("is not a known field", (*here, name)) for name in kind.unexpected)
    elif isinstance(kind, ValidationErrorKind.AnyOf | ValidationErrorKind.OneOfNotValid):
        yield from _branch(error, kind.context, path)
    else:
        yield error.message.removeprefix(f"{_THE_VALUE} "), here


def _branch(
    error: ValidationError, branches: list[list[ValidationError]], path: _Path
) -> Iterator[tuple[str, _Path]]:
    """Of `T or null` what T says of it; of real alternatives only that none fits."""
    meant = [each for each in branches if not _is_of_null(each)]
    if len(meant) == 1:
        for inner in meant[0]:
            yield from _told(inner, path)
    else:
        yield "fits none of what is allowed here", (*path, *error.instance_path)


def _is_of_null(errors: list[ValidationError]) -> bool:
    return any(
        isinstance(error.kind, ValidationErrorKind.Type) and error.kind.types == ["null"]
        for error in errors
    )


def _reason(error: ValidationError) -> str:
    where = "/".join(map(str, error.instance_path))
    first = error.message.partition("\n")[0]
    return f"{where}: {first}" if where else first


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri} is not looked up: put it into the file")
