"""A client that counts: every request by what it was for, every error by kind and by whether an
outage explains it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Self

import aiohttp
import orjson

from benchmarks.soak.outage import CUT, Outages
from tests.support.system import GatewayProcess

TIMEOUT_SECONDS = 30.0  # nothing takes as long, an outage or not: a request that does hangs
STREAM_SECONDS = 60.0
MAX_EXAMPLES = 20
OK = frozenset({200})


class Client:
    """Asks one gateway; a request that fails is counted, and then None."""

    def __init__(self, gateway: GatewayProcess, outages: Outages) -> None:
        self.requests: Counter[str] = Counter()
        self.expected: Counter[str] = Counter()
        self.unexpected: Counter[str] = Counter()
        self.examples: list[str] = []  # the first unexpected ones, in full
        self._began = time.monotonic()
        self._gateway = gateway
        self._outages = outages
        self._session = _session()

    async def hang_up(self) -> None:
        """Close every connection."""
        await self._session.close()
        self._session = _session()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(
        self,
        name: str,
        method: str,
        path: str,
        *,
        key: str | None,
        document: Any = None,
        headers: Mapping[str, str] | None = None,
        wanted: Collection[int] = OK,
    ) -> Any:
        """The JSON document of an answer whose status is wanted; of any other, None."""
        self.requests[name] += 1
        since = time.monotonic()
        sent = {**(headers or {}), **({} if key is None else {"X-API-Key": key})}
        try:
            async with self._session.request(
                method, self._gateway.public + path, json=document, headers=sent
            ) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            return self._failed(name, type(error).__name__, since)
        if answer.status not in wanted:
            return self._failed(name, str(answer.status), since, _problem(answer, body))
        return orjson.loads(body) if body else {}

    async def follow(self, key: str, job_id: str) -> None:
        """Read a job's stream to its end; a stream that ends before is cut."""
        self.requests["stream"] += 1
        since = time.monotonic()
        url = f"{self._gateway.public}/api/v1/analysis/{job_id}/stream"
        try:
            async with (
                asyncio.timeout(STREAM_SECONDS),
                self._session.get(
                    url, headers={"X-API-Key": key}, timeout=aiohttp.ClientTimeout(None)
                ) as answer,
            ):
                body = await answer.read()
        except aiohttp.ClientPayloadError:
            self._failed("stream", CUT, since)
        except (aiohttp.ClientError, TimeoutError) as error:
            self._failed("stream", type(error).__name__, since)
        else:
            if answer.status != 200:
                self._failed("stream", str(answer.status), since, _problem(answer, body))
            elif b"event: stream_ended" not in body:
                self._failed("stream", CUT, since)

    def _failed(self, name: str, error: str, since: float, problem: str = "") -> None:
        is_expected = self._outages.explain(error, since)
        counted = self.expected if is_expected else self.unexpected
        kind, _, detail = problem.partition(": ")
        counted[f"{name}: {error}{kind and ' '}{kind}"] += 1
        if not is_expected and len(self.examples) < MAX_EXAMPLES:
            at = time.monotonic() - self._began
            self.examples.append(f"after {at:.0f} s, {name}: {error} {detail}".rstrip())


def _problem(answer: aiohttp.ClientResponse, body: bytes) -> str:
    """`type: detail`, the type's last word; nothing when the answer is not the gateway's own."""
    if answer.content_type != "application/problem+json":
        return ""
    problem = orjson.loads(body)
    return f"{problem['type'].rpartition(':')[2]}: {problem.get('detail', '')}"


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_SECONDS))
