"""The demo's acts: two jobs, their deliveries, a receiver that fails, Convex, the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gateway.core.job import EventType
from gateway.demo.receiver import Received
from gateway.demo.screen import Screen
from gateway.demo.stage import FLAKY_FAILURES, Stage

GOOD, BAD = "2434635255", "2434635213"  # the stand-in fails videos that end in 13
NOT_CONFIGURED = "not configured"
_ENDED = ("Completed", "Failed")
_LOOK_SECONDS = 0.25
_PATIENCE_SECONDS = 60.0
_SHOWN = (
    ("gateway_jobs_created_total", "jobs created"),
    ("gateway_jobs_completed_total", "jobs completed"),
    ("gateway_jobs_failed_total", "jobs failed"),
    ("gateway_delivery_attempts_total", "delivery attempts"),
    ("gateway_observations_total", "observations of the upstream"),
    ("gateway_cache_requests_total", "cacheable requests"),
    ("gateway_http_request_duration_seconds_count", "requests served"),
)


class DemoError(RuntimeError):
    """The story did not go as it should; the sentence says where."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of it; `events` are the completed job's, in the order they arrived."""

    job_state: str
    failed_job_state: str
    events: list[str]
    in_order: bool
    deliveries: int
    deliveries_verified: int
    retried: int
    convex_state: str
    seconds: float

    @property
    def good(self) -> bool:
        """True when everything happened that the gateway promises."""
        terminal = [name for name in self.events if EventType(name).terminal]
        return (
            self.job_state == "completed"
            and self.failed_job_state == "failed"
            and self.events[:1] == [EventType.STARTED]
            and self.events[-1:] == terminal == [EventType.COMPLETED]
            and self.in_order
            and self.deliveries == self.deliveries_verified > 0
            and self.retried == FLAKY_FAILURES
            and self.convex_state in ("completed", NOT_CONFIGURED)
        )

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "ok": self.good}


async def tell(stage: Stage, screen: Screen) -> Summary:
    """Play every act. Raises `DemoError`, or `aiohttp.ClientError` when the gateway goes away."""
    started = asyncio.get_running_loop().time()
    screen.heading("1. Two receivers register for signed webhooks")
    for endpoint, events in (
        ("healthy", ["job.*"]),
        ("flaky", [EventType.COMPLETED, EventType.FAILED]),
    ):
        answer = await _expect(
            stage,
            201,
            "POST",
            "/api/v1/webhooks",
            url=f"{stage.receiver.url}/{endpoint}",
            events=events,
        )
        stage.receiver.expect(endpoint, answer["secret"])
        screen.line(f"  {endpoint}: {answer['id']} for {', '.join(events)}")
    screen.heading("2. A client creates two jobs; the second will fail")
    good, bad = [await _create(stage, screen, video) for video in (GOOD, BAD)]
    screen.heading("3. Status changes become deliveries, each signed and verified")
    screen.start()
    try:
        states = await asyncio.gather(*(_follow(stage, screen, job) for job in (good, bad)))
        await _until(
            "every delivery has landed", lambda: _landed(stage.receiver.received, (good, bad))
        )
    finally:
        screen.stop()
    convex = await _convex_state(stage, good)
    if convex == NOT_CONFIGURED:
        screen.heading(f"4. Convex: {NOT_CONFIGURED} ({stage.no_convex})")
    else:
        screen.heading(f"4. Convex holds the job as: {convex}")
    screen.table("5. The metrics that matter", _metrics(await stage.metrics()))
    return _summary(stage, good, states, convex, asyncio.get_running_loop().time() - started)


def _summary(
    stage: Stage, good: str, states: Sequence[str], convex: str, seconds: float
) -> Summary:
    received = stage.receiver.received
    first = [r for r in received if r.endpoint == "healthy" and r.job_id == good and r.attempt == 1]
    numbers = [r.sequence for r in first]
    return Summary(
        job_state=states[0],
        failed_job_state=states[1],
        events=[r.event for r in first],
        in_order=numbers == sorted(set(numbers)),
        deliveries=len(received),
        deliveries_verified=sum(r.verified for r in received),
        retried=sum(r.attempt > 1 for r in received),
        convex_state=convex,
        seconds=round(seconds, 2),
    )


async def _expect(stage: Stage, status: int, method: str, path: str, **document: Any) -> Any:
    got, answer = await stage.call(method, path, document or None)
    if got != status:
        raise DemoError(f"{method} {path} answered {got}, not {status}: {answer}")
    return answer


async def _create(stage: Stage, screen: Screen, video: str) -> str:
    url = f"https://www.twitch.tv/videos/{video}"
    answer = await _expect(stage, 200, "POST", "/api/v1/analysis", url=url)
    screen.line(f"  POST /api/v1/analysis {url} -> job {answer['job_id']}")
    return str(answer["job_id"])


async def _follow(stage: Stage, screen: Screen, job_id: str) -> str:
    """Poll a job through the gateway until it ends; its state in the gateway's words."""
    bar = screen.job(f"job {job_id[:8]}")
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while True:
            status = await _expect(stage, 200, "GET", f"/api/v1/analysis/{job_id}/status")
            progress = status["progress"]
            screen.moved(bar, progress["percentage"], status["status"])
            if status["status"] in _ENDED:
                return str(status["status"]).lower()
            await asyncio.sleep(_LOOK_SECONDS)


async def _until(what: str, holds: Callable[[], bool | Awaitable[bool]]) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                held = holds()
                if held if isinstance(held, bool) else await held:
                    return
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError as error:
        raise DemoError(f"waited {_PATIENCE_SECONDS:g} s in vain: {what}") from error


def _landed(received: Sequence[Received], jobs: tuple[str, ...]) -> bool:
    """True when both receivers took the terminal event of every job."""
    ended = {
        (r.endpoint, r.job_id) for r in received if r.answer == 200 and EventType(r.event).terminal
    }
    return ended >= {(endpoint, job) for endpoint in ("healthy", "flaky") for job in jobs}


async def _convex_state(stage: Stage, job_id: str) -> str:
    if stage.convex is None:
        return NOT_CONFIGURED
    state = ""

    async def ended() -> bool:
        nonlocal state
        rows = [row for row in await stage.rows("jobs") if row.get("jobId") == job_id]
        state = str(rows[0].get("status", "")) if rows else "absent"
        return state in ("completed", "failed", "cancelled")

    await _until("Convex holds the final state", ended)
    return state


def _metrics(exposition: str) -> list[tuple[str, str]]:
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return [(title, f"{totals.get(name, 0.0):g}") for name, title in _SHOWN]
