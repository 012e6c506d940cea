"""The mixed load: owners create jobs, many clients poll and stream them, others ask amiss."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.ledger import Ledger
from benchmarks.owner import KEYS
from benchmarks.soak.client import OK, Client
from tests.support.system import FAILING_VIDEO, VIDEO

ORIGIN = {"Origin": "https://app.example.com"}
RECENT_JOBS = 40  # those that are polled: the ones that run, and some that have ended


@dataclass(frozen=True, slots=True)
class Rates:
    """How many clients of each kind, and how long each pauses on average, in seconds."""

    creators: int = 4
    create_pause: float = 1.5
    pollers: int = 12
    poll_pause: float = 0.1
    followers: int = 6
    strangers: int = 1


@dataclass(frozen=True, slots=True)
class Known:
    """A job that can be asked about; `life` is the upstream's that it belongs to."""

    key: str
    job_id: str
    life: int


@dataclass(frozen=True, slots=True)
class Read:
    """One kind of read: how often in a hundred, and where; `{job}` is a recent job's id."""

    name: str
    share: int
    path: str
    asks_upstream: bool = False
    headers: tuple[tuple[str, str], ...] = ()


READS = (
    Read("status", 60, "/api/v1/analysis/{job}/status", asks_upstream=True),
    Read("status of a page", 8, "/api/v1/analysis/{job}/status", True, tuple(ORIGIN.items())),
    Read("details", 8, "/api/v1/analysis/{job}", asks_upstream=True),
    Read("timeline", 10, "/api/v1/jobs/{job}/events"),
    Read("history", 6, "/api/v1/jobs/history?limit=20"),
    Read("list", 1, "/api/v1/jobs"),
    Read("webhooks", 5, "/api/v1/webhooks"),
    Read("health", 2, "/health"),
)


class Load:
    """`life` counts the upstream's restarts: a job of an earlier one may be a 404 to it."""

    def __init__(self, client: Client, ledger: Ledger, rates: Rates, seed: int) -> None:
        self.life = 0
        self._client = client
        self._ledger = ledger
        self._rates = rates
        self._random = random.Random(seed)
        self._recent: deque[Known] = deque(maxlen=RECENT_JOBS)

    async def run(self, seconds: float) -> None:
        """Apply it for so long; a stream that is open then is read to its end."""
        until = time.monotonic() + seconds
        rates = self._rates
        kinds: tuple[tuple[int, float, Callable[[], Awaitable[None]]], ...] = (
            (rates.creators, rates.create_pause, self._create),
            (rates.pollers, rates.poll_pause, self._poll),
            (rates.followers, rates.create_pause, self._follow),
            (rates.strangers, rates.create_pause, self._ask_amiss),
        )
        async with asyncio.TaskGroup() as group:
            for number, pause, act in kinds:
                for _ in range(number):
                    group.create_task(self._repeat(until, pause, act))

    async def _repeat(self, until: float, pause: float, act: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() < until:
            await act()
            await asyncio.sleep(min(pause * self._random.expovariate(1.0), 5 * pause))

    async def _create(self) -> None:
        """A job of some owner; one in two with an idempotency key, one in ten will fail."""
        key, life = self._random.choice(KEYS), self.life
        headers = {"Idempotency-Key": str(uuid.uuid4())} if self._random.random() < 0.5 else None
        video = FAILING_VIDEO if self._random.random() < 0.1 else VIDEO
        document = await self._client.ask(
            "creation",
            "POST",
            "/api/v1/analysis",
            key=key,
            document={"url": video},
            headers=headers,
        )
        if document is not None:
            self._ledger.add(key, document["job_id"])
            self._recent.append(Known(key, document["job_id"], life))

    async def _poll(self) -> None:
        if not self._recent:
            return
        (read,) = self._random.choices(READS, [each.share for each in READS])
        job = self._random.choice(self._recent)
        is_forgotten = read.asks_upstream and job.life != self.life
        await self._client.ask(
            read.name,
            "GET",
            read.path.format(job=job.job_id),
            key=job.key,
            headers=dict(read.headers),
            wanted={200, 404} if is_forgotten else OK,
        )

    async def _follow(self) -> None:
        """The stream of the newest job, unless the upstream has forgotten it."""
        if self._recent and self._recent[-1].life == self.life:
            await self._client.follow(self._recent[-1].key, self._recent[-1].job_id)

    async def _ask_amiss(self) -> None:
        """What must be refused is: no key, a job nobody made, a webhook to nowhere."""
        key, nobody = self._random.choice(KEYS), uuid.uuid4()
        path = f"/api/v1/analysis/{nobody}/status"
        ask = self._client.ask
        await ask("no key", "GET", path, key=None, wanted={401})
        await ask("unknown job", "GET", path, key=key, wanted={404})
        await ask(
            "bad webhook",
            "POST",
            "/api/v1/webhooks",
            key=key,
            document={"url": "http://169.254.169.254/", "events": ["job.*"]},
            wanted={400, 422},
        )
