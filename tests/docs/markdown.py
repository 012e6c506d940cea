"""What the tests read in Markdown: headings, tables, code blocks, links."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`]+)`")
_HEADING = re.compile(r"^(#+) (.+)$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code."""

    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table, the heading it stands under, and its rows by column."""

    heading: str
    rows: Sequence[Mapping[str, str]]


def blocks(text: str, language: str | None = None) -> list[Block]:
    """Every fenced block, or those in one language."""
    found = [Block(*match.groups()) for match in _FENCE.finditer(text)]
    return [block for block in found if language in (None, block.language)]


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return _FENCE.sub("", text)


def links(text: str) -> list[str]:
    """The target of every link."""
    return _LINK.findall(prose(text))


def anchors(text: str) -> set[str]:
    """The fragments that a page's headings can be reached by, as GitHub makes them."""
    titles = (match[2] for line in prose(text).splitlines() if (match := _HEADING.match(line)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def codes(cell: str) -> list[str]:
    """Every span of code."""
    return _CODE.findall(cell)


def tables(text: str) -> list[Table]:
    """Every table."""
    return list(_tables(prose(text).splitlines()))


def _tables(lines: Sequence[str]) -> Iterator[Table]:
    heading = ""
    block: list[list[str]] = []
    for line in [*lines, ""]:
        if match := _HEADING.match(line):
            heading = match[2]
        if line.startswith("|"):
            block.append(_cells(line))
        elif block:
            names, _, *rows = block
            yield Table(heading, [dict(zip(names, row, strict=True)) for row in rows])
            block = []


def _cells(line: str) -> list[str]:
    """The cells; a `\\|` is a bar within one."""
    parts = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return [part.replace("\\|", "|").strip() for part in parts]
