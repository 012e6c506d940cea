"""Reads `gateway.yaml` and the policy files; reports every problem at once, with file and line."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from gateway.core.error import SettingsError
from gateway.settings import (
    check,
    check_browser,
    check_policy,
    check_rate_limit,
    check_validation,
    yaml,
)
from gateway.settings.base import Model
from gateway.settings.model import Settings
from gateway.settings.policy import (
    AuthPolicy,
    CachePolicy,
    IdempotencyPolicy,
    PolicySet,
    RateLimitPolicy,
)
from gateway.settings.policy_browser import CorsPolicy, SecurityHeaderPolicy
from gateway.settings.policy_validation import ValidationPolicy
from gateway.settings.problem import Problem, annotation_at, bare, line, nearest, of_schema
from gateway.settings.source import References, merge, overlay, with_variables
from gateway.settings.yaml import Document, Location

ENVIRONMENT_VARIABLE = "GATEWAY_ENV"

_M = TypeVar("_M", bound=Model)
_Check = Callable[[_M, bool], Iterable[Problem]]


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings of the file at `path`, its overlay `config/<GATEWAY_ENV>.yaml`, and `environ`.

    The later wins. Raises `SettingsError` with every problem, each
    `file:line: path.to.key: what is wrong`.
    """
    document = with_variables(_files(path, environ), environ)
    references = References(document.origins, environ, path.parent)
    resolved = Document(document.name, references.resolve(document.value), document.origins)
    settings, problems = _validated(
        Settings, resolved, lambda settings, whole: check.check(settings, whole=whole)
    )
    # What a reference left null is not a second problem.
    unresolved = {location for location, _ in references.problems}
    problems = [*references.problems, *(item for item in problems if item[0] not in unresolved)]
    if problems or settings is None:
        raise SettingsError(_lines(document, problems))
    return settings


def load_policies(directory: Path) -> PolicySet:
    """The policy files of a directory; a file that is not there means its defaults.

    Raises `SettingsError` with every problem of every file.
    """
    if not directory.is_dir():
        raise SettingsError([f"{directory}: is not a directory; policies.directory names it"])
    found: dict[str, Model] = {}
    origins: dict[str, Document] = {}
    broken: set[str] = set()
    problems: list[str] = []
    for file in sorted(directory.iterdir()):
        # A mounted ConfigMap has directories of its own that begin with a dot.
        if file.suffix not in (".yaml", ".yml") or file.name.startswith("."):
            continue
        try:
            origins[file.stem], found[file.stem] = _policy(file)
        except SettingsError as error:
            broken.add(file.stem)
            problems.extend(error.problems)
    policies = PolicySet.model_validate(found)
    # What depends on a broken file is not judged by what it would be without it.
    if not broken & {"auth", "rate_limits"} and (
        together := list(check_rate_limit.check_tiers(policies))
    ):
        problems.extend(_lines(origins["auth"], together))
    documents, unusable = check_validation.read_documents(directory, policies.validation)
    if unusable:
        problems.extend(_lines(origins["validation"], unusable))
    if problems:
        raise SettingsError(problems)
    return policies.with_documents(documents)


def policies_directory(path: Path, settings: Settings) -> Path:
    """Where the policy files are: `policies.directory`, relative to the settings file at `path`."""
    return path.parent / settings.policies.directory


def _policy(file: Path) -> tuple[Document, Model]:
    found = _FILES.get(file.stem)
    if found is None or file.suffix != ".yaml":
        known = [f"{name}.yaml" for name in PolicySet.model_fields]
        raise SettingsError([f"{file}: unknown policy file; {nearest(file.name, known)}"])
    return found(file)


def _read(
    file: Path, model: type[_M], rules: Callable[[_M], Iterable[Problem]]
) -> tuple[Document, _M]:
    document = yaml.load(file)
    policy, problems = _validated(model, document, lambda policy, _: rules(policy))
    if problems or policy is None:
        raise SettingsError(_lines(document, problems))
    return document, policy


# Each policy file with its model and its rules.
_FILES: Mapping[str, Callable[[Path], tuple[Document, Model]]] = {
    "auth": lambda file: _read(file, AuthPolicy, check_policy.check_auth),
    "cache": lambda file: _read(file, CachePolicy, check_policy.check_cache),
    "cors": lambda file: _read(file, CorsPolicy, check_browser.check_cors),
    "idempotency": lambda file: _read(file, IdempotencyPolicy, lambda _: ()),
    "rate_limits": lambda file: _read(file, RateLimitPolicy, check_rate_limit.check_rate_limits),
    "security_headers": lambda file: _read(
        file, SecurityHeaderPolicy, check_browser.check_security_headers
    ),
    "validation": lambda file: _read(file, ValidationPolicy, check_validation.check_validation),
}


def _files(path: Path, environ: Mapping[str, str]) -> Document:
    documents: list[Document] = []
    problems: list[str] = []
    environment = environ.get(ENVIRONMENT_VARIABLE)
    readers: list[Callable[[], Document]] = [lambda: yaml.load(path)]
    if environment:
        readers.append(lambda: overlay(path, environment))
    for read in readers:
        try:
            documents.append(read())
        except SettingsError as error:
            problems.extend(error.problems)
    if problems:
        raise SettingsError(problems)
    return reduce(merge, documents)


def _validated(
    model: type[_M], document: Document, rules: _Check[_M]
) -> tuple[_M | None, list[Problem]]:
    """The model, and every problem: where the schema refuses a part, the rest is judged too."""
    tree = _without_empty_sections(model, document.value)
    problems: list[Problem] = []
    # Each round takes out what was refused; what then misses it is refused in the next.
    for _ in range(yaml.MAX_DEPTH):
        try:
            found = model.model_validate(tree)
        except ValidationError as error:
            refused = list(of_schema(model, error))
            problems.extend(refused if not problems else ())
            _remove(tree, [location for location, _ in refused])
        else:
            return found, [*problems, *rules(found, not problems)]
    return None, problems


def _without_empty_sections(model: type[Model], value: dict[str, Any]) -> dict[str, Any]:
    """A deep copy without the sections that hold only comments: they mean their defaults."""
    result: dict[str, Any] = {}
    for key, item in value.items():
        kind = annotation_at(model, (key,))
        if item is None and isinstance(kind, type) and issubclass(kind, Model):
            continue
        section = bare(kind)
        nested = isinstance(section, type) and issubclass(section, Model)
        result[key] = (
            _without_empty_sections(section, item)
            if nested and isinstance(item, dict)
            else copy.deepcopy(item)
        )
    return result


def _remove(tree: dict[str, Any], locations: Iterable[Location]) -> None:
    """Take out what stands at each location, or the nearest key around it that is there.

    A list goes as a whole: without one item the others would stand in the wrong place.
    """
    for parent, key in [_nearest_key(tree, location) for location in locations]:
        parent.pop(key, None)


def _nearest_key(tree: dict[str, Any], location: Location) -> tuple[dict[str, Any], str]:
    found: tuple[dict[str, Any], str] = (tree, "")
    here: Any = tree
    for step in location:
        if isinstance(here, dict) and step in here:
            found = (here, str(step))
            here = here[step]
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        else:
            break
    return found


def _lines(document: Document, problems: Iterable[Problem]) -> list[str]:
    """The problems as reported, in the order of the lines where they stand."""
    lines = [line(document.origins, problem, document.name) for problem in problems]
    return sorted(lines, key=_position)


def _position(text: str) -> tuple[str, int]:
    where = text.split(": ", 1)[0]
    name, _, number = where.rpartition(":")
    return (name, int(number)) if number.isdecimal() else (where, 0)
