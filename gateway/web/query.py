"""Query strings of the gateway's own resources: known parameters only, each once, each checked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from datetime import datetime
from urllib.parse import parse_qsl

from gateway.core.error import InvalidRequest

MAX_LIMIT = 100
MAX_TEXT = 512


class Query:
    """A request's parameters. Everything raises `InvalidRequest` naming the parameter."""

    def __init__(self, raw: str, known: tuple[str, ...]) -> None:
        try:
            pairs = parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=32)
        except ValueError as error:
            raise InvalidRequest(f"The query string cannot be read: {error}.") from error
        self._values: dict[str, str] = {}
        for name, value in pairs:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
                raise InvalidRequest(f"There is no query parameter {name!r}; {hint}")
            if name in self._values:
                raise InvalidRequest(f"The query parameter {name!r} is given twice.")
            self._values[name] = value

    def text(self, name: str) -> str | None:
        """The parameter's text; None when absent."""
        value = self._values.get(name)
        if value is None:
            return None
        if not value or len(value) > MAX_TEXT:
            raise InvalidRequest(f"{name!r} must have 1 to {MAX_TEXT} characters.")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number within `low` to `high`."""
        value = self._values.get(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) <= 18):
            raise InvalidRequest(f"{name!r} must be a whole number from {low} to {high}.")
        if not low <= int(value) <= high:
            raise InvalidRequest(f"{name!r} must be from {low} to {high}, not {value}.")
        return int(value)

    def limit(self, default: int = 50) -> int:
        """How many items a page may hold: 1 to 100."""
        return self.integer("limit", default, 1, MAX_LIMIT)

    def one_of(self, name: str, choices: Iterable[str]) -> str | None:
        """One of these words."""
        value, known = self._values.get(name), list(choices)
        if value is not None and value not in known:
            raise InvalidRequest(f"{name!r} must be one of {', '.join(known)}.")
        return value

    def time(self, name: str) -> float | None:
        """An RFC 3339 time as epoch seconds."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            return parse_time(value)
        except ValueError as error:
            raise InvalidRequest(f"{name!r} {error}.") from None


def parse_time(text: str) -> float:
    """RFC 3339 as epoch seconds; ValueError reads on from the field's name."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be an RFC 3339 time such as 2026-01-01T00:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError("must say its offset from UTC, such as a closing Z")
    return moment.timestamp()
