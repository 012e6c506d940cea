"""Requests against an upstream's own OpenAPI 3.1 document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

from multidict import CIMultiDict

from gateway.core.route import OTHER, Route, RouteTable
from gateway.core.schema import Schema
from gateway.core.violation import Violations

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_MAX_REFERENCES = 16
# What FastAPI's readers take for a boolean; stricter would refuse what the upstream does not.
_BOOLEANS = {
    **dict.fromkeys(("true", "1", "on", "yes", "t", "y"), True),
    **dict.fromkeys(("false", "0", "off", "no", "f", "n"), False),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter outside the body; `kinds` are the JSON types that its text may stand for."""

    name: str
    place: str  # path, query or header
    required: bool
    kinds: frozenset[str]
    item_kinds: frozenset[str]
    schema: Schema

    def judge(self, texts: Sequence[str], violations: Violations) -> None:
        """Note what is wrong with what was given, in the order it came."""
        if not texts:
            if self.required:
                violations.add_parameter("is required", self.name, self.place)
            return
        value: Any
        if "array" in self.kinds:
            value = [_meaning(text, self.item_kinds) for text in texts]
        else:
            value = _meaning(texts[-1], self.kinds)
        found = Violations()
        self.schema.judge(value, found)
        for error in found.errors:
            violations.add_parameter(error["detail"], self.name, self.place)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a method on a path takes; `names` are the path's parameters in their order."""

    names: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    body_required: bool
    body: Schema | None  # of JSON: no other kind is judged

    @property
    def is_idle(self) -> bool:
        """True when there is nothing to judge."""
        return not self.parameters and self.body is None

    def judge_parameters(
        self,
        values: Sequence[str],
        query: str,
        headers: CIMultiDict[str],
        violations: Violations,
    ) -> None:
        """Note what is wrong outside the body; `values` fill the path's `names`."""
        if not self.parameters:
            return
        path = dict(zip(self.names, values, strict=False))
        given = parse_qs(query, keep_blank_values=True)
        for parameter in self.parameters:
            if parameter.place == "query":
                texts: Sequence[str] = given.get(parameter.name, ())
            elif parameter.place == "header":
                texts = headers.getall(parameter.name, ())
            else:
                texts = (path[parameter.name],) if parameter.name in path else ()
            parameter.judge(texts, violations)


