"""A job's event stream: server-sent events under the content type text/plain."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from examples.analysis_api import answer
from examples.analysis_api.fault import Mode, replacement, reset, spoil
from examples.analysis_api.job import Job, Moment
from examples.analysis_api.state import STATE, State, json_answer

UPDATE_SECONDS = 2.0
HEARTBEAT_COUNT = 10  # looks at the job, after which an unchanged state is sent again


class _Stream:
    """One client's stream: writes events, and knows when nobody reads any more."""

    def __init__(self, request: web.Request, state: State, mode: Mode | None) -> None:
        self._request = request
        self._state = state
        self._mode = mode
        self._response = web.StreamResponse(
            headers={"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-cache"}
        )

    async def open(self) -> web.StreamResponse:
        await self._response.prepare(self._request)
        return self._response

    async def send(self, body: dict[str, Any]) -> None:
        """One event; its name is the body's `event`. Spaced JSON, unlike the other answers."""
        data = spoil(self._mode, json.dumps(body))
        await self._response.write(f"event: {body['event']}\ndata: {data}\n\n".encode())

    async def pause(self) -> bool:
        """Wait until the next update is due; False if the stream has to end instead."""
        try:
            async with asyncio.timeout(UPDATE_SECONDS / self._state.config.speed):
                await self._state.closing.wait()
        except TimeoutError:
            transport = self._request.transport
            return transport is not None and not transport.is_closing()
        return False


async def stream(request: web.Request) -> web.StreamResponse:
    """GET .../stream: updates until the job ends; an unknown job is a 200 with one error event."""
    state = request.app[STATE]
    mode = state.faults.take("stream")
    job_id = request.match_info["job_id"]
    if mode is Mode.STATUS_404:
        body = answer.job_not_found(job_id, state.config.now())
        return json_answer(body, 404)
    if mode is not None and (whole := replacement(mode)):
        return whole
    if mode is Mode.SLOW:
        await state.delay()
    client = _Stream(request, state, mode)
    response = await client.open()
    state.stats.stream_opened()
    try:
        await _events(client, state, job_id, mode, request)
    except ConnectionResetError:
        pass  # the client left, as clients of streams do
    finally:
        state.stats.stream_closed()
    return response


async def _events(
    client: _Stream, state: State, job_id: str, mode: Mode | None, request: web.Request
) -> None:
    now = state.config.now()
    connection_id = f"conn_{job_id}_{int(now)}"
    job = state.job(job_id)
    if job is None:
        await client.send(_error("Job not found", job_id, connection_id, now))
        return
    await client.send(
        {
            "event": "connected",
            "message": f"Connected to job {job_id} status stream",
            "job_id": job_id,
            "connection_id": connection_id,
            "timestamp": answer.timestamp(now),
        }
    )
    if mode is Mode.HANG:
        await state.closing.wait()
    elif mode is Mode.RESET:
        reset(request)
    else:
        await _updates(client, state, job, connection_id)


async def _updates(client: _Stream, state: State, job: Job, connection_id: str) -> None:
    sent: Moment | None = None
    count = 0  # of looks at the job, also of those that found nothing new
    while True:
        now = state.config.now()
        shown = job.at(now)
        if state.job(job.job_id) is None:
            await client.send(_error("Job no longer exists", job.job_id, connection_id, now))
            return
        if shown != sent or count % HEARTBEAT_COUNT == 0:
            await client.send(answer.stream_update(job, shown, now, connection_id, count))
            sent = shown
        if shown.finished:
            await client.send(_ended(job, shown, now, connection_id, count))
            return
        count += 1
        if not await client.pause():
            return


def _ended(job: Job, shown: Moment, now: float, connection_id: str, count: int) -> dict[str, Any]:
    return {
        "event": "stream_ended",
        "message": f"Stream ended - job {shown.stage.name.lower()}",
        "job_id": job.job_id,
        "final_status": shown.stage.name,
        "connection_id": connection_id,
        "timestamp": answer.timestamp(now),
        "total_updates": count,
    }


def _error(message: str, job_id: str, connection_id: str, now: float) -> dict[str, Any]:
    return {
        "event": "error",
        "status": "error",
        "message": message,
        "job_id": job_id,
        "connection_id": connection_id,
        "timestamp": answer.timestamp(now),
    }
