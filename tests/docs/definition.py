"""Which tests there are."""

from __future__ import annotations

import ast
from functools import cache

from tests.docs.markdown import ROOT


@cache
def definitions(file: str) -> frozenset[str]:
    """The tests of a file, as pytest names them; classes too."""
    found: set[str] = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        found |= _names(node, "")
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                found |= _names(inner, f"{node.name}::")
    return frozenset(found)


def _names(node: ast.stmt, prefix: str) -> set[str]:
    is_test = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[:5] == "test_"
    is_group = isinstance(node, ast.ClassDef) and node.name[:4] == "Test"
    if is_test or is_group:
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        return {prefix + node.name}
    return set()
