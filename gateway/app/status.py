"""The gateway's own questions about a job's status, whose answers clients are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from multidict import CIMultiDict

from gateway.core.contract import STATUS, Contract
from gateway.core.job import JobChange
from gateway.core.message import Handler, NoBody, Request, Response
from gateway.core.route import RouteTable
from gateway.policy.cache import ResponseCache
from gateway.settings.policy import CachePolicy


@dataclass(frozen=True, slots=True)
class _Learned:
    """A status that was kept: a hash of its body, and when it was asked for."""

    body: int
    at: float


class Statuses:
    """What is known of jobs' statuses, as clients see them.

    `host` is the upstream's, `policy` the one in force. Only where all clients share one answer can
    the gateway ask for it, since nobody's key comes with its question.
    """

    def __init__(
        self,
        *,
        cache: ResponseCache,
        upstream: Handler,
        contract: Contract,
        routes: RouteTable,
        host: str,
        policy: Callable[[], CachePolicy],
        now: Callable[[], float],
    ) -> None:
        self._cache = cache
        self._upstream = upstream
        self._contract = contract
        self._routes = routes
        self._host = host
        self._policy = policy
        self._now = now
        self._learned: dict[str, _Learned] = {}  # by job, while it is active

    async def fetch(self, job_id: str, *, asks: bool = True) -> Response | None:
        """A job's status, from the cache where it is fresh; None where it is no common one.

        Raises `UpstreamError`, or `NotCached` where it would have to ask and `asks` forbids it.
        """
        request = self._request(job_id)
        if request is None:
            return None
        if not asks:
            request.headers["Cache-Control"] = "only-if-cached"
        response = await self._cache(request, self._upstream)
        if isinstance(response.body, bytes):
            return response
        await response.body.aclose()  # what streams is for one client alone
        return None

    async def learn(self, change: JobChange) -> bool:
        """Keep what the change was seen in, for polls to come; False where it may not be kept."""
        job, answer = change.job, change.answer
        if job.state.terminal:
            self._learned.pop(job.id, None)
        if answer is None:
            return False
        seen = _Learned(hash(answer.body), job.observed_at)
        if not change.events and not self._is_news(job.id, seen):
            return True
        request = self._request(job.id)
        if request is None or not await self._cache.learn(request, answer, job.observed_at):
            return False
        if not job.state.terminal:
            self._learned[job.id] = seen
        return True

    async def heard(self, change: JobChange) -> None:
        """Have no answer that is older than a change of another replica."""
        job = change.job
        if job.state.terminal:
            self._learned.pop(job.id, None)
        request = self._request(job.id)
        if request is None:
            await self._cache.coming(change)
        elif change.events:
            await self._cache.heard(request, change)

    def _is_news(self, job_id: str, seen: _Learned) -> bool:
        """True unless the same was kept a short while ago."""
        known = self._learned.get(job_id)
        if known is None or known.body != seen.body:
            return True
        return seen.at - known.at >= self._policy().watched.max_age / 2

    def _request(self, job_id: str) -> Request | None:
        path = self._contract.path(STATUS, job_id)
        if path is None or STATUS not in self._policy().public:
            return None
        return Request(
            method="GET",
            target=path,
            path=path,
            query="",
            headers=CIMultiDict({"Accept": "application/json"}),
            body=NoBody(),
            match=self._routes.match("GET", path),
            client="gateway",
            scheme="http",
            host=self._host,
            received_at=self._now(),
        )
