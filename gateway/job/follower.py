"""Follows the upstream's stream of a job, and tells it on to whoever reads it here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from gateway.core.error import UpstreamError, UpstreamTimeout
from gateway.core.job import Job, Observation
from gateway.core.sse import EventParser, ServerEvent
from gateway.job.broadcast import Broadcasts, Following
from gateway.job.inquiry import Inquiry
from gateway.job.observer import Observer
from gateway.telemetry.log import get_logger
from gateway.upstream.client import Exchange

_FAREWELL_SECONDS = 5.0  # for what a stream says after the job's end

Seen = tuple[ServerEvent, Observation | None]  # an event, and what it shows of the job


class Follower:
    """Follows streams; a job whose stream is silent for `patience_seconds` is polled beside it."""

    def __init__(
        self,
        inquiry: Inquiry,
        observer: Observer,
        broadcasts: Broadcasts,
        *,
        patience_seconds: float,
    ) -> None:
        self._inquiry = inquiry
        self._observer = observer
        self._broadcasts = broadcasts
        self._patience_seconds = patience_seconds
        self._log = get_logger("watcher")

    async def follow(self, job: Job) -> bool:
        """Follow the job's stream until it ends; False when it said nothing usable."""
        useful = False
        try:
            async with await self._observer.stream(job) as exchange:
                if exchange.status != 200:
                    return False
                kind = exchange.headers.get("Content-Type")
                with self._broadcasts.follow(job.id, kind) as following:
                    async with aclosing(self._events(exchange, job.id)) as events:
                        useful = await self._tell(events, job.id, following)
        except UpstreamError as error:
            self._log.info("stream_broken", job_id=job.id, reason=error.reason)
            # One that broke may say more when it is taken up again; one that is dumb will not.
            return useful or not isinstance(error, UpstreamTimeout)
        return useful

    async def _tell(
        self, events: AsyncGenerator[Seen, None], job_id: str, following: Following
    ) -> bool:
        """Record what the events show, and tell them on; False when that was nothing."""
        useful = False
        async for event, shown in events:
            job = None if shown is None else await self._inquiry.take(shown)
            await following.tell(event, shown, job)
            if shown is not None:
                useful = True
                if await self._inquiry.alive(job_id) is None:
                    await _hear_out(events, following)
                    return True
        following.is_whole = True
        return useful

    async def _events(self, exchange: Exchange, job_id: str) -> AsyncGenerator[Seen, None]:
        """What the stream says; while that shows nothing of the job it is polled beside it.

        A stream may also be silent by heartbeats. Ends with the stream, or with the job.
        """
        clock, patience = asyncio.get_running_loop().time, self._patience_seconds
        async with aclosing(self._read(exchange, job_id)) as read:
            coming: asyncio.Task[Seen] | None = None
            poll_at = clock() + patience
            try:
                while True:
                    coming = coming or asyncio.ensure_future(anext(read))
                    done, _ = await asyncio.wait({coming}, timeout=max(0.0, poll_at - clock()))
                    if done:
                        finished, coming = coming, None
                        try:
                            seen = finished.result()
                        except StopAsyncIteration:
                            return
                        if seen[1] is not None:
                            poll_at = clock() + patience
                        yield seen
                    else:
                        await self._inquiry.poll(job_id)
                        if await self._inquiry.alive(job_id) is None:
                            return
                        poll_at = clock() + patience
            finally:
                if coming is not None:
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)

    async def _read(self, exchange: Exchange, job_id: str) -> AsyncGenerator[Seen, None]:
        parser = EventParser()
        async for chunk in exchange.chunks():
            for event in parser.feed(chunk):
                yield event, self._observer.event(event, job_id, "stream")


async def _hear_out(events: AsyncGenerator[Seen, None], following: Following) -> None:
    """What a stream says after the job's end, for as long as somebody reads."""
    if not following.has_readers:
        return
    with suppress(TimeoutError, UpstreamError):
        async with asyncio.timeout(_FAREWELL_SECONDS):
            async for event, shown in events:
                await following.tell(event, shown, None)
