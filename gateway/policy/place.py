"""Places that jobs and their creations hold, counted by this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.admission import Bound, Bounds
from gateway.core.job import Job, JobChange
from gateway.core.message import Request


class ActiveJobs(Protocol):
    """The jobs that have not ended, and how long the latest that did took, in seconds."""

    @property
    def active_count(self) -> int:
        """How many there are."""
        ...

    @property
    def active_jobs(self) -> Sequence[Job]:
        """Each of them."""
        ...

    @property
    def durations(self) -> Sequence[float]:
        """Of those that ended."""
        ...


@dataclass(frozen=True, slots=True)
class Applicant:
    """A creation that asks for a place. Clients choose request ids: several may be alike."""

    request_id: str
    owner: str
    key: str | None

    @classmethod
    def of(cls, request: Request) -> Applicant:
        """The creation that a request asks for."""
        return cls(request.request_id, request.owner, request.lineage)


class Places(Protocol):
    """Where creations take their places."""

    async def take(self, applicant: Applicant, *, anyway: bool) -> Bound | None:
        """Take a place; if there is none, the first bound that is reached, and none is taken.

        `anyway` takes one all the same. Raises StoreUnavailable where policy says so.
        """
        ...

    async def leave(self, applicant: Applicant) -> None:
        """The creation has ended: its place goes, unless its job has it."""
        ...


class LocalPlaces:
    """Counts the active jobs and the creations under way here; nothing in it waits.

    A creation holds its place until its job is among the active ones, which `noted` is told at that
    very moment: so no two creations take the last place, and none counts twice. Creations that are
    alike are told apart by nothing: whichever ends gives back one of their tokens.
    """

    def __init__(self, bounds: Bounds, jobs: ActiveJobs) -> None:
        self.bounds = bounds
        self._jobs = jobs
        self._tokens: dict[Applicant, list[str]] = {}
        self._under_way: Counter[Applicant] = Counter()
        self._count = 0

    async def take(self, applicant: Applicant, *, anyway: bool) -> Bound | None:
        """As of `Places`."""
        return self.take_now(applicant, "", anyway=anyway)

    async def leave(self, applicant: Applicant) -> None:
        """As of `Places`."""
        self.left(applicant)

    async def noted(self, change: JobChange) -> None:
        """A job has just become active: its place passes from its creation to it."""
        self.pass_on(change)

    def take_now(self, applicant: Applicant, token: str, *, anyway: bool) -> Bound | None:
        """As `take`, under a token of this creation's."""
        full = self._full(applicant)
        if full is None or anyway:
            self.enter(applicant, token)
        return full

    def enter(self, applicant: Applicant, token: str) -> None:
        """A place has been taken for it."""
        self._tokens.setdefault(applicant, []).append(token)
        self._under_way[applicant] += 1
        self._count += 1

    def left(self, applicant: Applicant) -> str | None:
        """The creation has ended: the token whose place it leaves, None if its job has it."""
        self._under_way[applicant] -= 1
        rest = self._under_way[applicant]
        token = None
        if len(self._tokens.get(applicant, ())) > rest:
            token = self._pop(applicant)
        if not rest:
            del self._under_way[applicant]
        return token

    def pass_on(self, change: JobChange) -> str | None:
        """The token whose place is now the job's; None if no creation here was for it."""
        job = change.job
        if change.before is not None or job.request_id is None:
            return None
        return self._pop(Applicant(job.request_id, job.owner, job.key))

    def _pop(self, applicant: Applicant) -> str | None:
        tokens = self._tokens.get(applicant)
        if tokens is None:
            return None
        token = tokens.pop()
        self._count -= 1
        if not tokens:
            del self._tokens[applicant]
        return token

    def _full(self, applicant: Applicant) -> Bound | None:
        for bound in self.bounds.on(applicant):
            if self._taken(bound) >= bound.limit:
                return bound
        return None

    def _taken(self, bound: Bound) -> int:
        if bound.owner is None and bound.key is None:
            return self._jobs.active_count + self._count
        arriving = sum(len(each) for who, each in self._tokens.items() if bound.counts(who))
        return arriving + sum(map(bound.counts, self._jobs.active_jobs))
