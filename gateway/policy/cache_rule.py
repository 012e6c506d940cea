"""What the response cache may answer, keep, and serve late: decisions without store or clock."""

from __future__ import annotations

from collections.abc import Callable

from multidict import CIMultiDict

from gateway.core import freshness
from gateway.core.freshness import StoredResponse
from gateway.core.header import nominated_fields
from gateway.core.job import State
from gateway.core.message import Request, Response
from gateway.settings.policy import CachePolicy

_RUNNING_SECONDS = 2.0  # a job that has not ended, unless ttl_by_state says otherwise
# What belongs to one answer, not to the status: identity, quota, and what caches themselves note.
_UNSTORED = frozenset(
    {"age", "cache-status", "ratelimit", "ratelimit-policy", "retry-after", "x-request-id"}
)
_UNSTORED_PREFIX = "x-ratelimit-"
# The answer may be for this client alone, in part, or depend on what the client holds already.
_BYPASSING = (
    *("Authorization", "Cookie", "Range"),
    *("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"),
)


class CacheRule:
    """The rules of `policies/cache.yaml` and of RFC 9111, whichever is stricter.

    `state_of` reads a job's state out of a body; an answer that shows none is not kept.
    """

    def __init__(self, policy: CachePolicy, state_of: Callable[[bytes], State | None]) -> None:
        self._policy = policy
        self._state_of = state_of

    def key(self, request: Request) -> str:
        """The target, `Accept`, and whose answer it is, unless the route is public.

        The proxy asks for job routes unencoded, so that `Accept-Encoding` makes no difference. No
        field can hold a line break, and the owner stands last: no two keys read alike.
        """
        whose = f"={request.principal.owner}" if request.principal else "-"
        if request.match.name in self._policy.public:
            whose = "*"
        accept = ", ".join(request.headers.getall("Accept", ("*/*",)))
        return f"{request.target}\n{accept}\n{whose}"

    def entry(
        self, request: Request, response: Response, asked_at: float, now: float
    ) -> StoredResponse | None:
        """The answer as it may be kept, or None; `asked_at` is when it was asked for."""
        headers, body = response.headers, response.body
        if response.status != 200 or not isinstance(body, bytes) or not _is_json(headers):
            return None
        state = self._state_of(body) if freshness.may_store(headers) else None
        if state is None:
            return None
        ttl = self._policy.ttl if state.terminal else _RUNNING_SECONDS
        fresh_until = now + self._policy.ttl_by_state.get(state.value, ttl)
        allowed = freshness.allowed_seconds(headers, now)
        if allowed is not None:
            fresh_until = min(fresh_until, asked_at + allowed)
        if fresh_until <= now:
            return None
        return StoredResponse(
            status=response.status,
            headers=tuple((name, value) for name, value in headers.items() if _is_stored(name)),
            body=body,
            stored_at=asked_at - freshness.age_seconds(headers),
            fresh_until=fresh_until,
            vary=freshness.vary_values(headers, request.headers),
            tags=tags_of(request),
        )

    def may_serve_stale(self, found: StoredResponse, now: float) -> bool:
        """True when it is not too late: at most `ttl` after its end, and the upstream allows it."""
        return now - found.fresh_until <= self._policy.ttl and found.may_be_stale()


def job_tag(job_id: str) -> str:
    """What answers about a job are purged by."""
    return f"job:{job_id}"


def tags_of(request: Request) -> tuple[str, ...]:
    """The tags of a request's answer."""
    job_id = request.match.params.get("job_id")
    return () if job_id is None else (job_tag(job_id),)


def bypasses(request: Request) -> bool:
    """True when neither a stored answer will do nor this one may be kept."""
    headers = request.headers
    if any(name in headers for name in _BYPASSING):
        return True
    # Fields that `Connection` names do not reach the upstream, but would stand in the cache key.
    if nominated_fields(headers) or not request.body.is_empty:
        return True
    return "no-store" in freshness.directives(headers)


def accepts_age(request: Request, age_seconds: int) -> bool:
    """False when the request's own `max-age` asks for a younger answer (RFC 9111 5.2.1.1)."""
    max_age = freshness.directives(request.headers).get("max-age")
    return max_age is None or age_seconds <= (freshness.delta_seconds(max_age) or 0)


def _is_json(headers: CIMultiDict[str]) -> bool:
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _is_stored(name: str) -> bool:
    return name.lower() not in _UNSTORED and not name.lower().startswith(_UNSTORED_PREFIX)
