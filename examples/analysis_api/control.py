"""The two routes that the real API does not have: one sets faults, one tells what arrived."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from examples.analysis_api.fault import ROUTES, Mode
from examples.analysis_api.state import STATE

FAULT_PATH = "/__fault"
STATS_PATH = "/__stats"


async def post_fault(request: web.Request) -> web.Response:
    """Set or, with a null mode, mend faults: {"mode", "routes"?: all, "count"?: without end}."""
    try:
        mode, routes, count = _fault(await request.json())
    except (json.JSONDecodeError, ValueError) as error:
        return web.json_response({"error": str(error)}, status=400)
    request.app[STATE].faults.put(mode, routes, count)
    return web.json_response({"mode": mode, "routes": routes, "count": count})


def _fault(body: Any) -> tuple[Mode | None, list[str], int | None]:
    if not isinstance(body, dict) or "mode" not in body:
        raise ValueError("a JSON object with a mode is needed")
    mode = None if body["mode"] is None else Mode(body["mode"])
    routes = body.get("routes", list(ROUTES))
    if not isinstance(routes, list) or not set(map(str, routes)) <= set(ROUTES):
        raise ValueError(f"routes are of {', '.join(ROUTES)}")
    count = body.get("count")
    if count is not None and (not isinstance(count, int) or count < 1):
        raise ValueError("count is a whole number from 1")
    return mode, routes, count


async def get_stats(request: web.Request) -> web.Response:
    """The requests so far, and the headers of the last of them."""
    return web.json_response(request.app[STATE].stats.body())
