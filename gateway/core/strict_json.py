"""JSON read strictly: no parser further on may read a document as another one (RFC 8259)."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_BRACKET = re.compile(rb"[\[\]{}]")


class JsonFault(ValueError):
    """A body that is not the JSON it should be; the text says what is wrong with it."""


def parse(body: bytes, max_depth: int) -> Any:
    """The document in `body`.

    Raises `JsonFault` for what parsers read differently or choke on: bytes that are not UTF-8, NaN
    and infinities, the same key twice in an object (RFC 8259 section 4), numbers of absurd length,
    nesting deeper than `max_depth`, and of course for what is no JSON at all.
    """
    if depth_exceeds(body, max_depth):
        raise JsonFault(f"is nested deeper than {max_depth} levels")
    try:
        found = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_constant)
        if _SURROGATE.search(body):
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise JsonFault(f"is not UTF-8 at byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise JsonFault("holds half of a surrogate pair (RFC 8259 section 8.2)") from error
    except json.JSONDecodeError as error:
        raise JsonFault(
            f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except JsonFault:
        raise
    except ValueError as error:  # Python's bound on the digits of an integer
        raise JsonFault("holds a number with too many digits") from error
    return found


def depth_exceeds(body: bytes, max_depth: int) -> bool:
    """True when brackets outside strings are nested deeper; told before anything recurses."""
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", body)):
        if bracket in b"[{":
            depth += 1
            if depth > max_depth:
                return True
        else:
            depth -= 1
    return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise JsonFault(f"has the key {name[:64]!r} twice in one object")
            seen.add(name)
    return found


def _constant(name: str) -> NoReturn:
    raise JsonFault(f"holds {name}, which JSON has no word for")
