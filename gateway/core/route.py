"""Which route a request is on: one table of templates, matched before any policy looks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from gateway.core.error import InvalidRequest

# Encoded separators, NUL and path parameters mean different things to different parsers; a path
# that needs them is refused rather than guessed at.
_AMBIGUOUS = re.compile(r"%2f|%5c|%00|%25(?:2f|5c|00|2e)|;|\\|[\x00-\x20\x7f]", re.IGNORECASE)
_ENCODED_DOT = re.compile(r"%2e", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """A named path template such as `/api/v1/jobs/{job_id}`; no methods means any.

    A placeholder takes one segment; a closing `/*` takes everything below.
    `name` is what policies refer to; `gateway` marks paths the gateway answers itself.
    """

    name: str
    template: str
    methods: frozenset[str] = frozenset()
    gateway: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """The route of one request and its path parameters."""

    route: Route
    params: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The route's name."""
        return self.route.name


OTHER = Route("other", "*")


class RouteTable:
    """Routes in order; the first that fits wins, else `other`."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._exact: dict[str, list[Route]] = {}
        self._patterns: list[tuple[re.Pattern[str], Route]] = []
        for route in routes:
            if "{" in route.template or route.template.endswith("/*"):
                self._patterns.append((_compile(route.template), route))
            else:
                self._exact.setdefault(route.template, []).append(route)

    def match(self, method: str, path: str) -> Match:
        """The route of `method` and normalised `path`; a route with no methods takes any."""
        for route in self._exact.get(path, ()):
            if not route.methods or method in route.methods:
                return Match(route)
        for pattern, route in self._patterns:
            if (not route.methods or method in route.methods) and (hit := pattern.fullmatch(path)):
                # Decoded once: an id is what upstream and store call it, however it was spelled.
                return Match(
                    route, {name: unquote(value) for name, value in hit.groupdict().items()}
                )
        return Match(OTHER)


def _compile(template: str) -> re.Pattern[str]:
    prefix, subtree = (template[:-1], ".*") if template.endswith("/*") else (template, "")
    parts = _PLACEHOLDER.split(prefix)
    out = [
        f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)
    ]
    return re.compile("".join(out) + subtree)


def normalize_path(path: str) -> str:
    """Remove dot segments (RFC 3986 section 5.2.4); what is returned is matched and forwarded.

    Raises `InvalidRequest` for a path that parsers read differently: encoded separators, double
    encoding, path parameters, control characters, or one that climbs above the root.
    """
    if not path.startswith("/"):
        raise InvalidRequest("The request target must start with '/'.")
    if _AMBIGUOUS.search(path):
        raise InvalidRequest(
            "The path holds an encoded separator, a ';', a '\\' or a control character; "
            "send it without."
        )
    if "/." not in path and "%2" not in path:
        return path
    out: list[str] = []
    segments = _ENCODED_DOT.sub(".", path).split("/")[1:]
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == "..":
            if not out:
                raise InvalidRequest("The path climbs above the root with '..'.")
            out.pop()
            if last:
                out.append("")
        elif segment == ".":
            if last:
                out.append("")
        else:
            out.append(segment)
    return "/" + "/".join(out)
