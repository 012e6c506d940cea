"""Misbehaviour on demand: what is wrong, on which routes, and how many times."""

from __future__ import annotations

import json
import math
import socket
import struct
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any

from aiohttp import web

ROUTES = ("create", "status", "details", "stream", "list")


class Mode(StrEnum):
    """What an answer does wrong."""

    HTML = "html"  # 200 with a web page
    HALF_JSON = "half_json"  # the real answer, cut in the middle, under a matching length
    MISSING_FIELDS = "missing_fields"
    NAN = "nan"  # every percentage is NaN, which JSON does not have
    PERCENTAGE_250 = "percentage_250"
    STATUS_500 = "status_500"
    STATUS_404 = "status_404"
    HANG = "hang"  # no answer, the connection open
    RESET = "reset"  # the connection is reset (RST)
    SLOW = "slow"  # the real answer, late


class FaultBoard:
    """The faults that are set: at most one a route."""

    def __init__(self, everywhere: Mode | None = None) -> None:
        self._set: dict[str, tuple[Mode, float]] = {}
        self.put(everywhere)

    def put(
        self, mode: Mode | None, routes: Iterable[str] = ROUTES, count: int | None = None
    ) -> None:
        """Spoil the next `count` answers of each route, or all of them; no mode mends them."""
        for route in routes:
            self._set.pop(route, None)
            if mode is not None and (count is None or count > 0):
                self._set[route] = (mode, math.inf if count is None else count)

    def take(self, route: str) -> Mode | None:
        """The fault for this request on `route`, counted as spent."""
        mode, left = self._set.pop(route, (None, 0.0))
        if mode is not None and left > 1:
            self._set[route] = (mode, left - 1)
        return mode


def parse_fault(text: str) -> tuple[Mode, tuple[str, ...], int | None]:
    """`mode[:route,route][:count]` as `FaultBoard.put` takes it. Raises ValueError."""
    mode, _, rest = text.partition(":")
    names, _, count_text = rest.partition(":")
    routes = tuple(names.split(",")) if names else ROUTES
    if not set(routes) <= set(ROUTES):
        raise ValueError(f"routes are of {', '.join(ROUTES)}")
    count = int(count_text) if count_text else None
    if count is not None and count < 1:
        raise ValueError("count is a whole number from 1")
    return Mode(mode), routes, count


_REPLACED: dict[Mode, Callable[[], web.Response]] = {
    Mode.HTML: lambda: web.Response(
        text="<html><body><h1>502 Bad Gateway</h1></body></html>", content_type="text/html"
    ),
    Mode.STATUS_500: lambda: web.Response(status=500, text="Internal Server Error"),
}


def replacement(mode: Mode) -> web.Response | None:
    """The whole answer that stands in for the real one, for the modes that have one."""
    make = _REPLACED.get(mode)
    return make() if make else None


def spoil(mode: Mode | None, text: str) -> str:
    """A JSON document, made wrong as `mode` says; unchanged for modes that do not touch bodies."""
    if mode is Mode.HALF_JSON:
        return text[: len(text) // 2]
    if mode is Mode.MISSING_FIELDS:
        return json.dumps(_without_fields(json.loads(text)))
    if mode is Mode.NAN:
        return json.dumps(_with_percentage(json.loads(text), math.nan))
    if mode is Mode.PERCENTAGE_250:
        return json.dumps(_with_percentage(json.loads(text), 250))
    return text


def _without_fields(body: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in body.items() if k not in ("job_id", "status", "progress")}
    if "jobs" in kept:
        kept["jobs"] = [_without_fields(job) for job in kept["jobs"]]
    return kept


def _with_percentage(body: dict[str, Any], percentage: float) -> dict[str, Any]:
    changed = dict(body)
    if "jobs" in body:
        changed["jobs"] = [_with_percentage(job, percentage) for job in body["jobs"]]
    elif isinstance(body.get("progress"), dict):
        changed["progress"] = body["progress"] | {"percentage": percentage}
    elif "progress" in body:
        changed["progress"] = percentage
    return changed


def reset(request: web.Request) -> None:
    """Reset the request's connection, so that the client reads ECONNRESET."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    # Lingering for no time makes the kernel send RST where a close would send FIN.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
