"""`/api/v1/jobs/history` and `/api/v1/jobs/{job_id}/events`, over a real embedded store."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.core.error import InvalidRequest, MethodNotAllowed, NotFound, StoreUnavailable
from gateway.core.job import State
from gateway.core.message import Response
from gateway.web.jobs import JobApi
from tests.support.fakes import document, make_request
from tests.support.store import NOW, Stores, new_job, next_change, timeline_of

HISTORY = "/api/v1/jobs/history"


async def get(stores: Stores, target: str, **fields: Any) -> Response:
    return await JobApi(stores.jobs).handle(make_request("GET", target, **fields))


async def add(stores: Stores, job_id: str, at: float = NOW, **fields: Any) -> None:
    change = new_job(job_id, at, **fields)
    assert await stores.jobs.record(change, timeline_of(change), ())


async def finish(stores: Stores, job_id: str, at: float) -> None:
    job = await stores.jobs.get(job_id)
    assert job is not None
    change = next_change(job, at, state=State.COMPLETED, results={"highlights": [1]})
    assert await stores.jobs.record(change, timeline_of(change), ())


async def advance(stores: Stores, job_id: str, steps: int) -> None:
    for step in range(steps):
        job = await stores.jobs.get(job_id)
        assert job is not None
        change = next_change(job, NOW + step, percentage=10.0 * (step + 1))
        assert await stores.jobs.record(change, timeline_of(change), ())


async def ids(stores: Stores, query: str = "") -> list[str]:
    page = document(await get(stores, HISTORY + query))
    return [job["job_id"] for job in page["jobs"]]


async def test_history_shows_an_owners_jobs_newest_first(stores: Stores) -> None:
    await add(stores, "job-1", NOW)
    await add(stores, "job-2", NOW + 1)
    await add(stores, "job-3", NOW + 2, owner="bob")
    assert await ids(stores) == ["job-2", "job-1"]


async def test_job_is_shown_in_the_words_of_its_events_without_results(stores: Stores) -> None:
    await add(stores, "job-1", subject="v1", webhook_urls=("https://a.example/",))
    await finish(stores, "job-1", NOW + 60)
    [job] = document(await get(stores, HISTORY))["jobs"]
    assert job == {
        "job_id": "job-1",
        "video_id": "v1",
        "status": "completed",
        "stage": None,
        "progress": 100.0,
        "stages_completed": None,
        "total_stages": None,
        "estimated_completion_seconds": 0.0,
        "error": None,
        "sequence": 2,
        "retry_count": 0,
        "stage_seconds": {},
        "created_at": "2023-11-14T22:13:20.000Z",
        "started_at": None,
        "finished_at": "2023-11-14T22:14:20.000Z",
        "webhook_urls": ["https://a.example/"],
        "webhook_events": [],
    }


async def test_history_filters_by_state_subject_and_time(stores: Stores) -> None:
    await add(stores, "job-1", NOW, subject="v1")
    await add(stores, "job-2", NOW + 60, subject="v2")
    await add(stores, "job-3", NOW + 120, subject="v1")
    await finish(stores, "job-3", NOW + 180)
    assert await ids(stores, "?state=completed") == ["job-3"]
    assert await ids(stores, "?subject=v1") == ["job-3", "job-1"]
    assert await ids(stores, "?since=2023-11-14T22:14:20Z") == ["job-3", "job-2"]
    assert await ids(stores, "?until=2023-11-14T22:14:20Z") == ["job-1"]
    assert await ids(stores, "?since=2023-11-14T23:14:20%2B01:00&subject=v2") == ["job-2"]


async def test_history_pages_without_gap_or_repetition(stores: Stores) -> None:
    for number in range(5):
        await add(stores, f"job-{number}", NOW + number // 2)
    seen: list[str] = []
    cursor = ""
    while True:
        page = document(await get(stores, f"{HISTORY}/?limit=2{cursor}"))
        seen += [job["job_id"] for job in page["jobs"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ["job-4", "job-3", "job-2", "job-1", "job-0"]


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("state=done", "must be one of queued"),
        ("since=yesterday", "RFC 3339"),
        ("since=2023-11-14", "offset from UTC"),
        ("sinc=1", "did you mean 'since'"),
        ("limit=1000", "from 1 to 100"),
        ("cursor=x", "cursor"),
        ("subject=", "characters"),
    ],
)
async def test_bad_query_parameter_is_named(stores: Stores, query: str, detail: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await get(stores, f"{HISTORY}?{query}")
    assert detail in caught.value.detail


async def test_events_are_the_stored_envelopes_in_order(stores: Stores) -> None:
    await add(stores, "job-1")
    await finish(stores, "job-1", NOW + 60)
    answer = document(await get(stores, "/api/v1/jobs/job-1/events"))
    entries = await stores.jobs.timeline("job-1")
    assert answer["events"] == [orjson.loads(entry.body) for entry in entries]
    assert [event["sequence"] for event in answer["events"]] == [1, 2]
    assert answer["job"]["status"] == "completed"


async def test_events_after_a_sequence_leave_out_what_is_known(stores: Stores) -> None:
    await add(stores, "job-1")
    await finish(stores, "job-1", NOW + 60)
    answer = document(await get(stores, "/api/v1/jobs/job-1/events?after=1"))
    assert [event["type"] for event in answer["events"]] == ["job.completed"]


async def test_another_owners_job_is_answered_like_one_that_is_not(stores: Stores) -> None:
    await add(stores, "job-1")
    details = []
    for job_id in ("job-1", "job-2"):
        with pytest.raises(NotFound) as caught:
            await get(stores, f"/api/v1/jobs/{job_id}/events", owner="bob", scopes=["admin"])
        details.append(caught.value.detail.replace(job_id, "job"))
    assert details[0] == details[1]


async def test_events_page_without_gap_or_repetition(stores: Stores) -> None:
    await add(stores, "job-1")
    await advance(stores, "job-1", 6)
    seen: list[int] = []
    after: int | None = 0
    while after is not None:
        answer = document(await get(stores, f"/api/v1/jobs/job-1/events?limit=2&after={after}"))
        assert len(answer["events"]) <= 2
        seen += [event["sequence"] for event in answer["events"]]
        after = answer["next_after"]
    assert seen == [entry.sequence for entry in await stores.jobs.timeline("job-1")]
    assert seen == list(range(1, len(seen) + 1))


async def test_page_that_is_the_last_says_so_though_it_is_full(stores: Stores) -> None:
    await add(stores, "job-1")
    await finish(stores, "job-1", NOW + 60)
    answer = document(await get(stores, "/api/v1/jobs/job-1/events?limit=2"))
    assert len(answer["events"]) == 2
    assert answer["next_after"] is None


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "after=-1", "after=x", "lmit=1"])
async def test_bad_parameter_of_events_is_refused(stores: Stores, query: str) -> None:
    await add(stores, "job-1")
    with pytest.raises(InvalidRequest):
        await get(stores, f"/api/v1/jobs/job-1/events?{query}")


async def test_events_that_are_known_are_not_sent_again_until_there_are_more(
    stores: Stores,
) -> None:
    path = "/api/v1/jobs/job-1/events"
    await add(stores, "job-1")
    first = await get(stores, path)
    known = {"If-None-Match": first.headers["ETag"]}
    again = await get(stores, path, headers=known)
    assert (again.status, again.body) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    await finish(stores, "job-1", NOW + 60)
    later = await get(stores, path, headers=known)
    assert later.status == 200
    assert len(document(later)["events"]) == 2
    assert later.headers["ETag"] != first.headers["ETag"]
    assert later.headers["Cache-Control"] == "private, no-cache"


async def test_tag_of_one_owner_s_job_tells_another_nothing(stores: Stores) -> None:
    await add(stores, "job-1")
    tag = (await get(stores, "/api/v1/jobs/job-1/events")).headers["ETag"]
    for asked in (tag, "*"):
        with pytest.raises(NotFound):
            await get(
                stores, "/api/v1/jobs/job-1/events", owner="bob", headers={"If-None-Match": asked}
            )


@pytest.mark.parametrize("path", ["", "/job-1", "/job-1/other", "/job-1/events/more"])
async def test_path_without_a_resource_is_not_found(stores: Stores, path: str) -> None:
    with pytest.raises(NotFound):
        await get(stores, f"/api/v1/jobs{path}")


@pytest.mark.parametrize("path", ["history", "job-1/events"])
async def test_wrong_method_is_answered_with_allow(stores: Stores, path: str) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        await JobApi(stores.jobs).handle(make_request("POST", f"/api/v1/jobs/{path}"))
    assert caught.value.headers == {"Allow": "GET, HEAD"}


async def test_timeline_of_a_job_whose_record_waits_for_the_store_is_not_denied(
    stores: Stores,
) -> None:
    waits = new_job("job-1", NOW, owner="acme").job
    api = JobApi(stores.jobs, unrecorded={"job-1": waits})

    with pytest.raises(StoreUnavailable) as caught:
        await api.handle(make_request("GET", "/api/v1/jobs/job-1/events", owner="acme"))
    assert caught.value.headers["Retry-After"] == "1"
    with pytest.raises(NotFound):
        await api.handle(make_request("GET", "/api/v1/jobs/job-1/events", owner="another"))
