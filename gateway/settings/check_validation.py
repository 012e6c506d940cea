"""Rules of `policies/validation.yaml`, and the JSON files that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.core.openapi import OpenApi
from gateway.core.schema import Schema
from gateway.core.strict_json import JsonFault, parse
from gateway.settings.check_policy import TOKEN, route
from gateway.settings.policy_validation import ValidationPolicy
from gateway.settings.problem import Problem, nearest
from gateway.settings.yaml import Location

MAX_FILE_BYTES = 4 * 1024**2
_MAX_DEPTH = 128


def check_validation(policy: ValidationPolicy) -> Iterator[Problem]:
    """The rules that `policies/validation.yaml` breaks."""
    for name, entry in policy.routes.items():
        here = ("routes", name)
        yield from route(name, here)
        for index, kind in enumerate(entry.content_types):
            main, slash, sub = kind.partition("/")
            if not (slash and TOKEN.fullmatch(main) and TOKEN.fullmatch(sub)):
                yield (*here, "content_types", index), "must be a type like application/json"
    rule = policy.openapi
    if not rule.path.startswith("/"):
        yield ("openapi", "path"), "must begin with /"
    if rule.source == "file" and rule.file is None:
        yield ("openapi", "file"), "is required: source says file"
    if rule.source != "file" and rule.file is not None:
        yield ("openapi", "file"), f"is not read while source says {rule.source}"


def read_documents(
    directory: Path, policy: ValidationPolicy
) -> tuple[dict[str, Any], list[Problem]]:
    """What the files that the policy names hold, and what is wrong with them."""
    documents: dict[str, Any] = {}
    problems: list[Problem] = []
    for location, name in policy.files.items():
        try:
            documents[name] = _document(directory, name)
            _usable(location, documents[name])
        except ValueError as error:
            problems.append((location, f"{name} {error}"))
    return documents, problems


def _document(directory: Path, name: str) -> Any:
    if Path(name).name != name or name.startswith("."):
        raise ValueError("must be a file beside the policy files: its name alone, without a path")
    path = directory / name
    try:
        # One byte more than allowed tells "too large" without reading what may never end.
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        known = [item.name for item in directory.glob("*.json")]
        hint = f"; {nearest(name, known)}" if known else ""
        raise ValueError(f"is not in {directory}{hint}") from error
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        return parse(data, _MAX_DEPTH)
    except JsonFault as error:
        raise ValueError(str(error)) from error


def _usable(location: Location, document: Any) -> None:
    if location[0] == "openapi":
        OpenApi(document)
        return
    try:
        Schema(document)
    except ValueError as error:
        raise ValueError(f"is no JSON Schema that can be used: {error}") from error
