"""Answers from memory, after RFC 9111; a job's own event ends what is stored of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import assert_never

from gateway.core.cache_control import NOTHING_SAID, request_control
from gateway.core.contract import CANCEL, STATUS
from gateway.core.error import GatewayError, NotCached
from gateway.core.freshness import StoredResponse
from gateway.core.header import append_member
from gateway.core.invalidation import invalidated_targets
from gateway.core.job import JobChange, State
from gateway.core.message import Handler, Request, Response
from gateway.core.reuse import Hit, Miss, NothingStored, Stale, Validate, verdict
from gateway.core.route import Match
from gateway.core.validator import CONDITIONAL_FIELDS
from gateway.policy.cache_answer import CACHE_STATUS, conditioned, hit_status, served
from gateway.policy.cache_fetch import CacheFetch, close
from gateway.policy.cache_rule import CacheRule, history_tag, job_tag, tag_of
from gateway.policy.cache_step import HitAgain, MissAgain, PassAgain
from gateway.policy.cache_store import Shelf
from gateway.policy.flight import Fetch, Flight, Flights, Landed, Outdated
from gateway.policy.step import NOTHING, Step
from gateway.settings.contract import HISTORY
from gateway.settings.policy import CachePolicy
from gateway.store.response import ResponseStore
from gateway.telemetry.metric import Metrics

_RESULTS = ("hit", "stale", "revalidated", "coalesced", "miss", "bypass")
_SHADOW_RESULTS = ("shadow-hit", "shadow-miss")
_READS = frozenset({"GET", "HEAD"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 section 9.2.1
_SAME_SECONDS = 0.001  # times are summed up and taken apart again: less is the same moment
_UNKEPT = "gateway; fwd=uri-miss"  # `Cache-Status` of a miss that nothing was kept of
_NOT_STORED = "Nothing stored answers this request, and only-if-cached forbids to ask the upstream."


@dataclass(slots=True)
class _Question:
    """A request that nothing stored answers as it is; `why` as RFC 9211 section 2.2 has it.

    `is_second`: what the upstream answered first was outdated before it came.
    """

    request: Request
    call_next: Handler
    tag: str
    key: str
    why: str
    found: StoredResponse | None
    is_second: bool = False


def _question(
    request: Request,
    call_next: Handler,
    tag: str,
    key: str,
    decided: Stale | Validate | Miss | NothingStored,
) -> _Question:
    """What to ask the upstream. Raises NotCached for a client that wants nothing from there."""
    match decided:
        case Miss(why):
            return _Question(request, call_next, tag, key, why, None)
        case Validate(entry, why):
            return _Question(request, call_next, tag, key, why, entry)
        case Stale(entry):
            return _Question(request, call_next, tag, key, "stale", entry)
        case NothingStored():
            raise NotCached(_NOT_STORED, headers={CACHE_STATUS: "gateway"})
        case _:
            assert_never(decided)


class ResponseCache:
    """Answers reads (RFC 9111); each answer says how in `Cache-Status` (RFC 9211).

    Equal requests under way share one upstream request; what fails is not shared. When the upstream
    takes longer than `slow_upstream`, a job's stale status is served, saying so, while the request
    goes on. An answer asked for before a job's event is not fresh after it, and not kept after its
    last. `is_watched` says whether a job's next change will be heard of; `route_of` finds the route
    of another target, for what a change to it invalidates. In shadow it stores, decides and counts,
    and the upstream answers every read.
    """

    def __init__(
        self,
        policy: CachePolicy,
        *,
        store: ResponseStore,
        state_of: Callable[[bytes], State | None],
        is_watched: Callable[[str], bool],
        route_of: Callable[[str, str], Match],
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._shelf = Shelf(store, metrics)
        self._state_of = state_of
        self._is_watched = is_watched
        self._route_of = route_of
        self._now = now
        self._flights = Flights()
        self._count_of = {
            result: metrics.tally(metrics.cache_requests_total, result).inc
            for result in (*_RESULTS, *_SHADOW_RESULTS)
        }
        self.apply(policy)

    def apply(self, policy: CachePolicy) -> None:
        """Go by these rules from now on; what is stored stays, on the terms it was stored with."""
        self._enabled = policy.enabled
        self._in_shadow = policy.mode == "shadow"
        self._http = policy.http.enabled
        self._learns = self._enabled and not self._in_shadow and policy.watched.max_age > 0
        self._slow_seconds = policy.slow_upstream
        self._rule = CacheRule(policy, self._state_of, self._is_watched)
        self._fetch = CacheFetch(
            self._rule, self._shelf, self._flights, policy.max_entry, self._now
        )

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """The stored answer, or the upstream's."""
        if not self._enabled or _is_own(request):
            return await call_next(request)
        if request.method not in _READS:
            return await self._change(request, call_next)
        if not self._rule.covers(request) or self._rule.bypasses(request):
            self._count(request, "bypass")
            return await _marked(call_next(request), "bypass")
        return await self._answer(request, call_next)

    async def _answer(
        self, request: Request, call_next: Handler, *, is_second: bool = False
    ) -> Response:
        tag, key = self._rule.tag(request), self._rule.key(request)
        variants = self._shelf.peek(tag, key)
        if variants is None:
            variants = await self._shelf.lookup(tag, key)
        now = self._now()
        decided = verdict(request.headers, variants, now)
        if self._in_shadow:
            self._count(request, "shadow-hit" if isinstance(decided, Hit) else "shadow-miss")
            return await self._ask(_Question(request, call_next, tag, key, "bypass", None))
        if isinstance(decided, Hit):
            self._count(request, "hit")
            return served(request, decided.entry, now, hit_status(decided.entry, now))
        question = _question(request, call_next, tag, key, decided)
        question.is_second = is_second
        under_way = self._flights.joinable(key)
        if isinstance(decided, Stale):
            if under_way is None:
                self._flights.start(tag, key, self._fetching(question))
            return self._serve_stale(request, decided.entry, "stale-while-revalidate")
        # Who asks anew is not given what was asked for before.
        if under_way is not None and question.why != "request":
            return await self._join(question)
        return await self._ask(question)

    def step(self, request: Request, response: Response) -> Step | None:
        """What was found is found again, or nothing is, until something changes."""
        if not self._enabled or _is_own(request):
            return NOTHING
        result = request.fields.get("cache")
        if result == "bypass" and request.method in _READS:
            return PassAgain("bypass", self._count_of["bypass"])
        if request_control(request.headers) is not NOTHING_SAID:
            return None
        if result == "miss" and request.match.name != STATUS and not request.match.params:
            return self._miss_step(request, response)
        return self._hit_step(request) if result == "hit" else None

    def _miss_step(self, request: Request, response: Response) -> Step | None:
        """A miss is one again while nothing is stored, and what came could not be."""
        if not response.headers.get(CACHE_STATUS, "").endswith(_UNKEPT):
            return None
        tag, key = self._rule.tag(request), self._rule.key(request)
        may_be_kept = partial(self._may_be_kept, request)
        return MissAgain(self._count_of["miss"], partial(self._shelf.peek, tag, key), may_be_kept)

    def _may_be_kept(self, request: Request, response: Response, asked_at: float) -> bool:
        return self._rule.terms(request, response, asked_at, self._now()) is not None

    def _hit_step(self, request: Request) -> Step | None:
        """A hit is one again while the same is stored, and fresh."""
        held = self._shelf.held(self._rule.tag(request), self._rule.key(request))
        if held is None:
            return None
        decided = verdict(request.headers, held.variants, self._now())
        if not isinstance(decided, Hit):
            return None
        return HitAgain(held, decided.entry, self._count_of["hit"])

    def explain(self, request: Request) -> str:
        """Whether it would look for a stored answer, and for whose; nothing is looked up."""
        if not self._enabled:
            return "switched off"
        if request.match.route.gateway:
            return "not asked: the gateway answers this itself"
        if request.method not in _READS:
            return "nothing is stored: not a read"
        if not self._rule.covers(request) or self._rule.bypasses(request):
            return "nothing is stored: the route or the request's own fields forbid it"
        key = self._rule.key(request)
        shadow = " (shadow: the upstream answers)" if self._in_shadow else ""
        return f"a fresh stored answer is given; its key ends in {key.splitlines()[-1]!r}{shadow}"

    async def coming(self, change: JobChange) -> int:
        """Hear of a job's change before anybody can read of it; how many stored answers end.

        They are stale from now on, or at the job's end gone: what was seen shows already in what
        the upstream is asked from now on, and nobody who knows of it may be told what was before.
        """
        if not change.events:
            return 0
        return await self.purge(job_tag(change.job.id), terminal=change.job.state.terminal)

    async def heard(self, request: Request, change: JobChange) -> None:
        """Hear of a change that another replica has recorded; `request` is for the job's status.

        That replica ended what was stored, here too; if it could not, what is older ends now.
        """
        tag, job = job_tag(change.job.id), change.job
        self.outdate(tag, job.state.terminal)
        stored = await self._shelf.lookup(tag, self._rule.key(request))
        if any(each.terms.born_at < job.observed_at - _SAME_SECONDS for each in stored):
            await self.coming(change)

    def keeps(self, request: Request) -> bool:
        """True when a read's answer may be one that others were given, or will be."""
        if not self._enabled or self._in_shadow or _is_own(request):
            return False
        return self._rule.covers(request) and not self._rule.bypasses(request)

    def is_common(self, request: Request) -> bool:
        """True for a job's status that all who ask for it share."""
        return self._rule.is_common(request)

    async def changed(self, change: JobChange) -> None:
        """Hear of a recorded change: whatever it is, its owner's pages are not as they were."""
        await self.purge(history_tag(change.job.owner))

    async def learn(self, request: Request, response: Response, asked_at: float) -> bool:
        """Keep a status that the gateway asked for itself, `asked_at`, as if `request` had.

        It is newer than whatever was asked for before, stored or under way. False where it may not
        be kept.
        """
        if not self._learns:
            return False
        flight = Flight(self._rule.tag(request), self._rule.key(request))
        self._flights.outdate(flight.tag, Outdated.GONE)
        return (await self._fetch.learn(request, response, asked_at, flight)).stored

    async def purge(self, tag: str, *, terminal: bool = True) -> int:
        """Forget what has this tag, stored or under way; unless `terminal`, keep it as stale."""
        how = self.outdate(tag, terminal)
        return await self._shelf.forget(tag, how, self._now())

    def outdate(self, tag: str, terminal: bool) -> Outdated:  # noqa: FBT001 - as listeners are called
        """Hear of a purge whose stored answers another replica has seen to."""
        how = Outdated.GONE if terminal else Outdated.STALE
        self._flights.outdate(tag, how)
        return how

    async def close(self) -> None:
        """Wait for requests that went on without their client."""
        await self._flights.close()

    async def _change(self, request: Request, call_next: Handler) -> Response:
        """Pass on what is no read; what it changes is not served any more (section 4.4).

        A client that cancels a job sees it in its next poll, before any event says so.
        """
        response = await _marked(call_next(request), "method")
        if request.method in _SAFE:
            return response
        targets = invalidated_targets(request, response)
        tags = {
            tag_of(self._route_of("GET", target.partition("?")[0]), target): None
            for target in targets
            if self._http
        }
        if targets and request.match.name == CANCEL:
            tags[tag_of(request.match, request.target)] = None
        for tag in tags:
            await self.purge(tag)
        return response

    async def _join(self, question: _Question) -> Response:
        """Wait for an equal request under way; ask on one's own if its answer is no help."""
        request = question.request
        while (flight := self._flights.joinable(question.key)) is not None:
            if (stale := await self._wait(flight, question)) is not None:
                return self._serve_stale(request, stale, "slow-upstream")
            if flight.outdated:
                return await self._answer(request, question.call_next)
            now = self._now()
            if flight.shared is not None:
                shared = verdict(request.headers, (flight.shared,), now)
                if isinstance(shared, Hit):
                    self._count(request, "coalesced")
                    how = f"gateway; fwd={question.why}; collapsed"
                    return served(request, shared.entry, now, how)
            if not flight.left:
                break
        return await self._ask(question)

    async def _ask(self, question: _Question) -> Response:
        """Ask the upstream, whatever others ask."""
        request = question.request
        try:
            if request.match.route.name != STATUS or request.method != "GET":
                flight = Flight(question.tag, question.key)
                fetch = self._fetching(question)
                landed = await self._flights.fly(flight, fetch, joinable=_is_for_all(request))
            else:
                found = await self._ask_apart(question)
                if isinstance(found, StoredResponse):
                    return self._serve_stale(request, found, "slow-upstream")
                landed = await found.result()
                if found.outdated and not (question.is_second or self._in_shadow):
                    await close(landed.answer)
                    return await self._answer(request, question.call_next, is_second=True)
        except GatewayError as error:
            self._count(request, "miss")
            error.headers[CACHE_STATUS] = f"gateway; fwd={question.why}"
            raise
        return self._landed(question, landed)

    async def _ask_apart(self, question: _Question) -> Flight | StoredResponse:
        """Ask for a job's status in a task that outlasts a client which does not wait so long.

        The request when it is over, or the stale status that is served because the upstream is
        slow.
        """
        flight = self._flights.start(question.tag, question.key, self._fetching(question))
        try:
            stale = await self._wait(flight, question)
        except asyncio.CancelledError:
            self._flights.abandon(flight)
            raise
        if stale is not None:
            self._flights.abandon(flight)
            return stale
        return flight

    async def _wait(self, flight: Flight, question: _Question) -> StoredResponse | None:
        """Wait for the answer; if it is slow, the stale one that may be served instead."""
        found = question.found
        if found is not None and self._rule.may_serve_late(question.request, found, self._now()):
            await flight.wait(self._slow_seconds)
            if not flight.over and flight.outdated is not Outdated.GONE:
                return found
        await flight.wait()
        return None

    def _fetching(self, question: _Question) -> Fetch:
        return partial(self._fetch, question.request, question.call_next, question.found)

    def _landed(self, question: _Question, landed: Landed) -> Response:
        """The answer to the client who asked."""
        request, answer, now = question.request, landed.answer, self._now()
        how = f"gateway; fwd={question.why}"
        if landed.fwd_status is not None:
            how += f"; fwd-status={landed.fwd_status}"
        if landed.stored:
            how += "; stored"
        if landed.detail:
            how += f"; detail={landed.detail}"
        if isinstance(answer, StoredResponse):
            self._count(request, "stale" if landed.detail else "revalidated")
            return served(request, answer, now, how)
        self._count(request, "miss")
        append_member(answer.headers, CACHE_STATUS, how)
        if request.method == "GET" and (question.found or request.match.route.name == STATUS):
            # The upstream was not asked with the client's own conditions.
            return conditioned(request, answer, now)
        return answer

    def _serve_stale(self, request: Request, entry: StoredResponse, detail: str) -> Response:
        self._count(request, "stale")
        now = self._now()
        ttl = int(entry.terms.fresh_until - now)
        return served(request, entry, now, f"gateway; hit; ttl={ttl}; detail={detail}")

    def _count(self, request: Request, result: str) -> None:
        if self._in_shadow and result == "miss":
            return  # told as what it would have been
        request.fields["cache"] = result
        self._count_of[result]()


def _is_own(request: Request) -> bool:
    """True for the gateway's own resources, which are no business of the cache but for history."""
    if not request.match.route.gateway:
        return False
    return request.match.name != HISTORY or request.method not in _READS


def _is_for_all(request: Request) -> bool:
    """True when others may have the answer: nothing in the request asks for less than all of it."""
    if request.method != "GET" or "Authorization" in request.headers:
        return False
    for name in CONDITIONAL_FIELDS:  # noqa: SIM110 - on the hot path a generator costs more
        if name in request.headers:
            return False
    return True


async def _marked(answer: Awaitable[Response], why: str) -> Response:
    """An answer that the cache has no part in, or its failure."""
    try:
        response = await answer
    except GatewayError as error:
        error.headers[CACHE_STATUS] = f"gateway; fwd={why}"
        raise
    append_member(response.headers, CACHE_STATUS, f"gateway; fwd={why}")
    return response
