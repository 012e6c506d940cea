"""The gateway's own parts that watch jobs, in a process of their own.

`python -m benchmarks.watch.gateway` reads one JSON object of `Work` from stdin, does it, and prints
`Result` as JSON.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import psutil
import uvloop

from gateway.core.job import JobChange, Observation, State
from gateway.core.pace import Pace
from gateway.job.birth import Creation
from gateway.job.broadcast import Broadcasts
from gateway.job.gate import Gate
from gateway.job.observer import Observer
from gateway.job.tracker import Tracker
from gateway.job.watcher import Watcher
from gateway.settings.contract import compile_contract, watch_rule
from gateway.settings.job import JobContract
from gateway.settings.telemetry import Log
from gateway.settings.upstream import Upstream
from gateway.store.sqlite import Database, SqliteJobStore
from gateway.telemetry.log import configure
from gateway.telemetry.metric import Metrics
from gateway.upstream.client import UpstreamClient

_AT_ONCE = 200
_CONTRACT = {
    "create": [{"path": "/jobs"}],
    "status": {"path": "/jobs/{job_id}"},
    "list": {"path": "/jobs"},
    "fields": {"id": "id", "state": "status", "stage": "stage", "percentage": "percentage"},
    "states": {"queued": ["queued"], "running": ["*"]},
}


@dataclass(frozen=True, slots=True)
class Work:
    """`jobs` are watched for `seconds`, after `settle_seconds`."""

    folder: str
    port: int
    core: int
    jobs: int
    watch: dict[str, object]
    settle_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """`since` and `until` are epoch seconds; lags are seconds from a change to its record."""

    cpu_share: float
    bytes_a_job: float
    changes: int
    lag_p50_seconds: float
    lag_p99_seconds: float
    since: float
    until: float


class Watching:
    """Store, tracker and watcher as `gateway serve` puts them together."""

    def __init__(self, work: Work) -> None:
        self._work = work
        settings = JobContract.model_validate({**_CONTRACT, "watch": work.watch})
        contract = compile_contract(settings)
        metrics = Metrics()
        self._database = Database(Path(work.folder) / "gateway.db")
        self._client = UpstreamClient(Upstream(url=f"http://127.0.0.1:{work.port}"), metrics)
        jobs = SqliteJobStore(self._database)
        gate = Gate(Pace(settings.watch.max_per_second), metrics, time.time)
        observer = Observer(self._client, contract, self._refuse, time.time, gate)
        self._tracker = Tracker(
            jobs=jobs,
            contract=contract,
            rule=watch_rule(settings.watch),
            subscribers=(),
            prepare=self._prepare,
            details=observer.details,
            instance="one",
            adopt=False,
            metrics=metrics,
            now=time.time,
            token=secrets.token_bytes,
        )
        broadcasts = Broadcasts(
            settings.fan_out, None, active=self._tracker.active, metrics=metrics, now=time.time
        )
        self._watcher = Watcher(
            jobs=jobs,
            tracker=self._tracker,
            observer=observer,
            broadcasts=broadcasts,
            contract=contract,
            settings=settings.watch,
            upstream=None,
            metrics=metrics,
            now=time.time,
        )
        self._tracker.listeners.append(self._note)
        self._lags: list[float] | None = None

    async def run(self) -> Result:
        """Make the jobs, let them settle, and measure."""
        await self._database.open()
        await self._client.open()
        before = psutil.Process().memory_info().rss
        for first in range(0, self._work.jobs, _AT_ONCE):
            last = min(first + _AT_ONCE, self._work.jobs)
            await asyncio.gather(*(self._create(n) for n in range(first, last)))
        watching = asyncio.create_task(self._watcher.run())
        try:
            await asyncio.sleep(self._work.settle_seconds)
            lags: list[float] = []
            self._lags = lags
            since, began = time.time(), time.process_time()
            await asyncio.sleep(self._work.seconds)
            until, cpu_seconds = time.time(), time.process_time() - began
            self._lags = None
            grown = psutil.Process().memory_info().rss - before
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await self._tracker.close()
            await self._client.close()
            await self._database.close()
        cuts = statistics.quantiles(lags, n=100)
        return Result(
            cpu_share=cpu_seconds / (until - since),
            bytes_a_job=grown / self._work.jobs,
            changes=len(lags),
            lag_p50_seconds=cuts[49],
            lag_p99_seconds=cuts[98],
            since=since,
            until=until,
        )

    async def _create(self, number: int) -> None:
        seen = Observation(f"job-{number}", time.time(), state=State.QUEUED)
        await self._tracker.created(seen, Creation("alice"))

    async def _note(self, change: JobChange) -> None:
        """A stage is named after when it began."""
        if self._lags is not None and change.events and change.job.stage is not None:
            self._lags.append(time.time() - float(change.job.stage))

    async def _prepare(self, _: object) -> None:
        """No callbacks."""

    def _refuse(self, source: str, reason: str, detail: str, job_id: str | None) -> None:
        raise RuntimeError(f"{source} {job_id}: {reason}, {detail}")


def main() -> None:
    """Do the work that stdin names."""
    work = Work(**orjson.loads(sys.stdin.readline()))
    os.sched_setaffinity(0, {work.core})
    with Path(work.folder, "gateway.log").open("w") as log:
        configure(Log(), log)
        result = uvloop.run(Watching(work).run())
    print(orjson.dumps(asdict(result)).decode(), flush=True)


if __name__ == "__main__":
    main()
