"""Rows for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def show_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print these members of each row below their names."""
    lines = [[name.removesuffix("_at") for name in columns]]
    lines += [[_cell(row[name]) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return "-" if value in (None, "") else str(value)
