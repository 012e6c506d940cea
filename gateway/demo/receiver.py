"""A webhook receiver that verifies what it is sent, as a customer's would."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from gateway.core.signature import InvalidSignature, secret_key, verify


@dataclass(frozen=True, slots=True)
class Received:
    """One delivery as it came in; `answer` is the status it was given."""

    endpoint: str
    event: str
    job_id: str
    sequence: int
    attempt: int
    progress: float | None
    stage: str | None
    verified: bool
    answer: int


class Receiver:
    """Two endpoints: `/healthy` takes everything, `/flaky` fails the first `failures` requests."""

    def __init__(self, failures: int, heard: Callable[[Received], None]) -> None:
        self._left = failures
        self._heard = heard
        self._secrets: dict[str, bytes] = {}
        self._runner: web.AppRunner | None = None
        self.received: list[Received] = []
        self.url = ""

    async def start(self) -> None:
        """Listen on a free port of the loopback."""
        app = web.Application()
        app.router.add_post("/{endpoint}", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close the listener."""
        if self._runner is not None:
            await self._runner.cleanup()

    def expect(self, endpoint: str, secret: str) -> None:
        """Verify what comes to `endpoint` with the secret its registration returned."""
        self._secrets[endpoint] = secret_key(secret)

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        endpoint = request.match_info["endpoint"]
        verified = self._verified(endpoint, request, body)
        answer = 200 if verified else 401
        if endpoint == "flaky" and self._left > 0:
            self._left -= 1
            answer = 503
        event: dict[str, Any] = orjson.loads(body)
        data = event["data"]
        received = Received(
            endpoint=endpoint,
            event=event["type"],
            job_id=data["job_id"],
            sequence=event["sequence"],
            attempt=int(request.headers["x-webhook-attempt"]),
            progress=data["progress"],
            stage=data["stage"],
            verified=verified,
            answer=answer,
        )
        self.received.append(received)
        self._heard(received)
        return web.Response(status=answer)

    def _verified(self, endpoint: str, request: web.Request, body: bytes) -> bool:
        key = self._secrets.get(endpoint)
        if key is None:
            return False
        try:
            verify(
                [key],
                request.headers.get("webhook-id", ""),
                request.headers.get("webhook-timestamp", ""),
                request.headers.get("webhook-signature", ""),
                body,
                now=time.time(),
            )
        except InvalidSignature:
            return False
        return True
