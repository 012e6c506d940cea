"""What aiohttp-cors asks of a router, answered from the policy file at each request.

aiohttp-cors decides by a router's routing entities, which an application has once and for all. Here
an entity is the name of one of our routes, and a request finds its own; a new policy file makes a
new adapter, so that nothing of aiohttp's router is touched while traffic flows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from aiohttp_cors import CorsConfig, ResourceOptions
from aiohttp_cors.abc import AbstractRouterAdapter
from multidict import CIMultiDict

from gateway.core.message import Request
from gateway.core.route import Match
from gateway.settings.policy_browser import CorsPolicy

Options = Mapping[str, ResourceOptions]
Find = Callable[[str, str], Match]
_ELSEWHERE = ""  # the entity of every route without figures of its own
_ANY = "*"
_NULL = "null"  # an opaque origin: every sandboxed frame and file has it, so that it names nobody


class PolicyRouterAdapter(AbstractRouterAdapter):
    """Knows each route's origins; `find` names the route of a method and path.

    `preflight` is the handler that aiohttp-cors would have a router call for OPTIONS.
    """

    def __init__(self, find: Find) -> None:
        self._find = find
        self._options: dict[str, Options] = {}
        self.preflight: Callable[[Any], Awaitable[web.Response]] = _unset

    def add_preflight_handler(
        self,
        routing_entity: str,  # noqa: ARG002 - one handler serves them all
        handler: Callable[[Any], Awaitable[web.Response]],
        webview: bool = False,  # noqa: ARG002, FBT001, FBT002 - the base class's signature
    ) -> None:
        """Remember the handler; the policy calls it for preflights alone."""
        self.preflight = handler

    def set_config_for_routing_entity(self, routing_entity: str, config: Options) -> None:
        """Remember a route's origins."""
        self._options[routing_entity] = config

    def is_preflight_request(self, request: Any) -> bool:
        """True for a CORS preflight (Fetch standard, section 3.2.2)."""
        return is_preflight(request)

    def is_cors_enabled_on_request(self, request: Any) -> bool:
        """True where the route has origins at all."""
        return bool(self.options(request.match.name))

    async def get_preflight_request_config(
        self, preflight_request: Any, origin: str, requested_method: str
    ) -> Options:
        """The origins of the route that the preflight is for.

        Raises KeyError when the origin may not use the method there.
        """
        options = self._of(preflight_request, self.route_of_preflight(preflight_request))
        allowed = options.get(origin, options.get(_ANY))
        if allowed is not None and requested_method not in allowed.allow_methods:
            raise KeyError(requested_method)
        return options

    def get_non_preflight_request_config(self, request: Any) -> Options:
        """The origins of the request's route."""
        return self._of(request, request.match.name)

    def options(self, route: str) -> Options:
        """The origins of a route."""
        return self._options.get(route, self._options.get(_ELSEWHERE, {}))

    def route_of_preflight(self, request: Request) -> str:
        """The route of the request that a preflight announces: OPTIONS itself is on another."""
        method = request.headers.get("Access-Control-Request-Method", "")
        return self._find(method, request.path).name

    def allows(self, request: Request, origin: str) -> bool:
        """True when pages of this origin may read the answer."""
        options = self._of(request, request.match.name)
        return origin in options or _ANY in options

    def _of(self, request: Request, route: str) -> Options:
        given = request.headers.getall("Origin", ())
        return {} if len(given) != 1 or given[0] == _NULL else self.options(route)


class CorsProtocol:
    """aiohttp-cors on our own messages: it reads and writes nothing of them but their headers."""

    def __init__(self, policy: CorsPolicy, find: Find) -> None:
        self.adapter = PolicyRouterAdapter(find)
        # An application of nothing but the signal through which aiohttp-cors hears of answers.
        application = web.Application()
        cors = CorsConfig(application, router_adapter=self.adapter)
        for route in (_ELSEWHERE, *policy.routes):
            cors.add(route, options_of(policy.at(route)))
        application.on_response_prepare.freeze()
        self._decorate: Callable[[Any, Any], Awaitable[None]] = application.on_response_prepare.send

    async def preflight(self, request: Request) -> CIMultiDict[str] | str:
        """The headers that answer a preflight, or why it is denied."""
        try:
            answer = await self.adapter.preflight(request)
        except web.HTTPForbidden as denied:
            return denied.text or denied.reason
        fields = ((name, value) for name, value in answer.headers.items() if _is_cors(name))
        return CIMultiDict(fields)

    async def decorate(self, request: Request, answer: Any) -> None:
        """Give an answer the headers that let its page read it; none where that may not."""
        await self._decorate(request, answer)


def is_preflight(request: Request) -> bool:
    """True for a CORS preflight; any other OPTIONS is the upstream's business."""
    headers = request.headers
    return (
        request.method == "OPTIONS"
        and "Origin" in headers
        and "Access-Control-Request-Method" in headers
    )


def options_of(policy: CorsPolicy) -> dict[str, ResourceOptions]:
    """What each origin may do. Raises ValueError as `ResourceOptions` does."""
    headers: Any = _ANY if _ANY in policy.headers else policy.headers
    options = ResourceOptions(  # type: ignore[no-untyped-call]
        allow_credentials=policy.credentials,
        expose_headers=policy.expose,
        allow_headers=headers,
        max_age=int(policy.max_age),
        allow_methods=policy.methods,
    )
    return dict.fromkeys(policy.origins, options)


def _is_cors(name: str) -> bool:
    return name.lower().startswith("access-control-")


async def _unset(_: Any) -> web.Response:
    raise web.HTTPForbidden(text="CORS preflight request failed: no origins are allowed")
