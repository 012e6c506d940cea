"""Headers that tell browsers to be careful, on every answer, errors included."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.message import Handler, Request, Response
from gateway.settings.policy import SecurityHeaderPolicy

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
# What tells an attacker which software answers, and a filter that browsers dropped for its holes.
REMOVED = ("Server", "X-Powered-By", "X-XSS-Protection")


class SecurityHeaders:
    """Sets the headers of `DEFAULTS`, or as the policy file has them, in place of the upstream's.

    `Strict-Transport-Security` goes out over https alone (RFC 6797 section 7.2). `Cache-Control` is
    what an answer gets that has none. A header set to null is not sent, whoever set it; for
    `Cache-Control` null means that none is added.
    """

    def __init__(self, policy: SecurityHeaderPolicy) -> None:
        given = {name.lower(): (name, value) for name, value in policy.headers.items()}
        merged: dict[str, tuple[str, str | None]] = {
            name.lower(): (name, value) for name, value in DEFAULTS.items()
        }
        merged.update(given)
        _, self._cache_control = merged.pop(CACHE_CONTROL.lower())
        _, self._hsts = merged.pop(HSTS.lower())
        self._set = tuple((name, value) for name, value in merged.values() if value is not None)
        dropped = {*REMOVED, HSTS, *(name for name, value in merged.values() if value is None)}
        self._dropped = tuple(dropped - {name for name, _ in self._set})
        self._enabled = policy.enabled

    @property
    def headers(self) -> Mapping[str, str]:
        """What every answer carries, whatever its scheme; for answers that no policy sees."""
        if not self._enabled:
            return {}
        cached = {} if self._cache_control is None else {CACHE_CONTROL: self._cache_control}
        return {**dict(self._set), **cached}

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """The answer with its headers."""
        response = await call_next(request)
        if not self._enabled:
            return response
        headers = response.headers
        for name in self._dropped:
            headers.popall(name, None)
        for name, value in self._set:
            headers[name] = value
        if self._hsts is not None and request.scheme == "https":
            headers[HSTS] = self._hsts
        if self._cache_control is not None and CACHE_CONTROL not in headers:
            headers[CACHE_CONTROL] = self._cache_control
        return response
