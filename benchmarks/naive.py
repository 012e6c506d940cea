"""python -m benchmarks.naive PORT ORIGIN_PORT KEY LOG: a gateway as most people would write one.

aiohttp's Application with a middleware a policy, `ClientSession` to the upstream, structlog, and a
cache in a dictionary. It does the same work as the peers it stands beside.
"""

from __future__ import annotations

import hashlib
import hmac
import sys
import time
import uuid
from collections import defaultdict, deque
from pathlib import Path

import aiohttp
import structlog
import uvloop
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import Counter, Histogram

REQUESTS = Counter("naive_requests", "Requests.", ("method", "status"))
SECONDS = Histogram("naive_request_seconds", "Durations.")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
DROPPED = {"connection", "keep-alive", "transfer-encoding", "host", "x-api-key"}
LIMIT, WINDOW_SECONDS = 10**9, 60.0

log = structlog.get_logger()
hits: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=1024))
cache: dict[str, tuple[int, dict[str, str], bytes]] = {}
SESSION = web.AppKey("session", aiohttp.ClientSession)
ORIGIN = web.AppKey("origin", str)
KEY_HASH = web.AppKey("key_hash", str)


@web.middleware
async def access_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    started = time.perf_counter()
    request["id"] = str(uuid.uuid4())
    response = await handler(request)
    seconds = time.perf_counter() - started
    response.headers["X-Request-ID"] = request["id"]
    REQUESTS.labels(request.method, str(response.status)).inc()
    SECONDS.observe(seconds)
    log.info(
        "request",
        method=request.method,
        path=request.path,
        status=response.status,
        duration_seconds=seconds,
        client=request.remote,
        request_id=request["id"],
    )
    return response


@web.middleware
async def security_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    response.headers.update(HEADERS)
    return response


@web.middleware
async def auth(request: web.Request, handler: Handler) -> web.StreamResponse:
    given = hashlib.sha256(request.headers.get("X-API-Key", "").encode()).hexdigest()
    if not hmac.compare_digest(given, request.app[KEY_HASH]):
        raise web.HTTPUnauthorized
    request["key"] = given
    return await handler(request)


@web.middleware
async def rate_limit(request: web.Request, handler: Handler) -> web.StreamResponse:
    now = time.monotonic()
    window = hits[request["key"]]
    while window and window[0] <= now - WINDOW_SECONDS:
        window.popleft()
    if len(window) >= LIMIT:
        raise web.HTTPTooManyRequests
    window.append(now)
    return await handler(request)


@web.middleware
async def response_cache(request: web.Request, handler: Handler) -> web.StreamResponse:
    found = cache.get(request.path)
    if found is not None:
        status, headers, body = found
        return web.Response(status=status, headers=headers, body=body)
    response = await handler(request)
    if isinstance(response, web.Response) and request.path.startswith("/api/v1/analysis/"):
        assert isinstance(response.body, bytes)
        cache[request.path] = (response.status, dict(response.headers), response.body)
    return response


async def forward(request: web.Request) -> web.StreamResponse:
    headers = {
        name: value for name, value in request.headers.items() if name.lower() not in DROPPED
    }
    headers["X-Request-ID"] = request["id"]
    url = request.app[ORIGIN] + request.path_qs
    async with request.app[SESSION].request(request.method, url, headers=headers) as answer:
        kept = {n: v for n, v in answer.headers.items() if n.lower() not in DROPPED}
        kept.pop("Content-Length", None)
        return web.Response(status=answer.status, headers=kept, body=await answer.read())


async def application(origin: str, key: str, path: Path) -> web.Application:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=path.open("w")),
    )
    policies = [access_log, security_headers, auth, rate_limit, response_cache]
    app = web.Application(middlewares=policies)
    app[ORIGIN] = origin
    app[KEY_HASH] = hashlib.sha256(key.encode()).hexdigest()
    app[SESSION] = aiohttp.ClientSession()
    app.router.add_route("*", "/{path:.*}", forward)
    return app


if __name__ == "__main__":
    port, origin_port, api_key, log_path = sys.argv[1:]
    uvloop.install()
    web.run_app(
        application(f"http://127.0.0.1:{origin_port}", api_key, Path(log_path)),
        host="127.0.0.1",
        port=int(port),
        access_log=None,
        print=None,
    )
