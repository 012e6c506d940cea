"""The stand-in upstream answers as the real one did when the samples in tests/data were taken."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from examples.analysis_api import STATE, Config, State, build_app

SAMPLES = Path(__file__).parent.parent / "data" / "upstream"
TWITCH = "https://www.twitch.tv/videos/"
COMPLETING, FAILING, FAILING_FOR_GOOD = "2434635255", "2434635213", "2434635214"
SPEED = 1000.0
UPDATE_SECONDS = 2 / SPEED


def sample(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text())


# --- comparing --------------------------------------------------------------------------------


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


def differences(expected: Any, actual: Any, place: str = "$") -> list[str]:
    """Where the shapes or types differ. A null on either side stands for anything."""
    if expected is None or actual is None:
        return []
    if kind(expected) != kind(actual):
        return [f"{place}: {kind(expected)} expected, {kind(actual)} found"]
    if isinstance(expected, dict):
        found = [f"{place}.{name}: missing" for name in expected.keys() - actual.keys()]
        found += [f"{place}.{name}: unexpected" for name in actual.keys() - expected.keys()]
        for name in expected.keys() & actual.keys():
            found += differences(expected[name], actual[name], f"{place}.{name}")
        return found
    if isinstance(expected, list):
        if len(expected) != len(actual):
            return [f"{place}: {len(expected)} items expected, {len(actual)} found"]
        pairs = enumerate(zip(expected, actual, strict=True))
        return [
            found for i, (one, other) in pairs for found in differences(one, other, f"{place}[{i}]")
        ]
    return []


@dataclass(frozen=True)
class Event:
    name: str
    data: dict[str, Any]

    @property
    def group(self) -> tuple[str, bool]:
        """Events whose fields are the same: progress tells its duration once work has begun."""
        return self.name, self.data.get("status") == "Queued"


def events(text: str) -> list[Event]:
    found = re.findall(r"event: (.*)\ndata: (.*)\n\n", text)
    assert "".join(f"event: {name}\ndata: {data}\n\n" for name, data in found) == text
    return [Event(name, json.loads(data)) for name, data in found]


def distinct_names(stream: list[Event]) -> list[str]:
    return list(dict.fromkeys(event.name for event in stream))


# --- the API under test -----------------------------------------------------------------------


@dataclass
class Clock:
    """A time that passes only when a test says so."""

    now: float = 1_795_446_416.5

    def __call__(self) -> float:
        return self.now

    def pass_job_seconds(self, seconds: float) -> None:
        self.now += seconds / SPEED


@dataclass
class Answer:
    status: int
    headers: Any
    text: str

    @property
    def content_type(self) -> str:
        return str(self.headers["Content-Type"])

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Api:
    """The stand-in on a real socket, and a client of it."""

    server: TestServer
    session: aiohttp.ClientSession
    clock: Clock
    state: State = field(init=False)

    def __post_init__(self) -> None:
        self.state = self.server.app[STATE]

    def url(self, path: str) -> str:
        return str(self.server.make_url(path))

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        async with self.session.request(method, self.url(path), **options) as response:
            return Answer(response.status, response.headers, await response.text())

    async def create(self, video_id: str = COMPLETING) -> str:
        answer = await self.ask("POST", "/api/v1/analysis", json={"url": TWITCH + video_id})
        assert answer.status == 200
        return str(answer.json["job_id"])

    async def stream(self, job_id: str) -> list[Event]:
        """The whole stream, one stage of time passing whenever an update was read."""
        path = self.url(f"/api/v1/analysis/{job_id}/stream")
        text = ""
        async with self.session.get(path) as response:
            async for line in response.content:
                text += line.decode()
                if line == b"\n":
                    self.clock.pass_job_seconds(2)
        return events(text)

    async def spoil(self, mode: str | None, route: str, count: int | None = 1) -> None:
        body = {"mode": mode, "routes": [route], "count": count}
        assert (await self.ask("POST", "/__fault", json=body)).status == 200


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    clock = Clock()
    app = build_app(Config(speed=SPEED, create_seconds=0, now=clock))
    server = TestServer(app, host="127.0.0.1")
    async with server, aiohttp.ClientSession() as session:
        yield Api(server, session, clock)


# --- the comparer -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actual", "found"),
    [
        ({"a": {"b": 1.5}, "c": [True]}, []),
        ({"a": {"b": None}, "c": None}, []),
        ({"a": {}, "c": [True]}, ["$.a.b: missing"]),
        ({"a": {"b": 1, "x": 1}, "c": [True]}, ["$.a.x: unexpected"]),
        ({"a": {"b": "1"}, "c": [True]}, ["$.a.b: number expected, str found"]),
        ({"a": {"b": 1}, "c": [1]}, ["$.c[0]: boolean expected, number found"]),
        ({"a": {"b": 1}, "c": []}, ["$.c: 1 items expected, 0 found"]),
        ({"a": [], "c": [True]}, ["$.a: dict expected, list found"]),
    ],
)
def test_comparer_finds_every_difference_of_shape_and_type(actual: Any, found: list[str]) -> None:
    assert differences({"a": {"b": 1}, "c": [False]}, actual) == found


def test_comparer_notices_each_field_removed_from_a_sample() -> None:
    whole = sample("status-failed.json")
    for name in whole:
        assert differences(whole, {k: v for k, v in whole.items() if k != name}) == [
            f"$.{name}: missing"
        ]


# --- the samples ------------------------------------------------------------------------------


async def assert_as_sample(answer: Answer, name: str, status: int) -> None:
    assert answer.status == status
    assert answer.content_type == "application/json"
    assert answer.headers["Server"] == "uvicorn"
    assert differences(sample(name), answer.json) == []
    # As written: compact, and the fields in the sample's order.
    assert answer.text == json.dumps(answer.json, separators=(",", ":"))
    assert list(answer.json) == list(sample(name))


@pytest.mark.parametrize("path", ["/api/v1/analysis", "/api/v1/analyze"])
async def test_creation_answers_as_sampled(api: Api, path: str) -> None:
    answer = await api.ask("POST", path, json={"url": TWITCH + COMPLETING})
    await assert_as_sample(answer, "create-200.json", 200)
    assert answer.json["progress"]["total_stages"] == 7


async def test_creation_for_another_site_answers_as_sampled(api: Api) -> None:
    answer = await api.ask("POST", "/api/v1/analysis", json={"url": "https://youtube.com/x"})
    await assert_as_sample(answer, "create-400.json", 400)
    given, expected = answer.json["detail"]["error"], sample("create-400.json")["detail"]["error"]
    assert given | {"support_reference": ""} == expected | {"support_reference": ""}


async def test_creation_without_url_answers_as_sampled(api: Api) -> None:
    request = sample("create-422.json")["request_info"]
    headers = {k: v for k, v in request["headers"].items() if k not in ("host", "content-length")}
    answer = await api.ask(
        "POST",
        "/api/v1/analysis",
        data=b'{"nope":1}',
        headers=headers,
        skip_auto_headers=["Accept-Encoding"],
    )
    await assert_as_sample(answer, "create-422.json", 422)
    assert answer.json["errors"] == sample("create-422.json")["errors"]


@pytest.mark.parametrize(
    ("name", "video_id", "elapsed_seconds"),
    [
        ("status-queued.json", COMPLETING, 0),
        ("status-running.json", COMPLETING, 7),
        ("status-completed.json", COMPLETING, 15),
        ("status-failed.json", FAILING, 15),
    ],
)
async def test_status_answers_as_sampled(
    api: Api, name: str, video_id: str, elapsed_seconds: float
) -> None:
    job_id = await api.create(video_id)
    api.clock.pass_job_seconds(elapsed_seconds)
    answer = await api.ask("GET", f"/api/v1/analysis/{job_id}/status")
    await assert_as_sample(answer, name, 200)
    assert answer.json["status"] == sample(name)["status"]
    for figure in ("percentage", "current_stage", "stages_completed", "total_stages"):
        assert answer.json["progress"][figure] == sample(name)["progress"][figure]


async def test_queued_status_expects_no_completion_time(api: Api) -> None:
    answer = await api.ask("GET", f"/api/v1/analysis/{await api.create()}/status")
    assert answer.json["progress"]["estimated_completion_time"] is None
    assert answer.json["updated_at"] == answer.json["created_at"]


@pytest.mark.parametrize(
    ("name", "video_id"),
    [("details-completed.json", COMPLETING), ("details-failed.json", FAILING)],
)
async def test_details_answer_as_sampled(api: Api, name: str, video_id: str) -> None:
    job_id = await api.create(video_id)
    api.clock.pass_job_seconds(15)
    answer = await api.ask("GET", f"/api/v1/analysis/{job_id}")
    await assert_as_sample(answer, name, 200)
    for same in ("status", "message", "results", "error"):
        assert answer.json[same] == sample(name)[same]


async def test_list_answers_as_sampled(api: Api) -> None:
    await api.create(COMPLETING)
    await api.create(FAILING)
    api.clock.pass_job_seconds(15)
    answer = await api.ask("GET", "/api/v1/jobs")
    await assert_as_sample(answer, "jobs-200.json", 200)
    assert [job["progress"] for job in answer.json["jobs"]] == [100.0, 90]


@pytest.mark.parametrize("path", ["/api/v1/analysis/nope/status", "/api/v1/analysis/nope"])
async def test_unknown_job_answers_as_sampled(api: Api, path: str) -> None:
    await assert_as_sample(await api.ask("GET", path), "status-404.json", 404)


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_health_answers_as_sampled(api: Api, method: str) -> None:
    answer = await api.ask(method, "/health")
    await assert_as_sample(answer, "health-200.json", 200)
    assert answer.json == sample("health-200.json")


@pytest.mark.parametrize("path", ["/api/v1/queue/status", "/api/v1/queue/metrics"])
async def test_queue_answers_as_sampled(api: Api, path: str) -> None:
    answer = await api.ask("GET", path)
    await assert_as_sample(answer, "queue-503.json", 503)
    assert answer.text == (SAMPLES / "queue-503.json").read_text().strip()


@pytest.mark.parametrize(
    ("name", "video_id"), [("stream-completed.txt", COMPLETING), ("stream-failed.txt", FAILING)]
)
async def test_stream_sends_the_sampled_events_and_fields(
    api: Api, name: str, video_id: str
) -> None:
    expected = events((SAMPLES / name).read_text())
    actual = await api.stream(await api.create(video_id))
    assert distinct_names(actual) == distinct_names(expected)
    by_group = {event.group: event.data for event in expected}
    compared = [event for event in actual if event.group in by_group]
    assert {event.group for event in compared} == set(by_group)
    for event in compared:
        assert differences(by_group[event.group], event.data) == []
        assert list(event.data) == list(by_group[event.group])


async def test_stream_is_labelled_plain_text_and_written_with_spaces(api: Api) -> None:
    answer = await api.ask("GET", "/api/v1/analysis/nope/stream")
    assert answer.status == 200
    assert answer.content_type == "text/plain; charset=utf-8"
    (event,) = events(answer.text)
    assert (event.name, event.data["job_id"]) == ("error", "nope")
    assert f"data: {json.dumps(event.data)}\n" in answer.text


async def test_stream_skips_a_stage_shorter_than_its_interval(api: Api) -> None:
    job_id = await api.create()
    path = api.url(f"/api/v1/analysis/{job_id}/stream")
    async with api.session.get(path) as response:
        text = (await response.content.readuntil(b'"update_count": 0')).decode()
        api.clock.pass_job_seconds(6)
        text += (await response.content.readuntil(b'"stages_completed": 3')).decode()
    assert re.findall(r'"status": "(\w+)"', text) == ["Queued", "Transcribing"]


# --- what no sample shows ---------------------------------------------------------------------


async def test_every_stage_comes_in_order(api: Api) -> None:
    job_id = await api.create()
    stages = []
    for _ in range(8):
        answer = await api.ask("GET", f"/api/v1/analysis/{job_id}/status")
        stages.append(answer.json["status"])
        api.clock.pass_job_seconds(2.001)
    assert stages == [
        "Queued",
        "Downloading",
        "Generating waveform",
        "Transcribing",
        "Fetching chat",
        "Analyzing",
        "Finding highlights",
        "Completed",
    ]


async def test_last_digits_of_the_video_choose_the_failure(api: Api) -> None:
    retryable = {}
    for video_id in (FAILING, FAILING_FOR_GOOD):
        job_id = await api.create(video_id)
        api.clock.pass_job_seconds(15)
        answer = await api.ask("GET", f"/api/v1/analysis/{job_id}/status")
        retryable[video_id] = answer.json["error"]["is_retryable"]
    assert retryable == {FAILING: True, FAILING_FOR_GOOD: False}


async def test_validation_answer_repeats_secret_headers(api: Api) -> None:
    answer = await api.ask("POST", "/api/v1/analysis", json={}, headers={"X-Api-Key": "secret"})
    assert answer.json["request_info"]["headers"]["x-api-key"] == "secret"


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        (b"{", ["json_invalid"]),
        (b"\xff", ["json_invalid"]),
        (b"", ["missing"]),
        (b"[]", ["model_attributes_type"]),
        (b'{"url": 5}', ["string_type"]),
        (b'{"url": "u", "callback_url": "nowhere"}', ["url_parsing"]),
        (b'{"url": "u", "callback_url": 5}', ["url_type"]),
        (b'{"url": "u", "transcription_config": 5}', ["model_attributes_type"]),
        (
            b'{"url": "u", "transcription_config": {"method": [], "enable_gpu": "x"}}',
            ["enum", "bool_type"],
        ),
    ],
)
async def test_body_that_does_not_validate_is_422(api: Api, body: bytes, kinds: list[str]) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await api.ask("POST", "/api/v1/analysis", data=body, headers=headers)
    assert answer.status == 422
    assert list(answer.json) == list(sample("create-422.json"))
    assert [error["type"] for error in answer.json["errors"]] == kinds


@pytest.mark.parametrize("tail", ["", "x", "5x", "5/clip"])
async def test_only_a_number_follows_the_twitch_address(api: Api, tail: str) -> None:
    answer = await api.ask("POST", "/api/v1/analysis", json={"url": TWITCH + tail})
    assert answer.status == 400


async def test_chosen_transcription_is_completed_with_defaults(api: Api) -> None:
    body = {"url": TWITCH + COMPLETING, "transcription_config": {"enable_gpu": False}}
    answer = await api.ask("POST", "/api/v1/analysis", json=body)
    assert answer.json["metadata"]["transcription_config"] == {
        "method": "auto",
        "enable_gpu": False,
        "enable_fallback": True,
        "cost_optimization": True,
    }


async def test_legacy_creation_makes_a_job(api: Api) -> None:
    answer = await api.ask("POST", "/legacy/run_pipeline", json={"url": TWITCH + COMPLETING})
    status = await api.ask("GET", answer.json["status_url"])
    assert status.json["job_id"] == answer.json["job_id"]


@pytest.mark.parametrize("path", ["/", "/api/v1/test", "/api/v1/transcription/methods"])
async def test_informative_routes_answer_json(api: Api, path: str) -> None:
    answer = await api.ask("GET", path)
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert isinstance(answer.json, dict)


async def test_unknown_path_and_wrong_method_answer_as_fastapi_does(api: Api) -> None:
    missing = await api.ask("GET", "/nothing")
    assert (missing.status, missing.text) == (404, '{"detail":"Not Found"}')
    wrong = await api.ask("PUT", "/api/v1/jobs")
    assert (wrong.status, wrong.text) == (405, '{"detail":"Method Not Allowed"}')
    assert wrong.headers["Allow"] == "GET"


async def test_any_origin_is_reflected_with_credentials(api: Api) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    preflight = await api.ask("OPTIONS", "/api/v1/analysis", headers=asked)
    plain = await api.ask("GET", "/nothing", headers={"Origin": "https://evil.example"})
    assert preflight.status == 200
    for answer in (preflight, plain):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://evil.example"
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"


async def test_cancelled_job_is_gone(api: Api) -> None:
    job_id = await api.create()
    cancel = f"/api/v1/queue/jobs/{job_id}"
    assert (await api.ask("DELETE", cancel)).status == 200
    assert (await api.ask("GET", f"/api/v1/analysis/{job_id}/status")).status == 404
    assert (await api.ask("DELETE", cancel)).status == 404


async def test_restart_loses_every_job(api: Api) -> None:
    job_ids = [await api.create(), await api.create()]
    api.state.forget_all()
    for job_id in job_ids:
        assert (await api.ask("GET", f"/api/v1/analysis/{job_id}/status")).status == 404
    assert (await api.ask("GET", "/api/v1/jobs")).json["jobs"] == []


async def test_stream_of_a_lost_job_ends_with_an_error_event(api: Api) -> None:
    job_id = await api.create()
    async with api.session.get(api.url(f"/api/v1/analysis/{job_id}/stream")) as response:
        text = (await response.content.readuntil(b'"update_count": 0')).decode()
        api.state.forget_all()
        text += await response.text()
    last = events(text)[-1]
    assert (last.name, last.data["job_id"]) == ("error", job_id)


async def test_creation_holds_up_everybody_elses_poll() -> None:
    polled, answered = threading.Event(), threading.Event()
    answered_during_creation: list[bool] = []
    port = 0

    def poll() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/health")
        polled.set()
        connection.getresponse().read()
        connection.close()
        answered.set()

    def block(seconds: float) -> None:
        poller.start()
        assert polled.wait(10)
        answered_during_creation.append(answered.wait(seconds))

    poller = threading.Thread(target=poll)
    app = build_app(Config(create_seconds=0.2, block=block))
    async with TestServer(app, host="127.0.0.1") as server, aiohttp.ClientSession() as session:
        port = server.port or 0
        body = {"url": TWITCH + COMPLETING}
        async with session.post(server.make_url("/api/v1/analysis"), json=body) as response:
            assert response.status == 200
        assert await asyncio.to_thread(answered.wait, 10)
    poller.join()
    assert answered_during_creation == [False]


# --- faults and the record --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "status", "content_type", "text"),
    [
        ("html", 200, "text/html; charset=utf-8", "<html>"),
        ("half_json", 200, "application/json", '{"job_id"'),
        ("missing_fields", 200, "application/json", '{"video_id"'),
        ("nan", 200, "application/json", '"percentage":NaN'),
        ("percentage_250", 200, "application/json", '"percentage":250'),
        ("status_500", 500, "text/plain; charset=utf-8", "Internal Server Error"),
        ("status_404", 404, "application/json", "JOB_NOT_FOUND"),
    ],
)
async def test_fault_spoils_one_status_and_is_spent(
    api: Api, mode: str, status: int, content_type: str, text: str
) -> None:
    path = f"/api/v1/analysis/{await api.create()}/status"
    await api.spoil(mode, "status")
    spoiled = await api.ask("GET", path)
    assert (spoiled.status, spoiled.content_type) == (status, content_type)
    assert text in spoiled.text.replace(": ", ":")
    sound = await api.ask("GET", path)
    assert differences(sample("status-queued.json"), sound.json) == []


async def test_half_json_does_not_parse(api: Api) -> None:
    job_id = await api.create()
    await api.spoil("half_json", "details")
    answer = await api.ask("GET", f"/api/v1/analysis/{job_id}")
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.text)


async def test_fault_of_missing_fields_reaches_into_the_list(api: Api) -> None:
    await api.create()
    await api.spoil("missing_fields", "list")
    (job,) = (await api.ask("GET", "/api/v1/jobs")).json["jobs"]
    assert set(job) == {"video_id", "created_at", "updated_at"}


async def test_reset_breaks_the_connection(api: Api) -> None:
    await api.spoil("reset", "create")
    with pytest.raises(aiohttp.ClientConnectionError):
        await api.create()
    assert api.state.jobs() == []


async def test_hanging_answer_never_comes_and_does_not_hold_up_others(api: Api) -> None:
    await api.spoil("hang", "status")
    hanging = asyncio.ensure_future(api.ask("GET", "/api/v1/analysis/x/status"))
    while api.state.stats.requests["status"] == 0:
        await api.ask("GET", "/__stats")
    assert (await api.ask("GET", "/health")).status == 200
    assert not hanging.done()
    api.state.closing.set()
    assert (await hanging).status == 500


@pytest.mark.parametrize(
    ("mode", "text"),
    [("nan", '"percentage":NaN'), ("percentage_250", '"percentage":250')],
)
async def test_fault_spoils_the_events_of_a_stream(api: Api, mode: str, text: str) -> None:
    job_id = await api.create()
    api.clock.pass_job_seconds(15)
    await api.spoil(mode, "stream")
    answer = await api.ask("GET", f"/api/v1/analysis/{job_id}/stream")
    assert text in answer.text.replace(" ", "")
    assert distinct_names(events(answer.text)) == ["connected", "completed", "stream_ended"]


async def test_reset_stream_breaks_after_its_first_event(api: Api) -> None:
    job_id = await api.create()
    await api.spoil("reset", "stream")
    with pytest.raises((aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)):
        await api.ask("GET", f"/api/v1/analysis/{job_id}/stream")


async def test_fault_without_count_stays_until_mended(api: Api) -> None:
    path = f"/api/v1/analysis/{await api.create()}/status"
    await api.spoil("status_500", "status", count=None)
    assert [(await api.ask("GET", path)).status for _ in range(3)] == [500, 500, 500]
    await api.spoil(None, "status", count=None)
    assert (await api.ask("GET", path)).status == 200


@pytest.mark.parametrize(
    "body", [{}, [], {"mode": "odd"}, {"mode": "nan", "routes": ["x"]}, {"mode": "nan", "count": 0}]
)
async def test_unknown_fault_is_refused(api: Api, body: Any) -> None:
    assert (await api.ask("POST", "/__fault", json=body)).status == 400


async def test_stats_count_requests_and_keep_the_last_fifty_headers(api: Api) -> None:
    await api.ask("GET", "/health", headers={"X-Api-Key": "first"})
    for number in range(50):
        await api.ask("GET", "/api/v1/jobs", headers={"X-Number": str(number)})
    stats = (await api.ask("GET", "/__stats")).json
    assert stats["requests"] == {"health": 1, "list": 50}
    numbers = [dict(request["headers"])["x-number"] for request in stats["recent"]]
    assert numbers == [str(number) for number in range(50)]


async def test_stats_count_open_streams(api: Api) -> None:
    job_id = await api.create()
    path = api.url(f"/api/v1/analysis/{job_id}/stream")
    async with api.session.get(path) as one, api.session.get(path) as other:
        await one.content.readline()
        await other.content.readline()
        assert (await api.ask("GET", "/__stats")).json["open_streams"] == 2
        one.close()
        other.close()
    while (stats := (await api.ask("GET", "/__stats")).json)["open_streams"]:
        continue
    assert stats["max_open_streams"] == 2
