"""The gateway's own record of jobs: who created what, and every event of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from gateway.core.error import MethodNotAllowed, NotFound
from gateway.core.event import rfc3339
from gateway.core.job import Job, State
from gateway.core.message import Request, Response
from gateway.store.job import JobQuery, JobStore
from gateway.web.document import json_response
from gateway.web.query import Query

PATH = "/api/v1/jobs"
_ALLOW = "GET, HEAD"


@dataclass(frozen=True, slots=True)
class JobApi:
    """Answers `GET /api/v1/jobs/history` and `GET /api/v1/jobs/{job_id}/events`.

    An owner sees its own jobs; another's is as good as none. Errors are `GatewayError`s.
    """

    jobs: JobStore

    async def handle(self, request: Request) -> Response:
        """Answer one request; a closing slash makes no difference."""
        segments = request.path.removeprefix(PATH).removesuffix("/").split("/")[1:]
        if segments != ["history"] and (len(segments) != 2 or segments[1] != "events"):
            raise NotFound(f"There is no resource {request.path}.")
        if request.method not in ("GET", "HEAD"):
            detail = f"{request.path} takes {_ALLOW}, not {request.method}."
            raise MethodNotAllowed(detail, headers={"Allow": _ALLOW})
        if len(segments) == 1:
            return await self._history(request)
        return await self._events(request, segments[0])

    async def _history(self, request: Request) -> Response:
        query = Query(request.query, ("state", "subject", "since", "until", "cursor", "limit"))
        state = query.one_of("state", State)
        page, cursor = await self.jobs.list(
            JobQuery(
                owner=request.owner,
                state=State(state) if state else None,
                subject=query.text("subject"),
                since=query.time("since"),
                until=query.time("until"),
                cursor=query.text("cursor"),
                limit=query.limit(),
            )
        )
        listed = [encode_job(job) for job in page]
        return json_response(200, {"jobs": listed, "next_cursor": cursor})

    async def _events(self, request: Request, job_id: str) -> Response:
        after = Query(request.query, ("after",)).integer("after", 0, 0, 2**53)
        job = await self.jobs.get(job_id)
        if job is None or job.owner != request.owner:
            raise NotFound(f"There is no job {job_id}.")
        entries = await self.jobs.timeline(job_id, after)
        # The stored envelopes as they are: the bytes that receivers got.
        events = [orjson.Fragment(entry.body) for entry in entries]
        return json_response(200, {"job": encode_job(job), "events": events})


def encode_job(job: Job) -> dict[str, Any]:
    """A job as its history shows it; results stay with its last event, they can be large."""
    return {
        "job_id": job.id,
        "video_id": job.subject,
        "status": job.state.value,
        "stage": job.stage,
        "progress": job.percentage,
        "stages_completed": job.stages_completed,
        "total_stages": job.total_stages,
        "estimated_completion_seconds": job.eta_seconds,
        "error": job.error,
        "sequence": job.sequence,
        "retry_count": job.retry_count,
        "stage_seconds": job.stage_seconds,
        "created_at": rfc3339(job.created_at),
        "started_at": _time(job.running_since),
        "finished_at": _time(job.finished_at),
        "webhook_urls": job.webhook_urls,
        "webhook_events": job.webhook_events,
    }


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)
