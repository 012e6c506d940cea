"""What the running API holds: configuration, jobs, faults, and the record of its requests."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from examples.analysis_api.answer import compact
from examples.analysis_api.creation import Creation
from examples.analysis_api.fault import FaultBoard, Mode
from examples.analysis_api.job import STAGES, Job, Moment


@dataclass(frozen=True)
class Config:
    """How the API behaves.

    `speed` is in job seconds a wall second. A creation holds up the event loop for
    `create_seconds`, in wall seconds, by calling `block`. `now` tells epoch seconds.
    The fault `slow` keeps an answer back for `slow_seconds`, in wall seconds.
    """

    speed: float = 1.0
    create_seconds: float = 0.3
    fault: Mode | None = None
    slow_seconds: float = 2.0
    now: Callable[[], float] = time.time
    block: Callable[[float], None] = time.sleep


@dataclass
class Stats:
    """The requests so far, the API's own two control routes left out."""

    requests: Counter[str] = field(default_factory=Counter)
    open_streams: int = 0
    max_open_streams: int = 0
    recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=50))

    def record(self, route: str, request: web.Request) -> None:
        """Count a request and keep its headers."""
        self.requests[route] += 1
        self.recent.append(
            {
                "method": request.method,
                "path": request.path_qs,
                "headers": [[name.lower(), value] for name, value in request.headers.items()],
            }
        )

    def stream_opened(self) -> None:
        """Count a stream that begins."""
        self.open_streams += 1
        self.max_open_streams = max(self.max_open_streams, self.open_streams)

    def stream_closed(self) -> None:
        """Count a stream that is over, whoever ended it."""
        self.open_streams -= 1

    def body(self) -> dict[str, Any]:
        """The record as JSON takes it."""
        return {
            "requests": dict(self.requests),
            "open_streams": self.open_streams,
            "max_open_streams": self.max_open_streams,
            "recent": list(self.recent),
        }


class State:
    """Everything that a restart of the API forgets."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.faults = FaultBoard(config.fault)
        self.stats = Stats()
        self.closing = asyncio.Event()
        self._jobs: dict[str, Job] = {}

    def create(self, creation: Creation, video_id: str) -> Job:
        """A new job, queued now."""
        job = Job(
            job_id=str(uuid.uuid4()),
            video_id=video_id,
            created_at=self.config.now(),
            speed=self.config.speed,
            transcription_config=creation.transcription_config,
        )
        self._jobs[job.job_id] = job
        return job

    def job(self, job_id: str) -> Job | None:
        """The job of that id, if the API has it."""
        return self._jobs.get(job_id)

    def jobs(self) -> list[tuple[Job, Moment]]:
        """Every job with what it shows now, oldest first."""
        now = self.config.now()
        return [(job, job.at(now)) for job in self._jobs.values()]

    def queue_length(self) -> int:
        """How many jobs wait to begin."""
        return sum(shown.stage is STAGES[0] for _, shown in self.jobs())

    def remove(self, job_id: str) -> bool:
        """Forget one job; False if there was none."""
        return self._jobs.pop(job_id, None) is not None

    async def delay(self) -> None:
        """Keep a slow answer back, without holding up others; ends early when the API closes."""
        closed = asyncio.ensure_future(self.closing.wait())
        await asyncio.wait([closed], timeout=self.config.slow_seconds)
        closed.cancel()

    def forget_all(self) -> None:
        """Lose every job, as a restart does."""
        self._jobs.clear()


STATE = web.AppKey("state", State)


def json_answer(body: Any, status: int = 200) -> web.Response:
    """`body` as the API sends it: compact, and without a charset in the content type."""
    data = compact(body).encode()
    return web.Response(body=data, status=status, content_type="application/json")
