"""Job statuses from memory: fresh while the job stands still, ended by the job's own next event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from multidict import CIMultiDict

from gateway.core.contract import CANCEL, STATUS
from gateway.core.error import GatewayError, StoreUnavailable
from gateway.core.freshness import StoredResponse, directives
from gateway.core.header import append_member
from gateway.core.job import JobChange, State
from gateway.core.message import Handler, Request, Response
from gateway.policy.cache_rule import CacheRule, accepts_age, bypasses, job_tag, tags_of
from gateway.policy.flight import Flight, Flights, Landed, Outdated
from gateway.settings.policy import CachePolicy
from gateway.store.base import ResponseStore
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

_FIELD = "Cache-Status"
_GONE_STATUS = frozenset({404, 410})


class ResponseCache:
    """Answers polls of job statuses (RFC 9111); each answer says how in `Cache-Status` (RFC 9211).

    Equal requests under way share one upstream request; what fails is not shared. When the upstream
    takes longer than `slow_upstream`, a stale answer is served, saying so, while the request goes
    on. An answer asked for before a job's event is not fresh after it, and not kept after its last.
    """

    def __init__(
        self,
        policy: CachePolicy,
        store: ResponseStore,
        state_of: Callable[[bytes], State | None],
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._enabled = policy.enabled
        self._slow_seconds = policy.slow_upstream
        self._rule = CacheRule(policy, state_of)
        self._store = store
        self._metrics = metrics
        self._now = now
        self._flights = Flights()
        self._log = get_logger("cache")

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """The stored status, or the upstream's."""
        name = request.match.name
        if not self._enabled or name not in (STATUS, CANCEL):
            return await call_next(request)
        if name == CANCEL:
            return await self._cancel(request, call_next)
        if request.method != "GET" or bypasses(request):
            self._count(request, "bypass")
            why = "bypass" if request.method == "GET" else "method"
            return await _passed(call_next(request), why)
        return await self._answer(request, call_next)

    async def changed(self, change: JobChange) -> int:
        """Hear of a job's event; how many stored answers it made stale, or at its end removed."""
        return await self.purge(job_tag(change.job.id), terminal=change.job.state.terminal)

    async def purge(self, tag: str, *, terminal: bool = True) -> int:
        """Forget what has this tag, stored or under way; unless `terminal`, keep it as stale."""
        how = Outdated.GONE if terminal else Outdated.STALE
        self._flights.outdate(tag, how)
        return await self._forget(tag, how)

    async def close(self) -> None:
        """Wait for requests that went on without their client."""
        await self._flights.close()

    async def _answer(self, request: Request, call_next: Handler) -> Response:
        key = self._rule.key(request)
        if "no-cache" in directives(request.headers):
            return await self._ask(request, call_next, key, "request", None)
        variants = await self._lookup(key)
        found = next((each for each in variants if each.answers(request.headers)), None)
        now = self._now()
        if found is None:
            why = "vary-miss" if variants else "uri-miss"
        elif not found.is_fresh(now):
            why = "stale"
        elif not accepts_age(request, found.age_seconds(now)):
            return await self._ask(request, call_next, key, "request", None)
        else:
            self._count(request, "hit")
            return _served(found, now, f"hit; ttl={int(found.fresh_until - now)}")
        return await self._join(request, call_next, key, why, found)

    async def _join(
        self,
        request: Request,
        call_next: Handler,
        key: str,
        why: str,
        found: StoredResponse | None,
    ) -> Response:
        """Wait for an equal request under way; ask on one's own if its answer is no help."""
        flight = self._flights.joinable(key)
        if flight is None:
            return await self._ask(request, call_next, key, why, found)
        if (stale := await self._wait(flight, found)) is not None:
            return self._serve_stale(request, stale)
        if not flight.task.cancelled() and flight.task.exception() is None:
            shared = flight.task.result().shareable
            if shared is not None and shared.answers(request.headers):
                self._count(request, "coalesced")
                return _served(shared, self._now(), f"fwd={why}; collapsed")
        return await self._ask(request, call_next, key, why, found)

    async def _ask(
        self,
        request: Request,
        call_next: Handler,
        key: str,
        why: str,
        found: StoredResponse | None,
    ) -> Response:
        """Ask the upstream, whatever others ask."""
        fetch = partial(self._fetch, request, call_next)
        flight = self._flights.start(key, tags_of(request), fetch)
        try:
            stale = await self._wait(flight, found)
        except asyncio.CancelledError:
            self._flights.abandon(flight)
            raise
        if stale is not None:
            self._flights.abandon(flight)
            return self._serve_stale(request, stale)
        self._count(request, "miss")
        try:
            landed = flight.task.result()
        except GatewayError as error:
            error.headers[_FIELD] = f"gateway; fwd={why}"
            raise
        kept = "; stored" if landed.stored else ""
        append_member(landed.response.headers, _FIELD, f"gateway; fwd={why}{kept}")
        return landed.response

    async def _wait(self, flight: Flight, found: StoredResponse | None) -> StoredResponse | None:
        """Wait for the answer; if it is slow, the stale one that may be served instead."""
        if found is not None and self._rule.may_serve_stale(found, self._now()):
            await asyncio.wait({flight.task}, timeout=self._slow_seconds)
            if not flight.task.done() and flight.outdated is not Outdated.GONE:
                return found
        await asyncio.wait({flight.task})
        return None

    def _serve_stale(self, request: Request, stale: StoredResponse) -> Response:
        self._count(request, "stale")
        return _served(stale, self._now(), "hit; detail=slow-upstream")

    async def _fetch(self, request: Request, call_next: Handler, flight: Flight) -> Landed:
        asked_at = self._now()
        response = await call_next(request)
        if response.status in _GONE_STATUS:
            for tag in flight.tags:
                await self._forget(tag, Outdated.GONE)
        entry = self._rule.entry(request, response, asked_at, self._now())
        if entry is not None and await self._keep(flight, entry):
            return Landed(response, entry, stored=True)
        return Landed(response, entry)

    async def _keep(self, flight: Flight, entry: StoredResponse) -> bool:
        """Store an answer unless an event outdated it, before or while it is being stored."""
        outdated = flight.outdated
        if outdated is Outdated.GONE:
            return False
        if outdated is Outdated.STALE:
            entry = replace(entry, fresh_until=min(entry.fresh_until, self._now()))
        try:
            await self._store.store(flight.key, entry)
        except StoreUnavailable as error:
            self._store_failed("store", error)
            return False
        if flight.outdated is not outdated:
            for tag in flight.tags:
                await self._forget(tag, flight.outdated)
        return flight.outdated is not Outdated.GONE

    async def _cancel(self, request: Request, call_next: Handler) -> Response:
        """A client that cancels a job sees it in its next poll, before any event says so."""
        response = await call_next(request)
        if 200 <= response.status < 300:
            for tag in tags_of(request):
                await self.purge(tag)
        return response

    async def _lookup(self, key: str) -> Sequence[StoredResponse]:
        try:
            return await self._store.lookup(key)
        except StoreUnavailable as error:
            self._store_failed("lookup", error)
            return ()

    async def _forget(self, tag: str, how: Outdated) -> int:
        try:
            if how is Outdated.GONE:
                return await self._store.purge(tag)
            return await self._store.expire(tag, self._now())
        except StoreUnavailable as error:
            self._store_failed("forget", error)
            return 0

    def _store_failed(self, operation: str, error: StoreUnavailable) -> None:
        self._metrics.store_errors_total.labels("responses").inc()
        self._log.warning("cache_store_failed", operation=operation, error=error.detail)

    def _count(self, request: Request, result: str) -> None:
        request.fields["cache"] = result
        self._metrics.cache_requests_total.labels(result).inc()


async def _passed(answer: Awaitable[Response], why: str) -> Response:
    """An answer that the cache has no part in, or its failure."""
    try:
        response = await answer
    except GatewayError as error:
        error.headers[_FIELD] = f"gateway; fwd={why}"
        raise
    append_member(response.headers, _FIELD, f"gateway; fwd={why}")
    return response


def _served(entry: StoredResponse, now: float, how: str) -> Response:
    headers = CIMultiDict(entry.headers)
    headers["Age"] = str(entry.age_seconds(now))
    headers[_FIELD] = f"gateway; {how}"
    return Response(entry.status, headers, entry.body)
