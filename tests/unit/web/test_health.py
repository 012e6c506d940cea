"""Health: checked in the background, kept with its history, only read by a probe."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict
from structlog.testing import capture_logs

from gateway.core.error import StoreUnavailable
from gateway.core.job import Job, State
from gateway.core.message import NoBody, Request
from gateway.core.outbox import Backlog
from gateway.core.route import OTHER, Match
from gateway.policy.openapi_source import SourceState
from gateway.settings.health import Dependency
from gateway.telemetry.metric import Metrics
from gateway.web import health_check
from gateway.web.health import Check, Component, Health, Reading, Status
from gateway.web.health_check import Delivery, LogLines, LoopLag, open_session

KEY = "gw_" + "0" * 64


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class Switch:
    """A check that shows what the test set."""

    def __init__(self, *readings: Reading | Exception) -> None:
        self.readings = list(readings)
        self.calls = 0

    async def __call__(self) -> Reading:
        self.calls += 1
        reading = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        if isinstance(reading, Exception):
            raise reading
        return reading


GOOD, BAD = Reading(), Reading(Status.UNHEALTHY, "away")
DEGRADED, ABSENT = Reading(Status.DEGRADED, "slow"), Reading(Status.NOT_CONFIGURED)


def health(
    components: Mapping[str, Check],
    critical: Sequence[str] = (),
    *,
    clock: Callable[[], float] = Clock(),  # noqa: B008 - never moved where it is shared
    interval: float = 60.0,
    timeout: float = 5.0,
    slow: float = math.inf,
) -> Health:
    found = [Component(name, check, name in critical) for name, check in components.items()]
    return Health(found, interval=interval, timeout=timeout, now=clock, slow=slow)


def component(found: Health, name: str) -> dict[str, Any]:
    condition: dict[str, Any] = found.report()["components"][name]
    return condition


@pytest.mark.parametrize(
    ("store", "convex", "overall"),
    [
        (GOOD, GOOD, "healthy"),
        (GOOD, ABSENT, "healthy"),
        (GOOD, DEGRADED, "degraded"),
        (GOOD, BAD, "degraded"),
        (DEGRADED, GOOD, "degraded"),
        (BAD, GOOD, "unhealthy"),
        (BAD, BAD, "unhealthy"),
    ],
)
async def test_only_a_critical_component_makes_the_whole_unhealthy(
    store: Reading, convex: Reading, overall: str
) -> None:
    found = health({"store": Switch(store), "convex": Switch(convex)}, ["store"])

    await found.check()

    assert found.status == overall
    assert found.report()["status"] == overall


def test_before_the_first_check_a_component_is_unknown_and_no_alarm() -> None:
    found = health({"store": Switch(BAD)}, ["store"])

    assert component(found, "store")["status"] == "unknown"
    assert found.status is Status.HEALTHY


async def test_a_reader_starts_no_check() -> None:
    check = Switch(GOOD)
    found = health({"store": check})

    for _ in range(3):
        found.report()
        await found.answer(public_request())

    assert check.calls == 0


async def test_a_component_remembers_its_last_success_and_since_when() -> None:
    clock = Clock()
    found = health({"convex": Switch(GOOD, BAD, BAD)}, clock=clock)

    for clock.at in (1000.0, 1060.0, 1120.0):
        await found.check()

    seen = component(found, "convex")
    assert seen.pop("latency_seconds") >= 0
    assert seen == {
        "status": "unhealthy",
        "error": "away",
        "last_success_at": "1970-01-01T00:16:40.000Z",
        "since": "1970-01-01T00:17:40.000Z",
    }


async def test_recovery_clears_the_error() -> None:
    found = health({"convex": Switch(BAD, GOOD)})

    await found.check()
    await found.check()

    assert component(found, "convex")["error"] is None


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (StoreUnavailable("The store is away."), "The store is away."),
        (ConnectionRefusedError("no"), "ConnectionRefusedError: no"),
        (ValueError(f"bad key {KEY}"), "ValueError: bad key [redacted]"),
    ],
)
async def test_whatever_a_check_raises_is_what_it_found(raised: Exception, said: str) -> None:
    found = health({"x": Switch(raised), "y": Switch(GOOD)})

    await found.check()

    assert component(found, "x")["status"] == "unhealthy"
    assert component(found, "x")["error"] == said
    assert component(found, "y")["status"] == "healthy"


async def test_a_check_that_hangs_has_failed_and_holds_up_no_other() -> None:
    async def hangs() -> Reading:
        await asyncio.Event().wait()
        return GOOD

    found = health({"x": hangs, "y": Switch(GOOD)}, timeout=0.01)

    await found.check()

    assert component(found, "x")["error"] == "no answer within 0.01 s"
    assert component(found, "y")["status"] == "healthy"


async def test_what_answers_late_is_degraded_and_says_how_late() -> None:
    async def turns() -> Reading:
        await asyncio.sleep(0)
        return Reading(detail={"free_bytes": 1})

    async def slow_and_bad() -> Reading:
        await asyncio.sleep(0)
        return BAD

    found = health({"x": turns, "y": Switch(GOOD), "z": slow_and_bad}, slow=-1.0)
    await found.check()

    assert component(found, "x")["status"] == "degraded"
    assert component(found, "x")["error"].startswith("slow: it took ")
    assert component(found, "x")["free_bytes"] == 1
    assert component(found, "z")["error"] == "away"

    quick = health({"x": turns}, slow=60.0)
    await quick.check()
    assert component(quick, "x")["status"] == "healthy"


async def test_how_unwell_each_component_is_is_told_at_every_check() -> None:
    told: list[tuple[str, int]] = []
    checks = {"x": Switch(GOOD, DEGRADED, BAD, GOOD), "y": Switch(ABSENT)}
    found = Health(
        [Component(name, check) for name, check in checks.items()],
        interval=60.0,
        timeout=5.0,
        now=Clock(),
        unwell=lambda name, severity: told.append((name, severity)),
    )

    for _ in range(4):
        await found.check()

    assert [severity for name, severity in told if name == "x"] == [0, 1, 2, 0]
    assert [severity for name, severity in told if name == "y"] == [0] * 4


async def test_checks_repeat_until_cancelled() -> None:
    again = asyncio.Event()
    calls = 0

    async def check() -> Reading:
        nonlocal calls
        calls += 1
        if calls == 3:
            again.set()
        return GOOD

    task = asyncio.create_task(health({"x": check}, interval=0.001).run())
    await again.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_only_changes_are_logged() -> None:
    found = health({"convex": Switch(GOOD, BAD, BAD, GOOD)})

    with capture_logs() as lines:
        for _ in range(4):
            await found.check()

    assert [(line["log_level"], line["status"]) for line in lines] == [
        ("info", "healthy"),
        ("warning", "unhealthy"),
        ("info", "healthy"),
    ]


def public_request() -> Request:
    return Request(
        method="GET", target="/health", path="/health", query="", headers=CIMultiDict(),
        body=NoBody(), match=Match(OTHER), client="127.0.0.1", scheme="http", host="h",
        received_at=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reading", "status", "code"), [(GOOD, "healthy", 200), (BAD, "unhealthy", 503)]
)
async def test_the_public_answer_is_the_status_alone(
    reading: Reading, status: str, code: int
) -> None:
    found = health({"store": Switch(reading)}, ["store"])
    await found.check()

    response = await found.answer(public_request())

    assert response.status == code
    assert isinstance(response.body, bytes)
    assert orjson.loads(response.body) == {"status": status}
    assert response.headers["Cache-Control"] == "no-store"


# --- the checks -------------------------------------------------------------------------------


async def test_what_is_not_configured_says_so() -> None:
    assert (await health_check.absent()()).status is Status.NOT_CONFIGURED


async def test_a_store_is_healthy_when_it_reads() -> None:
    async def read() -> int:
        return 1

    assert await health_check.reads(read)() == Reading()


@pytest.mark.parametrize(
    ("free", "status"), [(1000, Status.HEALTHY), (999, Status.DEGRADED), (0, Status.DEGRADED)]
)
async def test_a_volume_that_is_nearly_full_is_degraded(free: int, status: Status) -> None:
    async def probe() -> int:
        return free

    reading = await health_check.file(probe, 1000)()

    assert reading.status is status
    assert reading.detail == {"free_bytes": free, "min_free_bytes": 1000}


class Log:
    """What the check looks at, as the test says."""

    def __init__(self) -> None:
        self.dropped, self.waiting_bytes, self.stalls = 0, 0, 0.0

    def stalled_seconds(self) -> float:
        return self.stalls


async def test_log_lines_that_do_not_arrive_are_told_and_counted() -> None:
    metrics, stream = Metrics(), Log()
    check = LogLines(stream, metrics, slow=2.0).check

    good = await check()
    stream.stalls, stream.waiting_bytes = 7.0, 99
    stalled = await check()
    stream.stalls, stream.dropped = 0.0, 3
    lost = await check()
    after = await check()

    assert good == Reading(detail={"waiting_bytes": 0, "lines_lost": 0})
    assert stalled.status is Status.DEGRADED
    assert stalled.error == "the log's reader stands still, for 7 s now"
    assert (lost.status, lost.error) == (
        Status.DEGRADED,
        "3 lines were lost since the last check",
    )
    assert after == Reading(detail={"waiting_bytes": 99, "lines_lost": 3})
    assert metrics.registry.get_sample_value("gateway_log_lines_lost_total") == 3


async def test_a_log_that_is_nobodys_concern_is_not_configured() -> None:
    reading = await LogLines(None, Metrics(), slow=2.0).check()

    assert reading.status is Status.NOT_CONFIGURED


@pytest.mark.parametrize(
    ("code", "expect", "status"),
    [
        (200, (), Status.HEALTHY),
        (401, (), Status.HEALTHY),
        (500, (), Status.UNHEALTHY),
        (401, (200,), Status.UNHEALTHY),
        (401, (200, 401), Status.HEALTHY),
    ],
)
async def test_an_answer_is_judged_by_its_status_code(
    code: int, expect: tuple[int, ...], status: Status
) -> None:
    async def ask() -> int:
        return code

    reading = await health_check.answers(ask, expect)()

    assert (reading.status, reading.detail) == (status, {"status_code": code})


async def test_a_dependency_is_asked_once_without_following_redirects() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.path}")
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server, open_session() as session:
        dependency = Dependency(url=str(server.make_url("/v1")))
        reading = await health_check.dependency(session, dependency)()

    assert reading == Reading(detail={"status_code": 302})
    assert asked == ["GET /v1"]


@pytest.mark.parametrize(
    ("used", "status"),
    [
        (899, Status.HEALTHY),
        (900, Status.DEGRADED),
        (999, Status.DEGRADED),
        (1000, Status.UNHEALTHY),
    ],
)
async def test_memory_is_judged_against_what_is_allowed(used: int, status: Status) -> None:
    reading = await health_check.memory(1000, lambda: used)()

    assert reading.status is status
    assert reading.detail == {"resident_bytes": used, "max_bytes": 1000}


async def test_memory_and_cpu_are_this_processs() -> None:
    memory, cpu = await health_check.memory(2**40)(), await health_check.cpu(0.9)()

    assert 2**20 < memory.detail["resident_bytes"] < 2**40
    assert cpu.detail["percent"] >= 0.0


@pytest.mark.parametrize(("used", "status"), [(89.9, Status.HEALTHY), (90.0, Status.DEGRADED)])
async def test_a_full_core_is_degraded(used: float, status: Status) -> None:
    reading = await health_check.cpu(0.9, lambda: used)()

    assert reading.status is status
    assert reading.detail == {"percent": used, "max_percent": 90.0}


async def test_the_worst_lag_since_the_last_check_is_judged_and_the_last_is_the_metric() -> None:
    metrics = Metrics()
    lag = LoopLag(metrics, max_seconds=0.5)
    for sample in (0.1, 0.7, 0.2):
        lag.note(sample)

    first, second = await lag.check(), await lag.check()

    assert first.status is Status.DEGRADED
    assert first.detail == {"worst_seconds": 0.7, "max_seconds": 0.5}
    assert second == Reading(detail={"worst_seconds": 0.0, "max_seconds": 0.5})
    assert metrics.registry.get_sample_value("gateway_event_loop_lag_seconds") == 0.2


async def test_the_sampler_samples_until_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_check, "_SAMPLE_SECONDS", 0.001)
    sampled = asyncio.Event()
    lag = LoopLag(Metrics(), max_seconds=0.5)
    monkeypatch.setattr(lag, "note", lambda _seconds: sampled.set())

    task = asyncio.create_task(lag.run())
    await sampled.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


def job(state: State, created_at: float, lost_since: float | None = None) -> Job:
    return Job(
        id=f"j{created_at}", incarnation="i", owner="o", upstream="u", state=state,
        created_at=created_at, observed_at=created_at, lost_since=lost_since,
    )  # fmt: skip


async def test_the_job_queue_shows_its_length_and_its_oldest() -> None:
    jobs = [job(State.QUEUED, 990.0), job(State.RUNNING, 400.0), job(State.RUNNING, 900.0)]

    check = health_check.queue(lambda: jobs, Clock())
    reading = await check()
    jobs.append(job(State.RUNNING, 999.0, lost_since=1.0))
    lost = await check()
    jobs.clear()
    empty = await check()

    assert reading == Reading(
        detail={"active": 3, "queued": 1, "running": 2, "oldest_seconds": 600.0, "lost": 0}
    )
    assert (lost.status, lost.detail["lost"]) == (Status.DEGRADED, 1)
    assert empty.detail["oldest_seconds"] is None


async def test_delivery_shows_its_backlog_and_the_ratio_since_the_last_check() -> None:
    async def backlog() -> list[Backlog]:
        return [Backlog("webhook", 3, 1, 940.0), Backlog("convex", 9, 9, 1.0)]

    metrics = Metrics()
    attempts = metrics.delivery_attempts_total
    delivery = Delivery("webhook", backlog, metrics, Clock(), min_share=0.5)
    none = await delivery.check()
    attempts.labels("webhook", health_check.DELIVERED).inc(9)
    attempts.labels("webhook", "timeout").inc(1)
    attempts.labels("convex", "timeout").inc(50)
    attempts.labels("webhook", "superseded").inc(50)
    good = await delivery.check()
    attempts.labels("webhook", health_check.DELIVERED).inc(4)
    attempts.labels("webhook", "timeout").inc(6)
    bad = await delivery.check()
    attempts.labels("webhook", "timeout").inc(9)
    few = await delivery.check()

    assert none.detail == {
        "waiting": 3,
        "in_flight": 1,
        "oldest_seconds": 60.0,
        "success_ratio": None,
    }
    assert (good.status, good.detail["success_ratio"]) == (Status.HEALTHY, 0.9)
    assert (bad.status, bad.detail["success_ratio"]) == (Status.DEGRADED, 0.4)
    assert (few.status, few.detail["success_ratio"]) == (Status.HEALTHY, 0.0)


async def test_refused_policies_are_degraded_and_the_last_good_ones_counted() -> None:
    good = await health_check.policies(lambda: 2, list)()
    refused = await health_check.policies(lambda: 2, lambda: ["auth.yaml:1: no", "x"])()

    assert good == Reading(detail={"generation": 2})
    assert refused.status is Status.DEGRADED
    assert refused.error == "auth.yaml:1: no (1 more)"
    assert refused.detail == {"generation": 2, "problems": ["auth.yaml:1: no", "x"]}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (SourceState(), Reading(Status.NOT_CONFIGURED)),
        (SourceState(wanted=True, published=False), Reading(Status.NOT_CONFIGURED)),
        (SourceState(wanted=True, operations=3), Reading(detail={"operations": 3})),
        (
            SourceState(wanted=True, operations=3, error="away"),
            Reading(Status.DEGRADED, "away", {"operations": 3}),
        ),
    ],
)
async def test_a_description_that_is_away_is_degraded(
    state: SourceState, expected: Reading
) -> None:
    assert await health_check.openapi(lambda: state)() == expected
