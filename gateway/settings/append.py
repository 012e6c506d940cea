"""Adds an entry to a list in a YAML file and leaves every other byte as it is, comments too."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml as pyyaml
from yaml.nodes import MappingNode, Node, SequenceNode

from gateway.core.error import SettingsError
from gateway.settings import yaml

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*(?::[A-Za-z0-9_./-]+)*")

Entry = Mapping[str, str | Sequence[str]]


def append_entry(path: Path, name: str, entry: Entry) -> None:
    """Add `entry` to the list `name` of the file at `path`, which is replaced in one step.

    A file that is not there is made. Raises `SettingsError` when it is not usable YAML, or when its
    list is written in a way that cannot be added to, and `OSError` when it cannot be written.
    """
    path = path.resolve()  # a link stays a link
    data = path.read_bytes() if path.exists() else b""
    before = yaml.parse(data, str(path)).value
    old = data.decode()
    new = appended(old, name, entry)
    listed = before.get(name) or []
    if not isinstance(listed, list):
        raise SettingsError([f"{path}: {name} is not a list"])
    item = {key: value if isinstance(value, str) else list(value) for key, value in entry.items()}
    wanted = {**before, name: [*listed, item]}
    if yaml.parse(new.encode(), str(path)).value != wanted:
        raise SettingsError([f"{path}: {name} is written in a way that cannot be added to"])
    _replace(path, new)


def appended(text: str, name: str, entry: Entry) -> str:
    """`text` with the entry at the end of its top-level list `name`."""
    root = pyyaml.compose(text, Loader=pyyaml.SafeLoader)
    pairs = root.value if isinstance(root, MappingNode) else []
    found = next((pair for pair in pairs if pair[0].value == name), None)
    if found is None:
        gap = "" if not text or text.endswith("\n") else "\n"
        return f"{text}{gap}{name}:\n{formatted(entry, 2)}"
    key, node = found
    if isinstance(node, SequenceNode) and not node.flow_style:
        return _after_line(text, _last(node), formatted(entry, node.start_mark.column))
    if isinstance(node, SequenceNode) and node.value:
        end = node.end_mark.index - 1
        return f"{text[:end].rstrip().rstrip(',')}, {_flow(entry)}{text[end:]}"
    start, end = key.end_mark.index, node.end_mark.index
    rest = text[end:]
    line, _, below = rest.partition("\n")
    indent = formatted(entry, key.start_mark.column + 2)
    return f"{text[:start]}:{line.rstrip()}\n{indent}{below}"


def formatted(entry: Entry, indent: int) -> str:
    """The entry as an item of a block list, `indent` columns in."""
    lines = [f"{name}: {_value(value)}" for name, value in entry.items()]
    head = " " * indent
    return "".join(f"{head}{'- ' if not at else '  '}{line}\n" for at, line in enumerate(lines))


def _flow(entry: Entry) -> str:
    return "{" + ", ".join(f"{name}: {_value(value)}" for name, value in entry.items()) + "}"


def _value(value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and yaml.scalar(value) == value
        return value if plain else json.dumps(value)  # a JSON string is a YAML one
    return "[" + ", ".join(_value(item) for item in value) + "]"


def _last(node: Node) -> int:
    """Where the node's last word ends; a block's own end mark lies beyond the comments below it."""
    while isinstance(node, MappingNode | SequenceNode) and node.value and not node.flow_style:
        last: Any = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.index)


def _after_line(text: str, index: int, addition: str) -> str:
    # A block scalar ends at the start of the line below it.
    end = index if index and text[index - 1] == "\n" else text.find("\n", index) + 1
    if not end:
        return f"{text}\n{addition}"
    return text[:end] + addition + text[end:]


def _replace(path: Path, text: str) -> None:
    """Write beside and rename over: a reader sees the old file or the new one, never half of it."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o640
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
