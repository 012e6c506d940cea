"""The health of several workers as one: the worst of each component, and who has it.

Every worker is asked each second, and told how all of them are: a probe, whichever process meets
it, reads what is known and waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.telemetry.log import get_logger
from gateway.web.health import Condition, Status
from gateway.worker.member import Member, Silent

PULSE = "/pulse"
PULSE_SECONDS = 1.0
HUNG_SECONDS = 30.0
_RANK = (
    Status.NOT_CONFIGURED,
    Status.HEALTHY,
    Status.UNKNOWN,
    Status.DEGRADED,
    Status.UNHEALTHY,
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a worker last said of itself; `report` is its `/health`, None before its first word."""

    slot: int
    pid: int
    report: Mapping[str, Any] | None
    answers: bool = True

    @property
    def status(self) -> Status:
        """Of the whole worker."""
        if self.report is None:
            return Status.UNKNOWN
        return Status(self.report["status"])


def needed(workers: int) -> int:
    """How many of them must serve for the gateway to be ready: half, for that can bear the load."""
    return (workers + 1) // 2


def worst(found: Iterable[Status]) -> Status:
    """The worst of several; healthy when there is none."""
    return max(found, key=_RANK.index, default=Status.HEALTHY)


def components(seen: Sequence[Seen]) -> dict[str, dict[str, Any]]:
    """Each component as the worker has it that is worst off, the first of several, by its slot."""
    found: dict[str, dict[str, Any]] = {}
    for each in seen:
        for name, condition in (each.report or {}).get("components", {}).items():
            known = found.get(name)
            if known is None or _rank(condition) > _rank(known):
                found[name] = {**condition, "worker": each.slot}
    return found


def judge(seen: Sequence[Seen], workers: int) -> tuple[Status, str | None]:
    """The component `workers`: whether they are all there, and what is amiss."""
    silent = [each.slot for each in seen if not each.answers]
    absent = sorted(set(range(workers)) - {each.slot for each in seen})
    said = [f"worker {slot} does not answer" for slot in silent]
    said += [f"worker {slot} is not running" for slot in absent]
    if workers - len(silent) - len(absent) < needed(workers):
        return Status.UNHEALTHY, ", ".join(said)
    return (Status.DEGRADED, ", ".join(said)) if said else (Status.HEALTHY, None)


def _rank(condition: Mapping[str, Any]) -> int:
    return _RANK.index(Status(condition["status"]))


class Overview:
    """Asks the members that `serving` gives; see `Health` for what it says of them."""

    def __init__(
        self, serving: Callable[[], Sequence[Member]], workers: int, now: Callable[[], float]
    ) -> None:
        self._serving = serving
        self._workers = workers
        self._now = now
        self._reports: dict[str, Mapping[str, Any]] = {}
        self._silent: set[str] = set()
        self._condition = Condition()
        self._log = get_logger("workers")

    async def look(self) -> None:
        """Ask each of them once, all side by side."""
        members = self._serving()
        await asyncio.gather(*map(self._ask, members))
        names = {member.name for member in members}
        self._reports = {name: said for name, said in self._reports.items() if name in names}
        self._silent &= names
        self._note()

    @property
    def answering(self) -> list[Member]:
        """Those that serve, and answer."""
        return [each for each in self._serving() if each.name not in self._silent]

    @property
    def ready_count(self) -> int:
        """How many there are of those."""
        return len(self.answering)

    @property
    def status(self) -> Status:
        """The worst of the workers, and of whether they are there."""
        seen = self._seen()
        return worst(
            [judge(seen, self._workers)[0], *(each.status for each in seen if each.report)]
        )

    def report(self) -> dict[str, Any]:
        """As a single process reports, with who says so, and each worker by its slot."""
        self._note()
        seen = self._seen()
        condition = self._condition.document()
        counts = {"ready": self.ready_count, "needed": needed(self._workers)}
        return {
            "status": self.status.value,
            "components": {
                **components(seen),
                "workers": {**condition, "workers": self._workers, **counts},
            },
            "workers": [
                {"worker": each.slot, "pid": each.pid, "status": each.status.value} for each in seen
            ],
        }

    def _seen(self) -> list[Seen]:
        found = [
            Seen(
                member.slot,
                member.pid,
                self._reports.get(member.name),
                member.name not in self._silent,
            )
            for member in self._serving()
        ]
        return sorted(found, key=lambda each: each.slot)

    async def _ask(self, member: Member) -> None:
        told = orjson.dumps({"status": self.status.value})
        try:
            async with member.ask("POST", PULSE, PULSE_SECONDS, data=told) as response:
                response.raise_for_status()
                self._reports[member.name] = orjson.loads(await response.read())
        except (*Silent, ValueError):
            self._missed(member)
            return
        member.heard_at = asyncio.get_running_loop().time()
        self._silent.discard(member.name)

    def _missed(self, member: Member) -> None:
        if not member.serves:
            return
        if member.name not in self._silent:
            self._silent.add(member.name)
            self._log.warning("worker_silent", worker=member.slot, pid=member.pid)
        if asyncio.get_running_loop().time() - member.heard_at > HUNG_SECONDS:
            self._log.error("worker_hung", worker=member.slot, pid=member.pid)
            member.is_hung = True
            member.kill()

    def _note(self) -> None:
        """Keep since when the component `workers` is as it is."""
        status, error = judge(self._seen(), self._workers)
        at, before = self._now(), self._condition
        self._condition = Condition(
            status=status,
            last_success_at=at if status is Status.HEALTHY else before.last_success_at,
            error=error,
            since=before.since if status is before.status else at,
        )
