"""Polls that are answered when there is something to say (`Prefer: wait`, RFC 7240 section 4.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from multidict import CIMultiDict, istr

from gateway.core.contract import STATUS
from gateway.core.message import Handler, Request, Response
from gateway.core.preference import wait_seconds, without_wait
from gateway.policy.cache_answer import conditioned
from gateway.policy.step import NOTHING, Step
from gateway.policy.waiter import Waiter, Waiters
from gateway.settings.policy import CachePolicy
from gateway.telemetry.metric import Metrics

WAITED = "waited_seconds"  # of the access line
_RESULTS = ("changed", "at_once", "unchanged", "drained", "full", "left")
_PREFER, _APPLIED = istr("Prefer"), istr("Preference-Applied")
_IF_NONE_MATCH = istr("If-None-Match")


class Known(Protocol):
    """The response cache, as waiting needs it."""

    def keeps(self, request: Request) -> bool:
        """True when the answer may be one that others were given, or will be."""
        ...

    def is_common(self, request: Request) -> bool:
        """True when all who ask this are given the same."""
        ...


class LongPoll:
    """Lets a poll of an active job's status wait for the job's next change.

    With `If-None-Match`, until the status is another than the client has. Whoever waits is given
    the very answer that was fetched for all who do. At the end of the wait, or when the server
    drains, the current status is the answer. `is_active` knows the jobs that have not ended; polls
    of others pass as they came, and so do all where the cache has no part in the answer.
    """

    def __init__(
        self,
        policy: CachePolicy,
        *,
        cache: Known,
        waiters: Waiters,
        is_active: Callable[[str], bool],
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._cache = cache
        self._waiters = waiters
        self._is_active = is_active
        self._now = now
        self._count_of = {result: metrics.waits_total.labels(result).inc for result in _RESULTS}
        self.apply(policy)

    def apply(self, policy: CachePolicy) -> None:
        """Go by these bounds from now on; who waits already goes on waiting."""
        watched = policy.watched
        self._max_seconds = watched.max_wait
        self._waiters.max_waiters = watched.max_waiters
        self._waiters.max_per_key = watched.max_waiters_per_key

    def __call__(self, request: Request, call_next: Handler) -> Coroutine[Any, Any, Response]:
        """The answer, perhaps later."""
        if _PREFER not in request.headers or request.match.name != STATUS:
            return call_next(request)
        return self._answer(request, call_next)

    def step(self, request: Request, response: Response) -> Step | None:  # noqa: ARG002
        """Nothing is done again, unless it would have been to wait."""
        if WAITED in request.fields or _PREFER in request.headers:
            return None
        return NOTHING

    def explain(self, request: Request) -> str:
        """Whether it would wait, for all that is known here."""
        said = wait_seconds(request.headers.getall(_PREFER, ()))
        if said is None or request.match.name != STATUS or request.method != "GET":
            return "does not wait: no poll that asks for it"
        if not self._max_seconds or not self._cache.keeps(request):
            return "does not wait: the policy, or the request's own fields, forbid it"
        seconds = min(said, self._max_seconds)
        return f"waits up to {seconds:g} s for the job's next change, while it has not ended"

    async def _answer(self, request: Request, call_next: Handler) -> Response:
        fields = request.headers.getall(_PREFER)
        said = wait_seconds(fields)
        job_id = request.match.params["job_id"]
        if said is None or not self._may_wait(request, job_id):
            return await call_next(request)
        _replace(request.headers, without_wait(fields))
        request.fields[WAITED] = 0.0
        seconds = min(said, self._max_seconds)
        who = request.principal.key_id if request.principal else request.client
        with self._waiters.joined(job_id, who) as waiter:
            if waiter is None:
                self._count_of["full"]()
                return await call_next(request)
            response = await self._waited(waiter, request, call_next, seconds)
        response.headers[_APPLIED] = f"wait={int(seconds)}"
        return response

    def _may_wait(self, request: Request, job_id: str) -> bool:
        if request.method != "GET" or not self._max_seconds:
            return False
        return self._is_active(job_id) and self._cache.keeps(request)

    async def _waited(
        self, waiter: Waiter, request: Request, call_next: Handler, seconds: float
    ) -> Response:
        """The answer at the next change or at the end, whichever comes first."""
        try:
            # Asked as one that waits already: what changes meanwhile is not missed.
            if _IF_NONE_MATCH in request.headers:
                response = await call_next(request)
                if response.status != 304:
                    return self._counted("at_once", response)
            while await self._next(waiter, request, seconds):
                response = await self._told(waiter, request, call_next)
                if response.status != 304:
                    return self._counted("changed", response)
            result = "drained" if self._waiters.is_over else "unchanged"
            return self._counted(result, await call_next(request))
        except asyncio.CancelledError:
            self._count_of["left"]()
            raise

    async def _next(self, waiter: Waiter, request: Request, seconds: float) -> bool:
        """Wait for news; False when there will be none, or not within `seconds` in all."""
        if not self._is_active(waiter.job_id) and not waiter.is_woken:
            return False
        clock = asyncio.get_running_loop().time  # not the wall clock: that may be set meanwhile
        waited: float = request.fields[WAITED]
        began = clock()
        try:
            is_news = await waiter.wait(seconds - waited)
        finally:
            request.fields[WAITED] = round(waited + clock() - began, 6)
        return is_news and not self._waiters.is_over

    async def _told(self, waiter: Waiter, request: Request, call_next: Handler) -> Response:
        """What all who wait are given, if this request is one of those; else its own answer."""
        told = waiter.answer
        if told is None or not self._cache.is_common(request):
            return await call_next(request)
        own = Response(told.status, CIMultiDict(told.headers), told.body, told.reason)
        return conditioned(request, own, self._now())

    def _counted(self, result: str, response: Response) -> Response:
        self._count_of[result]()
        return response


def _replace(headers: CIMultiDict[str], preferences: Sequence[str]) -> None:
    """Leave what the gateway does not see to itself."""
    headers.popall(_PREFER)
    if preferences:
        headers[_PREFER] = ", ".join(preferences)
