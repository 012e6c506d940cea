"""What a client wants an answer to be made of (RFC 9110 section 12.5.1)."""

from __future__ import annotations

import re
from functools import lru_cache

_REMEMBERED = 256  # distinct fields: clients of one kind all send the same
_JSON = ("application/json", "application/*", "*/*")  # the most specific range counts
_RANGE = re.compile(r"([!#$%&'*+\-.^_`|~\w]+/[!#$%&'*+\-.^_`|~\w]+)((?:\s*;[^,]*)?)", re.ASCII)
_WEIGHT = re.compile(r"\s*;\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)


@lru_cache(maxsize=_REMEMBERED)
def takes_json_first(accept: str) -> bool:
    """True when no other type is wanted more than JSON, so that JSON answers the client best.

    False for what cannot be read, and where parameters ask for JSON of a kind.
    """
    weights: dict[str, float] = {}
    for member in accept.split(","):
        found = _RANGE.fullmatch(member.strip())
        weight = 1.0 if found is None or not found[2] else _weight(found[2])
        if found is None or weight is None:
            return False
        weights[found[1].lower()] = weight
    ours = next((weights[name] for name in _JSON if name in weights), 0.0)
    return ours > 0 and ours >= max(weights.values())


def _weight(parameters: str) -> float | None:
    found = _WEIGHT.fullmatch(parameters)
    return None if found is None else float(found[1])
