"""What one replica and its Redis spend on a request, a job and a second of a job's life.

A real gateway on a real server, its shipped policies with limits that refuse nobody, over one
shared upstream. Commands are counted by MONITOR in a pass of its own, for it costs the server CPU
itself; time and bytes are of another pass. What a replica spends at rest in that time is taken off.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from typing import Any, Self

import orjson
import psutil
from pydantic import SecretStr

from benchmarks import owner
from benchmarks.ledger import KINDS
from benchmarks.owner import KEYS
from benchmarks.receivers import Receivers
from gateway.core.credential import Key, format_key, hash_key
from gateway.settings.store import Redis
from gateway.store.redis.client import RedisClient
from gateway.store.redis.key import RedisKeyStore
from tests.support.system import VIDEO, AnalysisApi, GatewayProcess, eventually
from tests.support.valkey import Valkey

PLAIN = "/api/v1/transcription/methods"
CONCURRENT = 16
LIMIT = 10**7
END_SECONDS = 120.0
WEBHOOKS_EACH = 90  # of each owner, who may have a hundred
SPEED = 20.0  # a job takes 0.7 s
ETERNAL = 0.001  # hours
SETTLE_SECONDS = 5.0
NOTICE_ROUNDS = 8
FUTURE_VERSION = 10**6  # above any that a job has: a replica looks what it is
MONITOR_ENDS = "no more of it"
Work = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: requests, jobs that end, jobs that live, and seconds of rest."""

    requests: int
    jobs: int
    live_jobs: int
    seconds: float


QUICK = Size(requests=200, jobs=20, live_jobs=100, seconds=3.0)
FULL = Size(requests=2000, jobs=200, live_jobs=1000, seconds=15.0)


def run(folder: Path, size: Size) -> dict[str, dict[str, float]]:
    """Every figure, in sections; they are what `scale.model` counts with."""
    return asyncio.run(_run(folder, size))


async def _run(folder: Path, size: Size) -> dict[str, dict[str, float]]:
    short, live = folder / "short", folder / "live"
    found: dict[str, dict[str, float]] = {}
    async with _bench(short, SPEED) as bench:
        found |= await _spent(bench, size)
        found["held"] = await _webhooks(bench)
    async with _bench(live, ETERNAL) as bench:
        found["held"] |= await _live(bench, size)
        found["live_job_second"] = await bench.spend(
            lambda: asyncio.sleep(size.seconds),
            size.live_jobs * size.seconds,
            found["idle_second"],
        )
        found["notice"] = await _notices(bench)
        found["held"]["known_job_bytes"] = await _known(bench, folder / "second")
        found["held"]["answer_bytes"] = await _answers(bench)
        found["held"] |= await _keys(bench, size.requests)
    return found