class OpenApi:
    """Finds the operation of a request. Raises ValueError for a document that cannot be used."""

    def __init__(self, document: Any) -> None:
        if not isinstance(document, dict) or not str(document.get("openapi", "")).startswith("3.1"):
            raise ValueError("is not an OpenAPI 3.1 document")
        self._document = document
        try:
            self._compile()
        except (AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ValueError("is not the OpenAPI document that it says it is") from error

    def _compile(self) -> None:
        self._operations: dict[tuple[str, str], Operation] = {}
        self._known: dict[tuple[str, str], Operation | None] = {}
        routes: list[Route] = []
        paths = self._document.get("paths")
        for template, entry in (paths if isinstance(paths, dict) else {}).items():
            for method, operation in self._entries(template, entry):
                shape = _shape(template)
                self._operations[method, shape] = operation
                routes.append(Route(shape, _named(template), frozenset({method})))
        self._routes = RouteTable(routes)

    def __len__(self) -> int:
        return len(self._operations)

    def find(
        self, method: str, path: str, route: Route = OTHER, values: Sequence[str] = ()
    ) -> tuple[Operation | None, Sequence[str]]:
        """The operation, and what fills its path's parameters; None where nothing is to be judged.

        A `route` that is known already, with its `values`, spares looking through all the paths.
        """
        if route is not OTHER:
            return self._of(method, route.template), values
        match = self._routes.match(method, path)
        return self._worth(method, match.name), tuple(match.params.values())

    def concerns(self, method: str, template: str) -> bool:
        """True when requests of our route with this template are to be judged."""
        return self._of(method, template) is not None

    def _of(self, method: str, template: str) -> Operation | None:
        """As for a template of our own routes; those are few, and so is what is remembered."""
        try:
            return self._known[method, template]
        except KeyError:
            found = self._known[method, template] = self._worth(method, _shape(template))
            return found

    def _worth(self, method: str, shape: str) -> Operation | None:
        operation = self._operations.get((method, shape))
        return None if operation is None or operation.is_idle else operation

    def _entries(self, template: str, entry: Any) -> Iterator[tuple[str, Operation]]:
        entry = self._resolved(entry)
        for method in _METHODS:
            if method in entry:
                yield method.upper(), self._operation(template, entry, entry[method])

    def _operation(self, template: str, entry: Any, operation: Any) -> Operation:
        listed: dict[tuple[str, str], Any] = {}
        # An operation's parameters stand over those of its path (OpenAPI 3.1, section 4.8.10).
        for given in (*entry.get("parameters", ()), *operation.get("parameters", ())):
            parameter = self._resolved(given)
            listed[parameter["name"], parameter["in"]] = parameter
        body = self._resolved(operation.get("requestBody", {}))
        media = body.get("content", {}).get("application/json", {})
        names = tuple(each[1:-1] for each in _PLACEHOLDER.findall(template))
        made = (self._parameter(each) for each in listed.values() if "schema" in each)
        return Operation(
            names=names,
            parameters=tuple(each for each in made if not _is_anything(each)),
            body_required=bool(body.get("required")) and "schema" in media,
            body=self._schema(media["schema"]) if "schema" in media else None,
        )

    def _parameter(self, given: Mapping[str, Any]) -> Parameter:
        kinds = frozenset(self._kinds(given["schema"]))
        items = self._resolved(given["schema"]).get("items", {})
        return Parameter(
            name=given["name"],
            place=given["in"],
            required=bool(given.get("required")),
            kinds=kinds,
            item_kinds=frozenset(self._kinds(items)),
            schema=self._schema(given["schema"]),
        )

    def _schema(self, schema: Any) -> Schema:
        """The schema with what its references point at: they begin at the document's root."""
        return Schema({"allOf": [schema], "components": self._document.get("components", {})})

    def _kinds(self, schema: Any) -> Iterator[str]:
        schema = self._resolved(schema)
        kind = schema.get("type", ())
        yield from (kind,) if isinstance(kind, str) else kind
        for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
            yield from self._kinds(part)

    def _resolved(self, node: Any) -> dict[str, Any]:
        """The node that a chain of references within the document ends at."""
        for _ in range(_MAX_REFERENCES):
            if not isinstance(node, dict):
                break
            if "$ref" not in node:
                return node
            node = self._at(str(node["$ref"]))
        raise ValueError("holds a reference that leads nowhere")

    def _at(self, reference: str) -> Any:
        node: Any = self._document
        for step in reference.removeprefix("#/").split("/"):
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if not isinstance(node, dict) or name not in node:
                raise ValueError(f"holds the reference {reference}, which leads nowhere")
            node = node[name]
        return node


def _is_anything(parameter: Parameter) -> bool:
    """True for a path's parameter that any text is good for: the path would not match without."""
    return parameter.place == "cookie" or (
        parameter.place == "path" and not violates(parameter, ("x", "-1", "a b", "0" * 300))
    )


def violates(parameter: Parameter, texts: Sequence[str]) -> bool:
    """True when one of the texts is not good for the parameter."""
    violations = Violations()
    for text in texts:
        parameter.judge((text,), violations)
    return bool(violations.errors)


def _meaning(text: str, kinds: frozenset[str]) -> Any:
    """What a text stands for where the schema does not take text; itself if for nothing."""
    if "string" in kinds or not kinds:
        return text
    if "null" in kinds and text in ("", "null"):
        return None
    if "boolean" in kinds and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if "integer" in kinds or "number" in kinds:
        return _number(text)
    return text


def _number(text: str) -> Any:
    try:
        number = float(text)
    except ValueError:
        return text
    if len(text) <= 18 and number.is_integer():
        return int(number)
    return number if abs(number) != float("inf") and number == number else text  # noqa: PLR0124 - NaN


def _shape(template: str) -> str:
    """A template without the names of its parameters: two descriptions of one path are alike."""
    return _PLACEHOLDER.sub("{}", template)


def _named(template: str) -> str:
    """The template with names that our own routes can have."""
    names = iter(f"p_{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(26 * 26))
    return _PLACEHOLDER.sub(lambda _: f"{{{next(names)}}}", template)
