"""What the response cache may answer, keep, and serve late: decisions without store or clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from multidict import CIMultiDict, istr

from gateway.core.accept import takes_json_first
from gateway.core.cache_control import request_control, response_control
from gateway.core.contract import STATUS, STREAM
from gateway.core.freshness import StoredResponse, Terms, explicit_lifetime
from gateway.core.header import nominated_fields
from gateway.core.job import State
from gateway.core.message import Request, Response
from gateway.core.reuse import may_serve_on_error
from gateway.core.route import Match
from gateway.core.storing import (
    StoringRule,
    is_storable,
    stored_fields,
    storing_terms,
    terms_of,
)
from gateway.core.validator import CONDITIONAL_FIELDS
from gateway.core.vary import vary_values
from gateway.settings.contract import HISTORY
from gateway.settings.policy import CachePolicy

_RUNNING_SECONDS = 2.0  # a job that has not ended, unless ttl_by_state says otherwise
# The client states what must hold, or the answer may depend on what stands in no key.
_BYPASSING = (
    *(istr("If-Match"), istr("If-Unmodified-Since")),
    *(istr("X-Original-URL"), istr("X-Rewrite-URL")),
    *(istr("X-Forwarded-Prefix"), istr("X-Forwarded-Path")),
    *(istr("X-HTTP-Method-Override"), istr("X-HTTP-Method"), istr("X-Method-Override")),
)
# As istr, like those above: found thrice as fast as by str.
_AUTHORIZATION, _CONNECTION, _COOKIE = istr("Authorization"), istr("Connection"), istr("Cookie")
# The request's fields, lower-cased, that it depends on what is looked for and what is given of it;
# `Vary` may name more.
CACHE_FIELDS = frozenset(
    each.lower()
    for each in (
        *(_AUTHORIZATION, _CONNECTION, _COOKIE, *_BYPASSING, *CONDITIONAL_FIELDS),
        *("Accept", "Cache-Control", "Pragma"),
    )
)


class CacheRule:
    """The rules of `policies/cache.yaml` and of RFC 9111, whichever is stricter.

    `state_of` reads a job's state out of a body; a status that shows none has no freshness of ours.
    `is_watched` says whether a job's next change will be heard of.
    """

    def __init__(
        self,
        policy: CachePolicy,
        state_of: Callable[[bytes], State | None],
        is_watched: Callable[[str], bool],
    ) -> None:
        self._policy = policy
        self._state_of = state_of
        self._is_watched = is_watched
        self._public = frozenset(policy.public)
        self._cookies = policy.http.cookies == "share"
        self._http = policy.http.enabled
        self._storing = StoringRule(
            targets=policy.http.targets,
            heuristic_fraction=policy.http.heuristic_fraction,
            heuristic_seconds=policy.http.heuristic_max,
            cookies=self._cookies,
        )

    def covers(self, request: Request) -> bool:
        """True when answers to this route's reads may be kept at all; streams never are."""
        name = request.match.route.name
        return name != STREAM if self._http else name in (STATUS, HISTORY)

    def bypasses(self, request: Request) -> bool:
        """True when neither a stored answer will do nor this one may be kept."""
        headers = request.headers
        is_status = request.match.route.name == STATUS
        if _COOKIE in headers and (is_status or not self._cookies):
            return True
        if is_status and _AUTHORIZATION in headers:
            return True
        for name in _BYPASSING:
            if name in headers:
                return True
        # Fields that `Connection` names do not reach the upstream, but would select a variant.
        if _CONNECTION in headers and nominated_fields(headers):
            return True
        return not request.body.is_empty or request_control(headers).no_store

    def tag(self, request: Request) -> str:
        """What the answer is purged by."""
        if request.match.route.name == HISTORY:
            return history_tag(request.owner)
        return tag_of(request.match, request.target)

    def key(self, request: Request) -> str:
        """The target, whose answer it is unless the route is public, and what it may depend on.

        A job's status depends on nothing but `Accept`: the proxy asks for it unencoded, and all who
        take JSON as gladly as anything are given the same. Any other answer may hold links made
        from scheme and host; `Vary` names the rest. No field can hold a line break, and the owner
        stands last: no two keys read alike.
        """
        name = request.match.route.name
        whose = f"={request.principal.owner}" if request.principal else "-"
        # Jobs are an owner's own, whatever the policy has in common.
        if name in self._public and name != HISTORY:
            whose = "*"
        if name == STATUS:
            accept = _accept(request)
            if takes_json_first(accept):
                return f"{request.target}\n{whose}"
            return f"{request.target}\n{accept}\n{whose}"
        return f"{request.target}\n{request.scheme}://{request.host}\n{whose}"

    def is_common(self, request: Request) -> bool:
        """True for a status that all who ask for it share, the gateway's own questions included."""
        if STATUS not in self._public or request.match.route.name != STATUS or request.query:
            return False
        return takes_json_first(_accept(request))

    def terms(
        self, request: Request, response: Response, asked_at: float, now: float
    ) -> Terms | None:
        """On what terms the answer may be kept, or None; `asked_at` is when it was asked for."""
        name = request.match.route.name
        if name == HISTORY:
            return self._history_terms(response, now)
        if name == STATUS:
            terms = self._job_terms(request, response, asked_at, now)
            if terms is not None or not self._http:
                return terms
            if not _is_json(response.headers) and takes_json_first(_accept(request)):
                return None  # it would be given to those who take nothing but JSON
        return storing_terms(
            response.status,
            response.headers,
            asked_at=asked_at,
            now=now,
            authorized=_AUTHORIZATION in request.headers,
            rule=self._storing,
        )

    def entry(
        self, request: Request, response: Response, body: bytes, terms: Terms
    ) -> StoredResponse:
        """The answer as it is kept."""
        headers = response.headers
        vary = vary_values(headers, request.headers)
        return StoredResponse(
            response.status, stored_fields(headers, self._storing), body, terms, vary
        )

    def may_serve_late(self, request: Request, found: StoredResponse, now: float) -> bool:
        """True for a job's stale status, at most `ttl` after its end: the upstream is slow."""
        return request.match.name == STATUS and found.terms.may_be_stale(now, self._policy.ttl)

    def may_stand_in(self, request: Request, found: StoredResponse, now: float) -> bool:
        """True when a stored answer may be served because the upstream failed."""
        return may_serve_on_error(request.headers, found, now, self._policy.stale_if_error)

    def _history_terms(self, response: Response, now: float) -> Terms | None:
        """Those of a page of jobs: until one of them changes, which ends it by its tag."""
        if response.status != 200 or self._policy.ttl <= 0:
            return None
        # Each owner has its own, so that an `Authorization` makes no difference.
        return Terms(now, now + self._policy.ttl, strict=True, shared=True)

    def _job_terms(
        self, request: Request, response: Response, asked_at: float, now: float
    ) -> Terms | None:
        """Those of a job's status: as long as its state says, or less if the upstream does."""
        headers, body = response.headers, response.body
        if response.status != 200 or not isinstance(body, bytes) or not _is_json(headers):
            return None
        control = response_control(headers, self._storing.targets)
        storable = is_storable(200, headers, control, authorized=False, cookies=False)
        state = self._state_of(body) if storable and not control.no_cache else None
        if state is None:
            return None
        fresh_until = now + self._lifetime(state, request.match.params["job_id"])
        explicit = explicit_lifetime(headers, control, now)
        terms = terms_of(headers, control, explicit or 0.0, asked_at, now)
        if explicit is not None:
            fresh_until = min(fresh_until, terms.fresh_until)
        return replace(terms, fresh_until=fresh_until) if fresh_until > now else None

    def _lifetime(self, state: State, job_id: str) -> float:
        """Seconds a status is fresh: longer where the job's next change ends it anyway."""
        ttl = self._policy.ttl if state.terminal else _RUNNING_SECONDS
        lifetime = self._policy.ttl_by_state.get(state.value, ttl)
        if state.terminal or lifetime <= 0 or not self._is_watched(job_id):
            return lifetime
        return max(lifetime, self._policy.watched.max_age)


def job_tag(job_id: str) -> str:
    """What answers about a job are purged by."""
    return f"job:{job_id}"


def history_tag(owner: str) -> str:
    """What pages of an owner's jobs are purged by."""
    return f"history:{owner}"


def tag_of(match: Match, target: str) -> str:
    """What a request's answer is purged by: its job where it has one, else its target."""
    job_id = match.params.get("job_id")
    return f"uri:{target}" if job_id is None else job_tag(job_id)


def _accept(request: Request) -> str:
    return ", ".join(request.headers.getall("Accept", ("*/*",)))


def _is_json(headers: CIMultiDict[str]) -> bool:
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")
