"""Who gets a job's stream from the gateway, and of which type."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from multidict import CIMultiDict

from gateway.core.job import Job, State
from gateway.core.message import NoBody, Request, WholeBody
from gateway.core.rendering import Rendering
from gateway.core.route import Match
from gateway.job.broadcast import Broadcasts
from gateway.job.feed import Feed
from gateway.settings.contract import compile_contract
from gateway.settings.job import FanOut as FanOutSettings
from gateway.settings.job import JobContract
from gateway.telemetry.metric import Metrics
from gateway.web.stream import FanOut
from tests.support.job import CONTRACT, NOW

JOB = Job("j1", "", "", "", State.RUNNING, NOW, NOW, sequence=1)


@pytest_asyncio.fixture
async def broadcasts() -> AsyncIterator[Broadcasts]:
    settings = JobContract.model_validate(CONTRACT)
    made = Broadcasts(
        FanOutSettings(),
        Rendering(compile_contract(settings), settings.states),
        active={"j1": JOB}.get,
        metrics=Metrics(),
        now=lambda: NOW,
    )
    made.content_type = "text/plain; charset=utf-8"  # as the upstream has it
    yield made
    made.close()


def request(method: str = "GET", query: str = "", **headers: str) -> Request:
    fields = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    path = "/jobs/j1/stream"
    return Request(
        method=method,
        target=f"{path}?{query}" if query else path,
        path=path,
        query=query,
        headers=fields,
        body=NoBody(),
        match=Match(None, {"job_id": "j1"}),  # type: ignore[arg-type] # nobody asks for the route
        client="127.0.0.1",
        scheme="http",
        host="gateway",
        received_at=NOW,
    )


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "text/plain; charset=utf-8"),
        ("*/*", "text/plain; charset=utf-8"),
        ("text/*", "text/plain; charset=utf-8"),
        ("application/json", "text/plain; charset=utf-8"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("text/event-stream", "text/event-stream; charset=utf-8"),
        ("Text/Event-Stream;q=0.5, */*", "text/event-stream; charset=utf-8"),
        ("text/event-stream;q=0, text/plain", "text/plain; charset=utf-8"),
    ],
)
async def test_type_is_what_was_asked_for_by_name_else_the_upstreams(
    broadcasts: Broadcasts, accept: str | None, kind: str
) -> None:
    headers = {} if accept is None else {"Accept": accept}
    response = FanOut(broadcasts).answer(request(**headers), "j1")
    assert response is not None
    assert isinstance(response.body, Feed)
    assert response.headers["Content-Type"] == kind
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["Vary"] == "Accept"


async def test_plain_text_is_kept_where_the_upstream_has_another(broadcasts: Broadcasts) -> None:
    broadcasts.content_type = "text/event-stream"
    response = FanOut(broadcasts).answer(request(Accept="text/plain"), "j1")
    assert response is not None
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "asked",
    [
        request("HEAD"),
        request("POST"),
        request(query="verbose=1"),
        request(query="last_event_id=1&verbose=1"),
        request(Cookie="session=1"),
        request(Authorization="Basic YTpi"),
    ],
)
async def test_what_the_upstream_may_answer_otherwise_is_left_to_it(
    broadcasts: Broadcasts, asked: Request
) -> None:
    assert FanOut(broadcasts).answer(asked, "j1") is None


async def test_a_request_with_a_body_is_left_to_the_upstream(broadcasts: Broadcasts) -> None:
    asked = request()
    asked.body = WholeBody(b"{}")
    assert FanOut(broadcasts).answer(asked, "j1") is None


async def test_an_unobserved_job_is_left_to_the_upstream(broadcasts: Broadcasts) -> None:
    assert FanOut(broadcasts).answer(request(), "j2") is None


@pytest.mark.parametrize(
    ("asked", "last"),
    [
        (request(Last_Event_ID="7"), 7),
        (request(query="last_event_id=7"), 7),
        (request(query="last_event_id=6", Last_Event_ID="7"), 7),
        (request(Last_Event_ID="x"), None),
        (request(Last_Event_ID="7" * 16), None),
        (request(Last_Event_ID="²"), None),
        (request(), None),
    ],
)
async def test_last_event_is_read_from_the_header_or_the_query(
    broadcasts: Broadcasts, monkeypatch: pytest.MonkeyPatch, asked: Request, last: int | None
) -> None:
    joined: list[int | None] = []
    monkeypatch.setattr(broadcasts, "join", lambda _, last_id: joined.append(last_id))
    FanOut(broadcasts).answer(asked, "j1")
    assert joined == [last]


async def test_who_has_seen_the_end_is_told_to_stay_away(
    broadcasts: Broadcasts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcasts, "has_seen_end", lambda _, last_id: last_id == 7)
    response = FanOut(broadcasts).answer(request(Last_Event_ID="7"), "j1")
    assert response is not None
    assert (response.status, response.body) == (204, b"")
