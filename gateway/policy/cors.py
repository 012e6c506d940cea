"""Cross-origin requests: which pages may read the answers (Fetch standard, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from multidict import CIMultiDict, istr

from gateway.core.error import ForeignOrigin
from gateway.core.header import append_member, vary_on
from gateway.core.message import Handler, Request, Response
from gateway.policy.cors_adapter import CorsProtocol, Find, is_preflight
from gateway.policy.step import NOTHING, Answer, Step
from gateway.settings.policy_browser import CorsPolicy
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

_ORIGIN = istr("Origin")
_VARY = istr("Vary")
# What an upstream may say of the protocol: ours stand in their place.
_FIELDS = tuple(
    istr(f"Access-Control-{name}")
    for name in (
        "Allow-Origin",
        "Allow-Credentials",
        "Allow-Headers",
        "Allow-Methods",
        "Expose-Headers",
        "Max-Age",
    )
)
_PREFLIGHT_VARY = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


class Cors:
    """Answers preflights, lets allowed origins read answers, and refuses foreign WebSockets.

    It stands outside the problem boundary: a 401 and a 429 carry its headers too, and preflights,
    which browsers send without credentials, end before the key is asked for. A WebSocket has no
    preflight and its answer needs no permission, so that its origin is checked here or nowhere
    (RFC 6455 section 10.2). In shadow, and switched off, the upstream's own headers stand.
    """

    def __init__(self, policy: CorsPolicy, find: Find, metrics: Metrics) -> None:
        self._enabled = policy.enabled
        self._enforced = policy.mode == "enforce"
        self._protocol = CorsProtocol(policy, find)
        self._adapter = self._protocol.adapter
        self._decisions = metrics.cors_decisions_total
        self._varies = any(policy.at(route).origins for route in ("", *policy.routes))
        self._log = get_logger("cors")

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """The answer, with what the policy says of the page that asked."""
        if not self._enabled:
            return await call_next(request)
        if _ORIGIN in request.headers:
            return await self._cross(request, call_next)
        response = await call_next(request)
        if self._enforced:
            self._replace(request, response.headers)
        return response

    def step(self, request: Request, response: Response) -> Step | None:  # noqa: ARG002
        """The upstream's fields go each time; who has an origin is counted by the chain."""
        if not self._enabled:
            return NOTHING
        if _ORIGIN in request.headers:
            return None
        return _Again(partial(self._replace, request)) if self._enforced else NOTHING

    async def explain(self, request: Request) -> str:
        """What it would decide and why, in a sentence; nothing is counted."""
        if not self._enabled:
            return "switched off: the upstream's own headers stand"
        shadow = "" if self._enforced else " (shadow: nothing is changed)"
        if _ORIGIN not in request.headers:
            return f"no Origin: nothing to decide{shadow}"
        if is_preflight(request):
            found = await self._protocol.preflight(request)
            return f"403: {found}{shadow}" if isinstance(found, str) else f"204 preflight{shadow}"
        denial = self._denial(request)
        if denial is not None:
            return f"{denial.status} {denial.slug}: {denial.detail}{shadow}"
        if self._is_own(request):
            return f"the page is of this host{shadow}"
        allowed = "may" if self._allows(request) else "may not"
        return f"the page {allowed} read the answer{shadow}"

    async def _cross(self, request: Request, call_next: Handler) -> Response:
        if is_preflight(request) and request.refusal is None:
            return await self._preflight(request, call_next)
        denial = self._denial(request)
        if denial is not None:
            self._refuse(request, denial, "websocket-denied")
        elif not self._is_own(request):
            self._count(request, "allowed" if self._allows(request) else "denied")
        response = await call_next(request)
        if self._enforced:
            self._replace(request, response.headers)
            await self._protocol.decorate(request, response)
        return response

    async def _preflight(self, request: Request, call_next: Handler) -> Response:
        found = await self._protocol.preflight(request)
        if isinstance(found, str):
            self._refuse(request, ForeignOrigin(f"{found.rstrip('.')}."), "preflight-denied")
        else:
            self._count(request, "preflight")
            if self._enforced:
                found[_VARY] = _PREFLIGHT_VARY
                return Response(204, found)
        response = await call_next(request)
        if self._enforced:
            for name in _FIELDS:
                response.headers.popall(name, None)
            append_member(response.headers, _VARY, _PREFLIGHT_VARY)
        return response

    def _denial(self, request: Request) -> ForeignOrigin | None:
        """Why a WebSocket may not be opened from where it is asked for."""
        if request.headers.get("Upgrade", "").strip().lower() != "websocket":
            return None
        if self._is_own(request) or self._allows(request):
            return None
        return ForeignOrigin(
            "A page of this origin may not open a WebSocket here; the operator names origins in "
            "policies/cors.yaml."
        )

    def _allows(self, request: Request) -> bool:
        return self._adapter.allows(request, request.headers[_ORIGIN])

    def _is_own(self, request: Request) -> bool:
        """True when the page came from this very host: browsers send Origin with it too.

        Whatever its scheme: before the gateway may stand what ends TLS.
        """
        given = request.headers.getall(_ORIGIN)
        host = request.host.lower()
        return given in ([f"https://{host}"], [f"http://{host}"])

    def _refuse(self, request: Request, denial: ForeignOrigin, decision: str) -> None:
        """Have the problem boundary answer, which is further in than this policy."""
        self._count(request, decision)
        if self._enforced and request.refusal is None:
            request.refusal = denial

    def _count(self, request: Request, decision: str) -> None:
        self._decisions.labels(decision if self._enforced else f"shadow-{decision}").inc()
        if not self._enforced and decision.endswith("denied"):
            self._log.info(
                "cors_shadow",
                decision=decision,
                route=request.match.name,
                client=request.client,
                **request.ids,
            )

    def _replace(self, request: Request, headers: CIMultiDict[str]) -> None:
        """Take out what the upstream says; a cache must know that the answer depends on Origin."""
        for name in _FIELDS:
            if name in headers:
                headers.popall(name)
        if self._varies and self._adapter.options(request.match.name):
            vary_on(headers, _ORIGIN)


class _Again(Step):
    """An answer for no page."""

    reads = frozenset({_ORIGIN.lower()})
    __slots__ = ("_replace",)

    def __init__(self, replace: Callable[[CIMultiDict[str]], None]) -> None:
        self._replace = replace

    async def leave(self, answer: Answer) -> Answer:
        if isinstance(answer, Response):
            self._replace(answer.headers)
        return answer
