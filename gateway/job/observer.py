"""Asks the upstream about jobs and reads its answers as observations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
from multidict import CIMultiDict

from gateway.core.contract import DETAILS, LIST, STATUS, STREAM, Contract, Unreadable, decode
from gateway.core.error import ContentTooLarge, UpstreamError, UpstreamTimeout
from gateway.core.header import strip_hop_by_hop
from gateway.core.job import Job, Observation
from gateway.core.message import Response
from gateway.core.sse import ServerEvent
from gateway.job.gate import Gate
from gateway.upstream.client import Answer, Exchange, UpstreamClient

MAX_ANSWER_BYTES = 4 * 1024 * 1024
_DETAILS_TRIES = 3
_ATTEMPT_SECONDS = 10.0


class Observer:
    """Asks the upstream about jobs and reads its answers."""

    def __init__(
        self,
        client: UpstreamClient,
        contract: Contract,
        refuse: Callable[[str, str, str, str | None], None],
        now: Callable[[], float],
        gate: Gate,
    ) -> None:
        self._client = client
        self._contract = contract
        self._refuse = refuse
        self._now = now
        self._gate = gate

    async def status(self, job: Job) -> Observation | None:
        """What the status route says; None when it says nothing usable. Raises `UpstreamError`."""
        return await self._about(STATUS, job.id, trace(job))

    async def details(self, job_id: str) -> Observation | None:
        """What the details say, tried a few times: they alone carry a completed job's results."""
        for _ in range(_DETAILS_TRIES):
            with suppress(UpstreamError):
                found = await self._about(DETAILS, job_id, {}, urgent=True)
                if found is not None and found.found:
                    return found
        return None

    async def listed(self) -> list[Observation]:
        """Every readable entry of the upstream's list. Raises `UpstreamError`."""
        items, at = await self._items()
        template = self._contract.template(LIST)
        seen = []
        for item in items:
            try:
                seen.append(self._contract.observe(item, at, template=template))
            except Unreadable as error:
                self._refuse("list", error.reason, str(error), None)
        return seen

    async def shown(self) -> tuple[Iterator[tuple[str, int]], float]:
        """The jobs of the upstream's list, each with a print of how it is shown there.

        And how many seconds it took to answer, the wait for the request's turn apart. Raises
        `UpstreamError`.
        """
        items, at = await self._items()
        took = max(0.0, self._now() - at)
        template = self._contract.template(LIST)
        prints = (
            (job_id, hash(orjson.dumps(item)))
            for item in items
            if (job_id := self._contract.id_of(item, template)) is not None
        )
        return prints, took

    async def _items(self) -> tuple[Sequence[Any], float]:
        """The entries of the list, and when it was asked for."""
        path = self._contract.path(LIST, "")
        if path is None:
            return [], self._now()
        answer, at = await self._fetch(path, {})
        if answer.status >= 500:  # it may still be starting: asked again, unlike one without a list
            raise UpstreamError(f"The upstream answered {answer.status} for its list of jobs.")
        try:
            return self._contract.items(_document(answer)), at
        except Unreadable as error:
            self._refuse("list", error.reason, str(error), None)
            return [], at

    async def stream(self, job: Job) -> Exchange:
        """The upstream's stream of a job, its head received. Raises `UpstreamError`."""
        path = self._contract.path(STREAM, job.id) or ""
        headers = {"Accept": "text/event-stream", **trace(job)}
        sent_at = await self._gate.enter()
        try:
            # A stream may then be silent for long, but its head has nothing to wait for.
            async with asyncio.timeout(_ATTEMPT_SECONDS):
                exchange = await self._client.send(
                    "GET", path, headers, streaming=True, essential=True
                )
        except TimeoutError as error:
            late = UpstreamTimeout("The upstream did not begin the stream in time.")
            self._gate.failed(sent_at, late)
            raise late from error
        except UpstreamError as error:
            self._gate.failed(sent_at, error)
            raise
        self._gate.answered(sent_at, exchange.status, exchange.headers.get("Retry-After"))
        return exchange

    def event(self, event: ServerEvent, job_id: str, source: str) -> Observation | None:
        """What a stream's event says; None for those that show no state."""
        if event.name == "error":
            return None
        template = self._contract.template(STREAM)
        try:
            document = decode(event.data)
            return self._contract.observe(document, self._now(), template=template, job_id=job_id)
        except Unreadable as error:
            if error.reason != "no_state":  # greetings and farewells show none
                self._refuse(source, error.reason, str(error), job_id)
            return None

    async def _about(
        self, route: str, job_id: str, headers: Mapping[str, str], *, urgent: bool = False
    ) -> Observation | None:
        path = self._contract.path(route, job_id)
        if path is None:
            return None
        answer, at = await self._fetch(path, headers, urgent=urgent)
        if answer.status == 404:
            return Observation(job_id, at, found=False)
        template = self._contract.template(route)
        try:
            seen = self._contract.observe(_document(answer), at, template=template, job_id=job_id)
        except Unreadable as error:
            self._refuse("poll", error.reason, str(error), job_id)
            return None
        if route != STATUS:
            return seen
        whole = Response(answer.status, strip_hop_by_hop(answer.headers), answer.body)
        return replace(seen, answer=whole)

    async def _fetch(
        self, path: str, headers: Mapping[str, str], *, urgent: bool = False
    ) -> tuple[Answer, float]:
        """The answer, and when it was asked for, in its turn."""
        sent_at = await self._gate.enter(urgent=urgent)
        at = self._now()
        try:
            answer = await self._client.fetch(
                "GET",
                path,
                {"Accept": "application/json", **headers},
                limit=MAX_ANSWER_BYTES,
                seconds=_ATTEMPT_SECONDS,
            )
        except ContentTooLarge as error:
            answer = Answer(413, CIMultiDict(), error.detail.encode())
        except UpstreamError as error:
            self._gate.failed(sent_at, error)
            raise
        self._gate.answered(sent_at, answer.status, answer.headers.get("Retry-After"))
        return answer, at


def _document(answer: Answer) -> Any:
    if answer.status >= 300:
        raise Unreadable("status", f"the upstream answered {answer.status}")
    return decode(answer.body)


def trace(job: Job) -> dict[str, str]:
    """The headers that tie a request about a job to the one that created it."""
    pairs = {
        "X-Request-ID": job.request_id,
        "traceparent": job.traceparent,
        "tracestate": job.tracestate,
    }
    return {name: value for name, value in pairs.items() if value}
