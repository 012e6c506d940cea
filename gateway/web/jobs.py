"""The gateway's own record of jobs: who created what, and every event of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from multidict import CIMultiDict

from gateway.core.error import MethodNotAllowed, NotFound, StoreUnavailable
from gateway.core.event import rfc3339
from gateway.core.job import Job, State
from gateway.core.message import Request, Response
from gateway.core.validator import is_not_modified, made_entity_tag
from gateway.store.job import JobQuery, JobStore, TimelineEntry
from gateway.web.document import json_response
from gateway.web.query import Query

PATH = "/api/v1/jobs"
MAX_EVENTS = 1000  # of a page
JOB_FILTERS = ("state", "subject", "since", "until", "cursor", "limit")
_ALLOW = "GET, HEAD"
_RETRY_SECONDS = "1"


@dataclass(frozen=True, slots=True)
class JobApi:
    """Answers `GET /api/v1/jobs/history` and `GET /api/v1/jobs/{job_id}/events`.

    An owner sees its own jobs; another's is as good as none. Of a job that is `unrecorded`, for
    the store was away when it was created, there is no timeline yet: that is no 404. Errors are
    `GatewayError`s.
    """

    jobs: JobStore
    unrecorded: Mapping[str, Job] = field(default_factory=dict)

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
        query = Query(request.query, JOB_FILTERS)
        page, cursor = await self.jobs.list(job_query(query, request.owner))
        listed = [encode_job(job) for job in page]
        return json_response(200, {"jobs": listed, "next_cursor": cursor})

    async def _events(self, request: Request, job_id: str) -> Response:
        query = Query(request.query, ("after", "limit"))
        waits = self.unrecorded.get(job_id)  # first: it may be recorded while the store is asked
        job = await self.jobs.get(job_id)
        if job is None and waits is not None and waits.owner == request.owner:
            raise StoreUnavailable(
                f"Job {job_id} is not recorded yet: the store was away when it was created.",
                headers={"Retry-After": _RETRY_SECONDS},
            )
        if job is None or job.owner != request.owner:
            raise NotFound(f"There is no job {job_id}.")
        # Whatever a page shows comes with a new version of the job.
        tag = made_entity_tag(f"{job.incarnation}.{job.version}")
        headers = CIMultiDict({"ETag": tag, "Cache-Control": "private, no-cache"})
        if is_not_modified(request.headers, headers, 0.0):
            return Response(304, headers)
        entries, following = await event_page(self.jobs, job_id, query)
        # The stored envelopes as they are: the bytes that receivers got.
        events = [orjson.Fragment(entry.body) for entry in entries]
        document = {"job": encode_job(job), "events": events, "next_after": following}
        return json_response(200, document, headers)


def job_query(query: Query, owner: str | None) -> JobQuery:
    """What a list of jobs is asked for; `owner` None: everyone's."""
    state = query.one_of("state", State)
    return JobQuery(
        owner=owner,
        state=State(state) if state else None,
        subject=query.text("subject"),
        since=query.time("since"),
        until=query.time("until"),
        cursor=query.text("cursor"),
        limit=query.limit(),
    )


async def event_page(
    jobs: JobStore, job_id: str, query: Query
) -> tuple[Sequence[TimelineEntry], int | None]:
    """A page of a job's events, and after which sequence the next begins; None at the last."""
    after = query.integer("after", 0, 0, 2**53)
    limit = query.integer("limit", MAX_EVENTS, 1, MAX_EVENTS)
    entries = await jobs.timeline(job_id, after, limit + 1)
    page = entries[:limit]
    return page, page[-1].sequence if len(entries) > limit else None


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
