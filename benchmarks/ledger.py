"""What became of a run's events: recorded by a gateway, taken by the receivers, or lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from benchmarks.receivers import Receivers
from tests.support.system import TERMINAL

KINDS = sorted({"job.started", "job.stage_changed", *TERMINAL})  # progress may be left out
SETTLE_SECONDS = 90.0  # without any message taken: what has not come by then never will

# A GET of a path with an owner's key: its document, once there is one.
Read = Callable[[str, str], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Figures:
    """`sent` are the events recorded; times are from an event's observation to its receipt."""

    sent: int
    delivered: int
    lost: int
    duplicates: int
    p50_seconds: float
    p99_seconds: float


class Ledger:
    """`jobs` are those a client was told of, with their owners' keys; `ends` holds, once a job's
    timeline has been read, the sequence of its last event."""

    def __init__(self, receivers: Receivers, read: Read) -> None:
        self.jobs: list[tuple[str, str]] = []
        self.ends: dict[str, int] = {}
        self._receivers = receivers
        self._read = read

    def add(self, key: str, job_id: str) -> None:
        """A job was created with this key."""
        self.jobs.append((key, job_id))

    async def figures(self) -> Figures:
        """Once every job has ended and its events have come, or none has for long.

        Raises AssertionError for a history that is not one, TimeoutError for a job without an end.
        """
        recorded = await self._recorded()
        await self._settled(recorded)
        taken, first_at = self._receivers.taken, self._receivers.first_at
        delivered = recorded.keys() & taken.keys()
        took = [first_at[message] - recorded[message] for message in delivered]
        return Figures(
            sent=len(recorded),
            delivered=len(delivered),
            lost=len(recorded) - len(delivered),
            duplicates=sum(taken[message] - 1 for message in delivered),
            p50_seconds=round(quantile(took, 0.5), 3),
            p99_seconds=round(quantile(took, 0.99), 3),
        )

    async def _recorded(self) -> dict[str, float]:
        """When each event of the kinds that are sent was observed, by its id."""
        found: dict[str, float] = {}
        for key, job_id in self.jobs:
            timeline = await self._finished(key, job_id)
            sequences = [event["sequence"] for event in timeline]
            assert sequences == list(range(1, len(timeline) + 1)), (job_id, sequences)
            ends = [event["type"] for event in timeline if event["type"] in TERMINAL]
            assert ends == [timeline[-1]["type"]], (job_id, ends)
            self.ends[job_id] = sequences[-1]
            found |= {
                event["id"]: datetime.fromisoformat(event["timestamp"]).timestamp()
                for event in timeline
                if event["type"] in KINDS
            }
        return found

    async def _finished(self, key: str, job_id: str) -> list[Any]:
        async with asyncio.timeout(SETTLE_SECONDS):
            while True:
                document = await self._read(key, f"/api/v1/jobs/{job_id}/events")
                timeline: list[Any] = document["events"]
                if timeline and timeline[-1]["type"] in TERMINAL:
                    return timeline
                await asyncio.sleep(0.1)

    async def _settled(self, recorded: Mapping[str, float]) -> None:
        """Until all have been taken, or none has been for long."""
        seen, since = -1, time.monotonic()
        while recorded.keys() - self._receivers.taken.keys():
            if len(self._receivers.taken) != seen:
                seen, since = len(self._receivers.taken), time.monotonic()
            if time.monotonic() - since > SETTLE_SECONDS:
                return
            await asyncio.sleep(0.1)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
