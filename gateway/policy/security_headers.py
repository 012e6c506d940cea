"""Headers that tell browsers to be careful, on every answer, errors included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from multidict import CIMultiDict, istr

from gateway.core.message import Handler, Request, Response
from gateway.core.route import Route, RouteTable
from gateway.policy.step import NOTHING, Answer, Indifferent, Step
from gateway.settings.policy_browser import SecurityHeaderPolicy
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

HSTS = "Strict-Transport-Security"
CACHE_CONTROL = "Cache-Control"
DEFAULTS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    HSTS: "max-age=63072000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    CACHE_CONTROL: "no-store",
}
_CACHE_CONTROL = istr(CACHE_CONTROL)
# What tells an attacker which software answers, and a filter that browsers dropped for its holes.
REMOVED = ("Server", "X-Powered-By", "X-XSS-Protection")


@dataclass(frozen=True, slots=True)
class _Sheet:
    """The headers of some paths, made ready: what is set, dropped, and set on a condition."""

    fixed: CIMultiDict[str]
    dropped: tuple[str, ...]
    hsts: str | None
    cache_control: str | None

    def put(self, headers: CIMultiDict[str], *, is_secure: bool) -> None:
        """Make the headers as they should be."""
        for name in self.dropped:
            if name in headers:
                headers.popall(name)
        headers.update(self.fixed)
        if self.hsts is not None and is_secure:
            headers[HSTS] = self.hsts
        if self.cache_control is not None:
            headers.setdefault(_CACHE_CONTROL, self.cache_control)


class SecurityHeaders:
    """Sets the headers of `DEFAULTS`, or as the policy file has them, in place of the upstream's.

    `Strict-Transport-Security` goes out over https alone (RFC 6797 section 7.2). `Cache-Control` is
    what an answer gets that has none. A header set to null is not sent, whoever set it; for
    `Cache-Control` null means that none is added. In shadow the answers stay as they are, and the
    ones that would change are counted.
    """

    def __init__(self, policy: SecurityHeaderPolicy, metrics: Metrics) -> None:
        self._sheet = _sheet(policy.headers)
        self._sheets = tuple(_sheet(policy.headers, each.headers) for each in policy.overrides)
        self._overrides: RouteTable | None = None
        if policy.overrides:
            # A route's name is the place of its sheet.
            routes = [Route(str(i), each.path) for i, each in enumerate(policy.overrides)]
            self._overrides = RouteTable(routes)
        self._enabled = policy.enabled
        self._enforced = policy.mode == "enforce"
        self._decisions = metrics.security_header_decisions_total
        self._log = get_logger("security_headers")

    @property
    def headers(self) -> Mapping[str, str]:
        """What every answer carries, whatever its scheme; for answers that no policy sees."""
        if not (self._enabled and self._enforced):
            return {}
        sheet = self._sheet
        cached = {} if sheet.cache_control is None else {CACHE_CONTROL: sheet.cache_control}
        return {**dict(sheet.fixed), **cached}

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """The answer with its headers."""
        response = await call_next(request)
        if not self._enabled:
            return response
        sheet = self._sheet if self._overrides is None else self._sheet_for(request)
        if self._enforced:
            sheet.put(response.headers, is_secure=request.scheme == "https")
        else:
            self._compare(request, response, sheet)
        return response

    def step(self, request: Request, response: Response) -> Step | None:  # noqa: ARG002
        """What it sets is the same each time; in shadow each answer is compared."""
        if not self._enabled:
            return NOTHING
        if not self._enforced:
            return None
        sheet = self._sheet if self._overrides is None else self._sheet_for(request)
        return _Again(sheet, is_secure=request.scheme == "https")

    def explain(self, request: Request) -> str:
        """What it would do, in a sentence."""
        if not self._enabled:
            return "switched off: the upstream's own headers stand"
        sheet = self._sheet if self._overrides is None else self._sheet_for(request)
        said = "the file's headers" if sheet is self._sheet else f"an override of {request.path}"
        names = ", ".join(name for name in sheet.fixed)
        shadow = "" if self._enforced else " (shadow: nothing is changed)"
        return f"{said}: {names}{shadow}"

    def _sheet_for(self, request: Request) -> _Sheet:
        assert self._overrides is not None
        name = self._overrides.match(request.method, request.path).name
        return self._sheets[int(name)] if name.isdecimal() else self._sheet

    def _compare(self, request: Request, response: Response, sheet: _Sheet) -> None:
        wanted = response.headers.copy()
        sheet.put(wanted, is_secure=request.scheme == "https")
        changed = sorted(
            name
            for name in {*map(str.title, wanted), *map(str.title, response.headers)}
            if wanted.getall(name, ()) != response.headers.getall(name, ())
        )
        self._decisions.labels("shadow-changed" if changed else "shadow-same").inc()
        if changed:
            self._log.info(
                "security_headers_shadow",
                headers=changed,
                route=request.match.name,
                **request.ids,
            )


class _Again(Indifferent):
    """The same sheet."""

    __slots__ = ("_is_secure", "_sheet")

    def __init__(self, sheet: _Sheet, *, is_secure: bool) -> None:
        self._sheet = sheet
        self._is_secure = is_secure

    async def leave(self, answer: Answer) -> Answer:
        if isinstance(answer, Response):
            self._sheet.put(answer.headers, is_secure=self._is_secure)
        return answer


def _sheet(*layers: Mapping[str, str | None]) -> _Sheet:
    """The defaults under these layers, the later over the earlier, in any letter case."""
    merged: dict[str, tuple[str, str | None]] = {}
    for layer in (DEFAULTS, *layers):
        merged.update({name.lower(): (name, value) for name, value in layer.items()})
    _, cache_control = merged.pop(CACHE_CONTROL.lower())
    _, hsts = merged.pop(HSTS.lower())
    # As istr: a name that is not folded at every look-up costs half as much.
    fixed = CIMultiDict((istr(name), value) for name, value in merged.values() if value is not None)
    unwanted = {*REMOVED, HSTS, *(name for name, value in merged.values() if value is None)}
    # What is set takes the place of what was there: it need not be dropped first.
    dropped = tuple(istr(name) for name in unwanted - set(fixed))
    return _Sheet(fixed, dropped, hsts, cache_control)
