"""A rolling update by the shipped manifests: a new pod beside the old one, which then leaves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import count
from pathlib import Path

import aiohttp

from gateway.web.event_stream import HINT
from tests.support.balancer import balancing
from tests.support.lane import connected, get
from tests.support.pod import Manifest, Pod
from tests.support.system import KEY, eventually

CLIENTS = 8
MANIFEST = Manifest.shipped(scale=0.05)


class Load:
    """Clients that ask without a pause, and what each of them was answered."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/test"
        self._done = asyncio.Event()
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(CLIENTS)]
        self.answers: list[int] = []

    async def more(self, number: int) -> None:
        """Return when so many further answers have come."""
        until = len(self.answers) + number

        async def have_come() -> bool:
            return len(self.answers) >= until

        await eventually("the load goes on", have_come)

    async def end(self) -> None:
        """Raises whatever any client met."""
        self._done.set()
        await asyncio.gather(*self._tasks)

    async def _ask(self) -> None:
        async with aiohttp.ClientSession(headers={"X-API-Key": KEY}) as session:
            for number in count():
                if self._done.is_set():
                    return
                method = ("GET", "POST")[number % 2]
                body = b"x" if method == "POST" else None
                async with session.request(method, self._url, data=body) as response:
                    await response.read()
                    self.answers.append(response.status)


async def test_a_rolling_update_loses_no_request(tmp_path: Path) -> None:
    async with Pod(tmp_path / "old", MANIFEST, speed=0.5) as old:
        new = Pod(tmp_path / "new", MANIFEST)
        job_id = await old.gateway.create()
        port = int(old.gateway.public.rpartition(":")[2])
        try:
            async with connected(port) as wire:
                await wire.send(get(f"/api/v1/analysis/{job_id}/stream", f"X-API-Key: {KEY}"))
                await wire.reader.readuntil(b"\n\n")
                await new.start()  # maxUnavailable is 0: the new pod is ready before the old leaves
                gateways = [old.gateway, new.gateway]
                async with balancing(gateways, MANIFEST.probe_seconds) as public:
                    load = Load(public)
                    await load.more(100)

                    leaving = asyncio.create_task(old.leave())
                    rest = await wire.rest()
                    # The stream ended in order, for the app is still there.
                    assert rest.endswith(b"\r\n0\r\n\r\n")
                    assert HINT in rest
                    await leaving
                    assert not await old.ready()

                    # The sidecar outlives its app, and then has nothing left to wait for.
                    assert await old.app.terminate() == 0
                    assert (await old.gateway.ask_admin("/health/live")).status == 200
                    assert await old.gateway.terminate() == 0

                    await load.more(100)
                    await load.end()
        finally:
            await new.close()

    assert {status for status in load.answers if status >= 500} == set()


async def test_a_draining_gateway_still_answers_whom_a_late_balancer_sends(tmp_path: Path) -> None:
    manifest = replace(MANIFEST, drain_delay_seconds=3.0, drain_timeout_seconds=10.0)
    async with Pod(tmp_path / "pod", manifest) as pod:
        await pod.run_hook()

        assert not await pod.ready()
        answer = await pod.gateway.request("GET", "/api/v1/test")
        assert answer.status < 500
        assert answer.headers["Connection"] == "close"
