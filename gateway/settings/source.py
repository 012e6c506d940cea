"""Where settings come from: files over one another, the environment, references to secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.core.error import SettingsError
from gateway.settings import yaml
from gateway.settings.model import Settings
from gateway.settings.problem import Problem, annotation_at, is_secret, nearest, takes
from gateway.settings.yaml import Document, Location

VARIABLE_PREFIX = "GATEWAY__"
MAX_SECRET_BYTES = 64 * 1024

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_FILE = "file:"
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def overlay(path: Path, environment: str) -> Document:
    """`config/<environment>.yaml` beside the file at `path`.

    Raises `SettingsError` when there is no such file, or it cannot be read.
    """
    folder = path.parent / "config"
    if not _ENVIRONMENT_NAME.fullmatch(environment):
        raise SettingsError([f"GATEWAY_ENV: {environment!r} is not a name like 'production'"])
    file = folder / f"{environment}.yaml"
    if not file.is_file():
        known = [item.stem for item in folder.glob("*.yaml")]
        hint = f"; {nearest(environment, known)}" if known else ""
        raise SettingsError([f"GATEWAY_ENV: there is no {file} for {environment!r}{hint}"])
    return yaml.load(file)


def merge(below: Document, above: Document) -> Document:
    """`above` over `below`: mappings key by key, anything else replaced whole."""
    origins = dict(below.origins)
    value = _merged(below.value, above.value, (), origins)
    return Document(below.name, value, origins | above.origins)


def with_variables(document: Document, environ: Mapping[str, str]) -> Document:
    """The document with every `GATEWAY__A__B=value` of the environment laid over it."""
    for name in sorted(environ):
        if not name.startswith(VARIABLE_PREFIX):
            continue
        location = tuple(name.removeprefix(VARIABLE_PREFIX).lower().split("__"))
        value: Any = meaning(environ[name], location)
        for step in reversed(location):
            value = {step: value}
        origin = f"environment {name}"
        origins = {location[:end]: origin for end in range(1, len(location))}
        above = Document(name, value, {location: origin})
        document = merge(document, above)
        document = Document(document.name, document.value, origins | document.origins)
    return document


def meaning(text: str, location: Location) -> Any:
    """What a variable's text means at a location; empty means null.

    Where the schema takes text it stays text. Raises `SettingsError` for a list or mapping that is
    not YAML.
    """
    annotation = annotation_at(Settings, location)
    if not text:
        return None
    if text[0] in "[{":
        return yaml.parse(f"value: {text}".encode(), f"environment {yaml.dotted(location)}").value[
            "value"
        ]
    if annotation is None or takes(annotation, str) or is_secret(Settings, location):
        return text
    return yaml.scalar(text)


class References:
    """Replaces `${NAME}`, `${NAME:-default}` and, for secrets, `file:/path` by what they stand for.

    A reference is a whole value. A secret written into a file is a problem: files get committed.
    """

    def __init__(
        self, origins: Mapping[Location, str], environ: Mapping[str, str], folder: Path
    ) -> None:
        self.problems: list[Problem] = []
        self._origins = origins
        self._environ = environ
        self._folder = folder

    def resolve(self, value: Any, location: Location = ()) -> Any:
        """`value` with every reference in it replaced; what cannot be is noted and left null."""
        if isinstance(value, dict):
            return {key: self.resolve(item, (*location, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, (*location, index)) for index, item in enumerate(value)]
        return self._text(value, location) if isinstance(value, str) else value

    def _text(self, value: str, location: Location) -> Any:
        secret = is_secret(Settings, location)
        if "${" in value:
            return self._variable(value, location, secret=secret)
        if secret and value.startswith(_FILE):
            return self._file(value.removeprefix(_FILE), location)
        if secret and not self._origins.get(location, "").startswith("environment "):
            return self._problem(location, "is a secret; write ${NAME} or file:/path instead")
        return value

    def _variable(self, value: str, location: Location, *, secret: bool) -> Any:
        found = _REFERENCE.fullmatch(value)
        if found is None:
            return self._problem(location, "a reference ${NAME} must be the whole value")
        name, default = found.groups()
        if secret and default:
            return self._problem(location, "is a secret; leave its default empty: ${NAME:-}")
        text = self._environ.get(name) or default
        if text is None:
            return self._problem(
                location, f"the variable {name} is not set; ${{{name}:-}} lets it be absent"
            )
        try:
            return meaning(text, location)
        except SettingsError as error:
            return self._problem(location, f"the variable {name}: {error.problems[0]}")

    def _file(self, name: str, location: Location) -> Any:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                text = file.read(MAX_SECRET_BYTES + 1).decode("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            return self._problem(location, f"the secret's file {path} cannot be read: {reason}")
        if not text or len(text) > MAX_SECRET_BYTES:
            return self._problem(location, f"the secret's file {path} is empty or too large")
        return text

    def _problem(self, location: Location, message: str) -> None:
        self.problems.append((location, message))


def _merged(
    below: dict[str, Any], above: dict[str, Any], here: Location, origins: dict[Location, str]
) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        location = (*here, key)
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = _merged(old, value, location, origins)
            continue
        for other in [item for item in origins if item[: len(location)] == location]:
            del origins[other]
        result[key] = value
    return result
