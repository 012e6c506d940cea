"""A browser streams a job with a ticket instead of a key, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest_asyncio

from gateway.core.ticket import PREFIX
from tests.support.system import eventually
from tests.support.tale import JOB_ID, KEY, OTHER_KEY, STREAM, Tale, progress, telling

TICKET = f"/api/v1/jobs/{JOB_ID}/ticket"
PAGE = "https://app.example.com"
STATUS = STREAM.replace("/stream", "/status")


@dataclass
class Client:
    """A page and its server, both clients of the gateway."""

    tale: Tale
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, key: str | None = None) -> tuple[int, Any]:
        headers = {} if key is None else {"X-API-Key": key}
        async with self.session.request(method, path, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def ticket(self) -> Any:
        status, answer = await self.ask("POST", TICKET, KEY)
        assert status == 201
        return answer

    async def first_event(self, url: str, headers: Mapping[str, str] = {}) -> bytes:
        """What a stream says first that shows the job."""
        async with self.session.get(url, headers=headers) as answer:
            assert answer.status == 200
            async with asyncio.timeout(10):
                return await answer.content.readuntil(b'"percentage": 10')

    @property
    def forwarded(self) -> list[str]:
        return [request.raw_path for request in self.tale.requests]


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    policies = {"cors": {"origins": [PAGE], "credentials": True}}
    async with (
        telling(tmp_path, policies=policies) as (tale, _, port, _),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        client = Client(tale, session)
        async with session.post(
            "/api/v1/analysis", json={"url": "x"}, headers={"X-API-Key": KEY}
        ) as answer:
            assert answer.status == 200
        await tale.followed()
        tale.tell(progress(10))
        yield client


async def test_a_page_streams_a_job_with_a_ticket(client: Client) -> None:
    url = (await client.ticket())["stream_url"]
    headers = {"Origin": PAGE, "Accept": "text/event-stream", "Cookie": "session=1"}
    assert b"event: progress" in await client.first_event(url, headers)
    assert b"event: progress" in await client.first_event(url + "&last_event_id=1")
    assert client.tale.opened == 1
    assert not [path for path in client.forwarded if PREFIX in path]


async def test_a_page_reads_a_jobs_events_with_a_ticket(client: Client) -> None:
    url = (await client.ticket())["events_url"]
    status, answer = await client.ask("GET", f"{url}&after=0")
    assert (status, answer["events"][0]["type"]) == (200, "job.started")


async def test_without_ticket_or_key_a_stream_is_refused(client: Client) -> None:
    status, _ = await client.ask("GET", STREAM)
    assert status == 401


async def test_a_ticket_opens_no_other_route_nor_job(client: Client) -> None:
    ticket = (await client.ticket())["ticket"]
    for method, path, status in [
        ("GET", STATUS, 403),
        ("POST", TICKET, 403),
        ("DELETE", f"/api/v1/queue/jobs/{JOB_ID}", 403),
        ("GET", "/api/v1/analysis/another/stream", 401),
        ("GET", "/api/v1/jobs/another/events", 401),
    ]:
        before = len(client.forwarded)
        answered, problem = await client.ask(method, f"{path}?ticket={ticket}")
        assert (answered, problem["status"]) == (status, status)
        assert ticket not in str(problem)
        assert not [each for each in client.forwarded[before:] if "another" in each]


async def test_one_that_was_tampered_with_is_refused(client: Client) -> None:
    url = (await client.ticket())["stream_url"]
    status, problem = await client.ask("GET", url[:-1] + ("A" if url[-1] != "A" else "E"))
    assert (status, problem["title"]) == (401, "Authentication required")


async def test_another_owner_gets_no_ticket(client: Client) -> None:
    status, _ = await client.ask("POST", TICKET, OTHER_KEY)
    assert status == 404


async def test_an_expired_ticket_is_refused(tmp_path: Path) -> None:
    async with (
        telling(tmp_path, tickets={"lifetime": "1ms"}) as (_, _, port, _),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        key = {"X-API-Key": KEY}
        async with session.post("/api/v1/analysis", json={"url": "x"}, headers=key) as answer:
            assert answer.status == 200
        async with session.post(TICKET, headers=key) as answer:
            url = (await answer.json())["stream_url"]

        async def is_refused() -> bool:
            async with session.get(url) as answer:
                return answer.status == 401 and "WWW-Authenticate" in answer.headers

        await eventually("the ticket has expired", is_refused, 5.0)
