"""The admin listener: health, readiness, metrics and drain, apart from the traffic."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from aiohttp import web
from multidict import CIMultiDict

from gateway.core.error import ContentTooLarge, GatewayError, MethodNotAllowed, NotFound
from gateway.core.message import NoBody, Request, Response
from gateway.core.route import OTHER, Match
from gateway.web.document import MAX_BODY_BYTES, json_response
from gateway.web.health import Status, health_response

Problem = Callable[[GatewayError, Request], Response]
# The content type and the exposition, for what a scraper accepts.
Exposition = Callable[[str], Awaitable[tuple[str, bytes]]]
_NOT_STORED = {"Cache-Control": "no-store"}


class Condition(Protocol):
    """What state the gateway is in: `web.health`, or that of several workers."""

    @property
    def status(self) -> Status:
        """Overall."""
        ...

    def report(self) -> dict[str, Any]:
        """The whole of it, as JSON."""
        ...


class Admin:
    """Answers orchestrators and operators.

    `not_ready` says why traffic should stay away (`starting`, `draining`), or None; `drain` begins
    draining and may be called again. `exposition` None means that they are switched off. `problem`
    renders an error (RFC 9457). `about` names the API in the full health. `resources` are further
    routes, which ask for keys themselves.
    """

    def __init__(
        self,
        health: Condition,
        exposition: Exposition | None,
        *,
        not_ready: Callable[[], str | None],
        drain: Callable[[], None],
        problem: Problem,
        about: Mapping[str, str],
        resources: Iterable[web.RouteDef] = (),
    ) -> None:
        self._health = health
        self._render = exposition
        self._not_ready = not_ready
        self._drain = drain
        self._problem = problem
        self._about = dict(about)
        self._resources = tuple(resources)

    def application(self) -> web.Application:
        """The aiohttp application of the admin listener."""
        app = web.Application(middlewares=[self._boundary], client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/health", self._full)
        app.router.add_get("/health/live", self._live)
        app.router.add_get("/health/ready", self._ready)
        app.router.add_get("/metrics", self._exposition)
        app.router.add_post("/drain", self._begin_drain)
        app.add_routes(self._resources)
        app.on_response_prepare.append(_harden)
        return app

    async def _full(self, _request: web.Request) -> web.Response:
        report = {**self._health.report(), "api": self._about}
        return _sent(health_response(self._health.status, report))

    async def _live(self, _request: web.Request) -> web.Response:
        # Answering at all is the proof: the loop turns. Nothing else is asked.
        return _sent(json_response(200, {"status": "alive"}, _NOT_STORED))

    async def _ready(self, _request: web.Request) -> web.Response:
        reason = self._not_ready()
        code = 200 if reason is None else 503
        return _sent(json_response(code, {"status": reason or "ready"}, _NOT_STORED))

    async def _exposition(self, request: web.Request) -> web.Response:
        if self._render is None:
            raise NotFound("Metrics are switched off; metrics.enabled switches them on.")
        accept = ",".join(request.headers.getall("Accept", []))
        content_type, body = await self._render(accept)
        return web.Response(body=body, headers={"Content-Type": content_type, **_NOT_STORED})

    async def _begin_drain(self, _request: web.Request) -> web.Response:
        self._drain()
        return _sent(json_response(202, {"status": "draining"}, _NOT_STORED))

    @web.middleware
    async def _boundary(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except GatewayError as error:
            return self._refused(error, request)
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            detail = f"{request.path} takes {allowed}."
            return self._refused(MethodNotAllowed(detail, headers={"Allow": allowed}), request)
        except web.HTTPRequestEntityTooLarge:
            too_large = ContentTooLarge(f"The body exceeds {MAX_BODY_BYTES} bytes.")
            return self._refused(too_large, request)
        except web.HTTPNotFound:
            return self._refused(NotFound("The admin listener has nothing here."), request)

    def _refused(self, error: GatewayError, request: web.Request) -> web.Response:
        return _sent(self._problem(error, _request(request)))


def _sent(response: Response) -> web.Response:
    assert isinstance(response.body, bytes)
    return web.Response(status=response.status, headers=response.headers, body=response.body)


def _request(request: web.Request) -> Request:
    """What a problem document needs to know of a request."""
    return Request(
        method=request.method,
        target=request.raw_path,
        path=request.path,
        query=request.query_string,
        headers=CIMultiDict(request.headers),
        body=NoBody(),
        match=Match(OTHER),
        client=request.remote or "",
        scheme=request.scheme,
        host=request.host,
        received_at=0.0,
    )


async def _harden(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall("Server", None)
    response.headers["X-Content-Type-Options"] = "nosniff"
