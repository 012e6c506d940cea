"""Webhook filters: JMESPath predicates, so bounded that one costs about one look at the event.

A short expression can do a great deal of work: `[@,@]|[@,@]|…` doubles what a later step walks
over, a projection over a literal array inside another multiplies, `to_string` of `to_array` doubles
its escapes. What builds new values is refused: every step sees at most what the event holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions

MAX_LENGTH = 512
MAX_NODES = 128
MAX_DEPTH = 32

ALLOWED_FUNCTIONS = frozenset(
    {
        "abs",
        "avg",
        "ceil",
        "contains",
        "ends_with",
        "floor",
        "keys",
        "length",
        "max",
        "min",
        "not_null",
        "starts_with",
        "sum",
        "to_number",
        "type",
        "values",
    }
)
_CONSTRUCTORS = {
    "multi_select_list": "[a, b]",
    "multi_select_dict": "{a: b}",
    "expref": "&expression",
}

Node = Mapping[str, Any]


def compile_filter(text: str) -> None:
    """Check that `text` is a filter: JMESPath (jmespath.org) less what builds new values.

    Raises ValueError with the rule it breaks.
    """
    if not text.strip():
        raise ValueError("is empty; use null for no filter")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"is longer than {MAX_LENGTH} characters")
    _check_tree(_parse(text))


def evaluate(text: str, envelope: Mapping[str, Any]) -> bool:
    """Whether the predicate is true of the envelope, by JMESPath's own truth: 0 is true.

    Raises ValueError when it cannot be evaluated on this envelope (`starts_with` of null).
    """
    try:
        found = jmespath.search(text, envelope)
    except (TypeError, ArithmeticError, RecursionError) as error:
        # Of `'a' < 1`, of `ceil` of infinity, of documents nested deeply: the library's own gaps.
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return found is not None and found is not False and found not in ("", [], {})


def _parse(text: str) -> Node:
    try:
        # The library's cache is keyed by the text, so that `search` later finds this very tree.
        return cast("Node", jmespath.compile(text).parsed)
    except JMESPathError as error:
        reason = " ".join(str(error).splitlines()[0].split())
        raise ValueError(f"is not JMESPath: {reason}") from error
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _check_tree(root: Node) -> None:
    waiting: list[tuple[Node, int]] = [(root, 1)]
    count = 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if count > MAX_NODES:
            raise ValueError(f"has more than {MAX_NODES} parts")
        if depth > MAX_DEPTH:
            raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
        _check_node(node)
        waiting.extend((child, depth + 1) for child in _children(node))


def _check_node(node: Node) -> None:
    kind = node["type"]
    if kind in _CONSTRUCTORS:
        raise ValueError(f"builds a value with {_CONSTRUCTORS[kind]}, which a filter may not")
    if kind == "function_expression":
        _check_call(node)
    elif kind == "slice" and node["children"][2] == 0:
        raise ValueError("has a slice with step 0")
    for child in _children(node):
        if child["type"] == "literal" and isinstance(child["value"], list | dict):
            _check_collection(node)


def _check_call(node: Node) -> None:
    name = node["value"]
    if name not in ALLOWED_FUNCTIONS:
        known = ", ".join(sorted(ALLOWED_FUNCTIONS))
        raise ValueError(f"calls {name}(); a filter may call {known}")
    signature = Functions.FUNCTION_TABLE[name]["signature"]
    given, wanted = len(node["children"]), len(signature)
    if given < wanted or (given > wanted and not signature[-1].get("variadic")):
        raise ValueError(f"calls {name}() with {given} arguments; it takes {wanted}")


def _check_collection(parent: Node) -> None:
    compares = parent["type"] == "comparator" and parent["value"] in ("eq", "ne")
    if not compares and not (
        parent["type"] == "function_expression" and parent["value"] == "contains"
    ):
        raise ValueError("uses a literal array or object elsewhere than in contains(), == or !=")


def _children(node: Node) -> Iterator[Node]:
    return (child for child in node.get("children", ()) if isinstance(child, Mapping))
