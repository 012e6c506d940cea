"""YAML as plain data, with the line of every value, and nothing that a file could attack with.

Refused: tags, anchors and aliases (a few lines of them expand to gigabytes), duplicate keys, more
than one document, deep nesting, large files. Scalars follow YAML 1.2's core schema (section 10.3),
so `no`, `on` and `2026-01-01` are text; infinities and NaN are text too: no setting takes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.events import AliasEvent, NodeEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gateway.core.error import SettingsError

MAX_BYTES = 1024**2
MAX_DEPTH = 32

Location = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]{1,20}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(
    r"[-+]?(?:(?:\.[0-9]{1,18}|[0-9]{1,18}\.[0-9]{0,18})(?:[eE][-+]?[0-9]{1,2})?"
    r"|[0-9]{1,18}[eE][-+]?[0-9]{1,2})"
)
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True)
class Document:
    """A file's mapping, and where (`file:line`) each of its keys and items stands."""

    name: str
    value: dict[str, Any]
    origins: dict[Location, str] = field(default_factory=dict)


def load(path: Path) -> Document:
    """The document in a file; an empty file is an empty mapping.

    Raises `SettingsError` with every problem, each as `file:line: what is wrong`.
    """
    try:
        # One byte more than allowed tells "too large" without reading what may never end.
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError([f"{path}: cannot be read: {error.strerror or error}"]) from error
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Document:
    """The document in `data`; `name` stands for the file in problems. Raises as `load` does."""
    if len(data) > MAX_BYTES:
        raise SettingsError([f"{name}: is larger than {MAX_BYTES} bytes"])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SettingsError([f"{name}:{line}: is not UTF-8 text"]) from error
    node = _compose(text, name)
    if node is None or (isinstance(node, ScalarNode) and _plain(node) is None):
        return Document(name, {})
    reader = _Reader(name)
    value = reader.value(node, ())
    if not isinstance(value, dict):
        reader.problem(node, "the file must hold a mapping (key: value)")
    if reader.problems:
        raise SettingsError(reader.problems)
    return Document(name, value, reader.origins)


def scalar(text: str) -> Any:
    """What a plain scalar means: null, a boolean, a number, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OCTAL_OR_HEX.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses what a file of settings has no use for."""

    depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
            raise _refusal("anchors and aliases (& and *) are not allowed; write it out", event)
        if getattr(event, "tag", None):
            raise _refusal("tags (!) are not allowed; quote the text if it is meant", event)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _refusal(f"is nested deeper than {MAX_DEPTH} levels", event)
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _refusal(problem: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]


def _compose(text: str, name: str) -> Node | None:
    try:
        loader = _Loader(text)
        try:
            node: Node | None = loader.get_single_node()
            return node
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        context = f" ({error.context})" if error.context else ""
        raise SettingsError([f"{where}: {error.problem or 'is not YAML'}{context}"]) from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise SettingsError([f"{name}:{line}: holds a control character"]) from error
    except (ArithmeticError, ValueError) as error:  # an escape beyond Unicode
        raise SettingsError([f"{name}: is not YAML that can be read: {error}"]) from error


def _plain(node: ScalarNode) -> Any:
    # `style` is None for a plain scalar; a quoted or block one is always text.
    return scalar(node.value) if node.style is None else node.value


class _Reader:
    """Turns nodes into plain data, noting origins and every problem on the way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[str] = []
        self.origins: dict[Location, str] = {}

    def problem(self, node: Node, message: str) -> None:
        """Note a problem at a node."""
        self.problems.append(f"{self._line(node)}: {message}")

    def value(self, node: Node, location: Location) -> Any:
        """The node's plain data."""
        self.origins.setdefault(location, self._line(node))
        if isinstance(node, ScalarNode):
            return _plain(node)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*location, index)) for index, item in enumerate(node.value)]
        return self._mapping(node, location)

    def _mapping(self, node: Node, location: Location) -> dict[str, Any]:
        assert isinstance(node, MappingNode)
        found: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, ScalarNode):
                self.problem(key, "a key must be a single word or text")
                continue
            name = key.value
            here = (*location, name)
            if name in found:
                first = self.origins[here].rpartition(":")[2]
                self.problem(key, f"{dotted(here)}: is there twice, first in line {first}")
                continue
            self.origins[here] = self._line(key)
            found[name] = self.value(item, here)
        return found

    def _line(self, node: Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"


def dotted(location: Location) -> str:
    """A location as people write it: `server.trusted_proxies[0]`."""
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
