"""Asks the upstream for the cache, and keeps what may be kept of its answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from multidict import CIMultiDict

from gateway.core.contract import STATUS
from gateway.core.error import UpstreamError
from gateway.core.freshness import StoredResponse, Terms
from gateway.core.message import BodyStream, Handler, Request, Response
from gateway.core.validator import (
    freshened,
    is_about,
    is_same,
    made_entity_tag,
    unconditional,
    validating_fields,
)
from gateway.policy.cache_rule import CacheRule
from gateway.policy.cache_store import Shelf
from gateway.policy.collect import collected
from gateway.policy.flight import Flight, Flights, Landed, Outdated
from gateway.settings.contract import HISTORY

_GONE = frozenset({404, 410})
_FAILED = frozenset({500, 502, 503, 504})  # RFC 5861 section 4
_DIGEST_BYTES = 12


class CacheFetch:
    """One upstream request at a time, for one `Flight` each."""

    def __init__(
        self,
        rule: CacheRule,
        shelf: Shelf,
        flights: Flights,
        max_entry: int,
        now: Callable[[], float],
    ) -> None:
        self._rule = rule
        self._shelf = shelf
        self._flights = flights
        self._max_entry = max_entry
        self._now = now

    async def __call__(
        self, request: Request, call_next: Handler, found: StoredResponse | None, flight: Flight
    ) -> Landed:
        """What came of asking; `found` is what is stored but may not be served as it is.

        Raises what `call_next` raises, unless `found` may stand in for an upstream that failed.
        """
        asked_at = self._now()
        try:
            response = await call_next(_forwarded(request, found))
        except UpstreamError:
            if not self._may_stand_in(request, found) or found is None:
                raise
            return Landed(found, detail="stale-if-error")
        if found is not None:
            if response.status == 304 and _asks_for_itself(request, found):
                return await self._confirmed(request, call_next, found, response, asked_at, flight)
            if response.status in _FAILED and self._may_stand_in(request, found):
                await close(response)
                return Landed(found, fwd_status=response.status, detail="stale-if-error")
        return await self._arrived(request, response, found, asked_at, flight)

    async def learn(
        self, request: Request, response: Response, asked_at: float, flight: Flight
    ) -> Landed:
        """Take an answer that came by another way."""
        return await self._arrived(request, response, None, asked_at, flight)

    async def _arrived(
        self,
        request: Request,
        response: Response,
        found: StoredResponse | None,
        asked_at: float,
        flight: Flight,
    ) -> Landed:
        if response.status in _GONE and request.match.params:
            await self._shelf.forget(flight.tag, Outdated.GONE, self._now())
        if request.method == "HEAD":
            return await self._head(request, response, found, asked_at, flight)
        body = response.body
        terms = self._rule.terms(request, response, asked_at, self._now())
        tagged = request.match.name in (STATUS, HISTORY) and response.status == 200
        if tagged and isinstance(body, bytes):
            # Only now: a tag made here is no validator that a response is worth keeping for.
            digest = hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()
            response.headers.setdefault("ETag", made_entity_tag(digest))
        if terms is None:
            return Landed(response)
        if not isinstance(body, bytes):
            self._collect(request, response, body, terms, flight)
            return Landed(response)
        if len(body) > self._max_entry:
            return Landed(response)
        entry = self._rule.entry(request, response, body, terms)
        return await self._kept(response, entry, flight)

    async def _confirmed(
        self,
        request: Request,
        call_next: Handler,
        found: StoredResponse,
        confirmation: Response,
        asked_at: float,
        flight: Flight,
    ) -> Landed:
        """The stored response with what the 304 says anew (RFC 9111 section 4.3.4)."""
        if not is_about(found.headers, confirmation.headers):
            # It is of another response than the one asked about: only the whole one will do.
            again = replace(request, headers=unconditional(request.headers))
            response = await call_next(again)
            return await self._arrived(request, response, None, asked_at, flight)
        entry = self._updated(request, found, confirmation.headers, asked_at)
        if entry is None:
            return Landed(_whole(found, confirmation.headers), fwd_status=304)
        landed = await self._kept(entry, entry, flight)
        return replace(landed, fwd_status=304)

    async def _head(
        self,
        request: Request,
        response: Response,
        found: StoredResponse | None,
        asked_at: float,
        flight: Flight,
    ) -> Landed:
        """An answer to HEAD renews the stored one it is of, and ends any other (section 4.3.5)."""
        if found is None or response.status != 200:
            return Landed(response)
        if not is_same(found.headers, response.headers, len(found.body)):
            await self._shelf.forget(flight.tag, Outdated.STALE, self._now())
            return Landed(response)
        entry = self._updated(request, found, response.headers, asked_at)
        if entry is None:
            return Landed(response)
        stored = await self._keep(flight, entry)
        return Landed(response, stored=stored)

    def _updated(
        self,
        request: Request,
        found: StoredResponse,
        update: CIMultiDict[str],
        asked_at: float,
    ) -> StoredResponse | None:
        renewed = _whole(found, update)
        for name in ("Age", "Date"):  # of this answer, or none: the stored ones are past
            renewed.headers.popall(name, None)
            if name in update:
                renewed.headers[name] = update[name]
        terms = self._rule.terms(request, renewed, asked_at, self._now())
        if terms is None:
            return None
        return replace(found, headers=freshened(found.headers, update), terms=terms)

    def _collect(
        self, request: Request, response: Response, body: BodyStream, terms: Terms, flight: Flight
    ) -> None:
        """Keep a stream once it has passed; its length, where it is announced, may forbid it."""
        length = response.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > self._max_entry:
            return
        # What policies further out change of the headers is not of the upstream's answer.
        kept = Response(response.status, CIMultiDict(response.headers))

        async def keep(whole: bytes) -> None:
            await self._keep(flight, self._rule.entry(request, kept, whole, terms))

        flight.collecting = True
        release = partial(self._flights.release, flight)
        response.body = collected(body, self._max_entry, keep, release)

    async def _kept(
        self, answer: Response | StoredResponse, entry: StoredResponse, flight: Flight
    ) -> Landed:
        fresh = entry.terms.is_fresh(self._now())
        stored = await self._keep(flight, entry)
        return Landed(answer, entry if fresh else None, stored=stored)

    async def _keep(self, flight: Flight, entry: StoredResponse) -> bool:
        """Store an answer unless an event outdated it, before or while it is being stored."""
        outdated = flight.outdated
        if outdated is Outdated.GONE:
            return False
        if outdated is Outdated.STALE:
            entry = replace(entry, terms=entry.terms.expired(self._now()))
        if not await self._shelf.keep(flight.tag, flight.key, entry):
            return False
        if flight.outdated is not outdated:
            await self._shelf.forget(flight.tag, flight.outdated, self._now())
        return flight.outdated is not Outdated.GONE

    def _may_stand_in(self, request: Request, found: StoredResponse | None) -> bool:
        return found is not None and self._rule.may_stand_in(request, found, self._now())


def _forwarded(request: Request, found: StoredResponse | None) -> Request:
    """The request as the upstream is to see it.

    Of a job's status it is asked for the whole, which all may have. With something stored it is
    asked whether that holds; a HEAD is passed on as it is.
    """
    if request.method == "HEAD" or (found is None and request.match.name != STATUS):
        return request
    headers = unconditional(request.headers)
    if found is not None:
        headers.extend(validating_fields(found.headers))
    return replace(request, headers=headers)


def _asks_for_itself(request: Request, found: StoredResponse) -> bool:
    return request.method == "GET" and bool(validating_fields(found.headers))


def _whole(found: StoredResponse, update: CIMultiDict[str]) -> Response:
    return Response(found.status, freshened(found.headers, update).copy(), found.body)


async def close(answer: Response | StoredResponse) -> None:
    """Read no more of an answer that nobody is given."""
    if not isinstance(answer.body, bytes):
        await answer.body.aclose()