class _Bench:
    """One gateway, its upstream, its Redis, and receivers that are all well."""

    def __init__(
        self, gateway: GatewayProcess, redis: Valkey, receivers: Receivers, upstream: AnalysisApi
    ) -> None:
        self.gateway = gateway
        self.redis = redis
        self.receivers = receivers
        self.upstream = upstream
        self.jobs: list[tuple[str, str]] = []
        self._process = psutil.Process(gateway.pid)

    def memory_bytes(self) -> int:
        """The gateway's own memory: pages that it shares with nobody (USS)."""
        return int(self._process.memory_full_info().uss)

    def gateway_cpu_seconds(self) -> float:
        """What its threads have had of a core so far; finer than the ticks of its user time."""
        tasks = Path(f"/proc/{self.gateway.pid}/task").glob("*/schedstat")
        return sum(int(each.read_text().split()[0]) for each in tasks) / 1e9

    def redis_memory_bytes(self) -> int:
        """What the server has allocated for data."""
        return int(self.info("memory")["used_memory"])

    def info(self, section: str) -> dict[str, Any]:
        """A section of the server's INFO."""
        with closing(self.redis.client()) as client:
            found: dict[str, Any] = client.info(section)
        return found

    async def create(self, number: int) -> None:
        """So many jobs, of each owner in turn."""

        async def one(turn: int) -> None:
            key = KEYS[turn % len(KEYS)]
            answer = await self.gateway.request("POST", "/api/v1/analysis", {"url": VIDEO}, key=key)
            assert answer.status == 200, answer.body
            self.jobs.append((key, answer.document["job_id"]))

        await concurrently(one, number)

    async def ended(self) -> None:
        """Once no job is active, and nothing waits to be sent."""

        async def is_idle() -> bool:
            metrics = await self.gateway.metrics()
            return not metrics["gateway_jobs_active"] and not metrics["gateway_outbox_depth"]

        await eventually("all jobs have ended", is_idle, END_SECONDS)

    async def spend(
        self, work: Work, number: float, rest: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """What one of `number` units cost that `work` does, without what `rest` costs a second."""
        with Monitor(self.redis) as monitor:
            began = time.monotonic()
            await work()
            seconds = time.monotonic() - began
        counted = {"calls": monitor.calls, "commands": monitor.commands}
        before, began = self.spent(), time.monotonic()
        await work()
        spent = _less(self.spent(), before, rest, time.monotonic() - began)
        return {
            name: round(value / number, 3)
            for name, value in (_less(counted, {}, rest, seconds) | spent).items()
        }

    def spent(self) -> dict[str, float]:
        """CPU microseconds and bytes so far; `received` and `sent` are the server's view."""
        cpu, stats = self.info("cpu"), self.info("stats")
        return {
            "gateway_cpu_microseconds": self.gateway_cpu_seconds() * 1e6,
            "redis_cpu_microseconds": (cpu["used_cpu_user"] + cpu["used_cpu_sys"]) * 1e6,
            "received_bytes": stats["total_net_input_bytes"],
            "sent_bytes": stats["total_net_output_bytes"],
        }


class Monitor:
    """Counts what clients call, and the commands their scripts run (`lua` in MONITOR's lines)."""

    def __init__(self, redis: Valkey) -> None:
        self.calls = 0
        self.commands = 0
        self._redis = redis
        self._client = redis.client()
        self._monitor = self._client.monitor()  # type: ignore[no-untyped-call]  # redis's own
        self._thread = threading.Thread(target=self._count)

    def __enter__(self) -> Self:
        self._monitor.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._redis.execute("ECHO", MONITOR_ENDS)
        self._thread.join()
        self._monitor.__exit__(None, None, None)
        self._client.close()

    def _count(self) -> None:
        for line in self._monitor.listen():
            if line["client_type"] == "lua":
                self.commands += 1
            elif MONITOR_ENDS in line["command"]:
                return
            else:
                self.calls += 1


@asynccontextmanager
async def _bench(folder: Path, speed: float) -> AsyncIterator[_Bench]:
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(
            Valkey(folder / "redis", append_only=True, appendfsync="everysec")
        )
        receivers = await stack.enter_async_context(Receivers(seed=1, sick_share=0.0))
        upstream = await stack.enter_async_context(AnalysisApi(speed=speed, create_seconds=0))
        own = folder / "gateway"
        own.mkdir()
        gateway = GatewayProcess(own, upstream.url, **_settings(redis.url))
        await stack.enter_async_context(gateway)
        yield _Bench(gateway, redis, receivers, upstream)


def _settings(redis_url: str) -> dict[str, Any]:
    settings: dict[str, Any] = owner.settings(redis_url)
    settings["jobs"] = {
        "watch": {"poll": {"min": "1s", "max": "15s"}, "lost_after": "60s"},
        "admission": {"max_concurrent": 10**6},
    }
    settings["health"] = {"interval": "60s"}
    key = {"limit": LIMIT, "window": "60s", "by": ["key"]}
    settings["policies"]["rate_limits"] = {"limits": {"default-per-key": key}}
    return settings


async def _spent(bench: _Bench, size: Size) -> dict[str, dict[str, float]]:
    rest = await bench.spend(lambda: asyncio.sleep(size.seconds), size.seconds)
    found = {"idle_second": rest}
    for number, key in enumerate(KEYS):  # every owner has one receiver
        document = {"url": bench.receivers.url(number), "events": KINDS}
        answer = await bench.gateway.request("POST", "/api/v1/webhooks", document, key=key)
        assert answer.status == 201, answer.body
    found["proxied"] = await bench.spend(_asks(bench, PLAIN, size), size.requests, rest)
    await bench.create(1)
    await bench.ended()
    status = f"/api/v1/analysis/{bench.jobs[0][1]}/status"
    await bench.gateway.request("GET", status, key=KEYS[0])
    found["cached"] = await bench.spend(_asks(bench, status, size), size.requests, rest)

    async def jobs() -> None:
        await bench.create(size.jobs)
        await bench.ended()

    before, taken = bench.redis_memory_bytes(), len(bench.receivers.taken)
    found["job"] = await bench.spend(jobs, size.jobs, rest)
    found["job"]["redis_memory_bytes"] = round(
        (bench.redis_memory_bytes() - before) / (2 * size.jobs)
    )
    timelines = [
        await bench.gateway.request("GET", f"/api/v1/jobs/{job_id}/events", key=key)
        for key, job_id in bench.jobs[-size.jobs :]
    ]
    events = sum(len(each.document["events"]) for each in timelines)
    found["job"]["events"] = round(events / size.jobs, 2)
    found["job"]["deliveries"] = (len(bench.receivers.taken) - taken) / (2 * size.jobs)
    return found


def _asks(bench: _Bench, path: str, size: Size) -> Work:
    async def ask(turn: int) -> None:
        answer = await bench.gateway.request("GET", path, key=KEYS[turn % len(KEYS)])
        assert answer.status == 200, answer.body

    return lambda: concurrently(ask, size.requests)


async def _webhooks(bench: _Bench) -> dict[str, float]:
    """What one more webhook takes, and a rate window; a replica keeps neither."""
    number = WEBHOOKS_EACH * len(KEYS)
    redis = bench.redis_memory_bytes()

    async def register(turn: int) -> None:
        document = {"url": bench.receivers.url(0), "events": ["job.completed"]}
        answer = await bench.gateway.request(
            "POST", "/api/v1/webhooks", document, key=KEYS[turn % len(KEYS)]
        )
        assert answer.status == 201, answer.body

    await concurrently(register, number)
    window = next(iter(bench.redis.execute("KEYS *window*")), None)
    return {
        "webhook_redis_bytes": _each(bench.redis_memory_bytes() - redis, number),
        "window_redis_bytes": float(bench.redis.execute("MEMORY USAGE", window) if window else 0),
    }


async def _live(bench: _Bench, size: Size) -> dict[str, float]:
    """What a job that is watched takes in the gateway, and in Redis."""
    await bench.create(20)  # what is imported and pooled at first does not count
    await asyncio.sleep(SETTLE_SECONDS)
    before, redis = bench.memory_bytes(), bench.redis_memory_bytes()
    await bench.create(size.live_jobs)
    await asyncio.sleep(SETTLE_SECONDS)
    return {
        "rest_bytes": before,
        "live_job_bytes": _each(bench.memory_bytes() - before, size.live_jobs),
        "live_job_redis_bytes": _each(bench.redis_memory_bytes() - redis, size.live_jobs),
    }


async def _notices(bench: _Bench) -> dict[str, float]:
    """What it takes to hear that another replica changed a job, and to read the job."""
    notices = [orjson.dumps([job_id, FUTURE_VERSION]) for _, job_id in bench.jobs]

    def publish() -> None:
        with closing(bench.redis.client()) as client, client.pipeline(transaction=False) as pipe:
            for notice in notices:
                pipe.publish("gw:jobs", notice)
            assert set(pipe.execute()) == {1}, "the gateway is not subscribed"

    async def second(*, loud: bool) -> dict[str, float]:
        before = bench.spent()
        if loud:
            await asyncio.to_thread(publish)
        await asyncio.sleep(1.0)  # two notices of one job at a time would be one read
        return _less(bench.spent(), before, None, 0.0)

    total: defaultdict[str, float] = defaultdict(float)
    for _ in range(NOTICE_ROUNDS):  # in turn, for what the live jobs cost meanwhile varies
        for loud in (False, True):
            for name, value in (await second(loud=loud)).items():
                total[name] += value if loud else -value
    number = NOTICE_ROUNDS * len(notices)
    return {name: round(max(0.0, value) / number, 3) for name, value in total.items()}


async def _known(bench: _Bench, folder: Path) -> float:
    """What a job takes in a replica that does not watch it: every one knows every live job."""
    alone = folder / "alone"
    await asyncio.to_thread(alone.mkdir, parents=True)
    with Valkey(folder / "redis") as empty:
        settings = _settings(empty.url)
        async with GatewayProcess(alone, bench.upstream.url, **settings) as gateway:
            before = psutil.Process(gateway.pid).memory_full_info().uss
    settings = _settings(bench.redis.url)
    async with GatewayProcess(folder, bench.upstream.url, **settings) as gateway:
        known = (await gateway.metrics())["gateway_jobs_active"]
        assert known >= len(bench.jobs), "the second replica does not know every job"
        return _each(psutil.Process(gateway.pid).memory_full_info().uss - before, int(known))


async def _answers(bench: _Bench) -> float:
    """What a stored status takes in memory, by the cache's own count."""

    async def ask(turn: int) -> None:
        key, job_id = bench.jobs[turn]
        answer = await bench.gateway.request("GET", f"/api/v1/analysis/{job_id}/status", key=key)
        assert answer.status == 200, answer.body

    await concurrently(ask, len(bench.jobs))
    held = (await bench.gateway.metrics())["gateway_cache_bytes{tier=memory}"]
    return _each(held, len(bench.jobs))


async def _keys(bench: _Bench, number: int) -> dict[str, float]:
    """What a key of the store takes, once the gateway has taken it up."""
    client = RedisClient(Redis(url=SecretStr(bench.redis.url)))
    store, secrets = RedisKeyStore(client), [format_key(token_bytes(24)) for _ in range(number)]
    before, redis = bench.memory_bytes(), bench.redis_memory_bytes()
    scopes = frozenset(owner.SCOPES)
    for turn, secret in enumerate(secrets):
        assert await store.add(Key(f"stored-{turn}", hash_key(secret), f"owner-{turn}", scopes))
    await client.close()

    async def is_known() -> bool:
        return (await bench.gateway.request("GET", PLAIN, key=secrets[-1])).status == 200

    await eventually("the gateway knows the last key", is_known)
    return {
        "key_bytes": _each(bench.memory_bytes() - before, number),
        "key_redis_bytes": _each(bench.redis_memory_bytes() - redis, number),
    }


async def concurrently(act: Callable[[int], Awaitable[None]], number: int) -> None:
    """`act` with every number below `number`, so many at a time."""
    turns = iter(range(number))

    async def some() -> None:
        for turn in turns:
            await act(turn)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENT):
            group.create_task(some())


def _less(
    after: Mapping[str, float],
    before: Mapping[str, float],
    rest: Mapping[str, float] | None,
    seconds: float,
) -> dict[str, float]:
    """The growth, without what a replica spends at rest in that time; never below nothing."""
    idle = rest or {}
    return {
        name: max(0.0, value - before.get(name, 0.0) - idle.get(name, 0.0) * seconds)
        for name, value in after.items()
    }


def _each(grown: float, number: int) -> float:
    return float(max(0, round(grown / number)))
