"""What is wrong with a JSON document, every field reported at once."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from gateway.core.error import UnprocessableContent


class Violations:
    """Collects the rules that a document breaks, field by field."""

    def __init__(self) -> None:
        self.errors: list[dict[str, str]] = []

    def add(self, detail: str, *path: str | int) -> None:
        """Note that the value at `path` breaks a rule; `detail` reads on from the field's name."""
        self.errors.append({"pointer": pointer(*path), "detail": detail})

    def add_header(self, detail: str, name: str) -> None:
        """Note that a request header breaks a rule."""
        self.errors.append({"header": name, "detail": detail})

    def add_parameter(self, detail: str, name: str, place: str) -> None:
        """Note that a parameter breaks a rule; `place` is path, query or header."""
        self.errors.append({"parameter": name, "in": place, "detail": detail})

    def add_unknown(self, name: str, known: Collection[str]) -> None:
        """Note a field nobody knows, with the name that was probably meant."""
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
        self.add(f"is not a known field; {hint}", name)

    def raise_any(self) -> None:
        """Raise `UnprocessableContent` naming every violation, when there is one."""
        if not self.errors:
            return
        first, rest = self.errors[0], len(self.errors) - 1
        where = first.get("header") or first.get("parameter") or first["pointer"]
        more = f" ({rest} more: see errors)" if rest else ""
        raise UnprocessableContent(f"{where} {first['detail']}{more}", self.errors)


def pointer(*path: str | int) -> str:
    """A JSON Pointer as a URI fragment (RFC 6901 section 6), as RFC 9457's examples write it."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "#" + "".join(f"/{step}" for step in steps)


def json_type(value: object) -> str:
    """What JSON calls the type of a decoded value, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list | tuple) else "an object"
