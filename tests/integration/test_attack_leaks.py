"""Attacks that would read what is another's, or have a browser do it."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from gateway.core.credential import format_key
from tests.support.echo import Answer, Echo
from tests.support.system import KEY, OTHER_KEY, SECRET_KEY, GatewayProcess, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

APP = "https://app.example.com"
EVIL = "https://evil.example"
LIMITED = "/api/v1/jobs"
POLICIES = {
    "cors": {"origins": [APP]},
    "rate_limits": {
        "limits": {"few": {"limit": 1, "window": "1h", "by": ["key"], "routes": ["job-list"]}}
    },
}
CACHEABLE = {"Cache-Control": "max-age=600"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    upstream: Echo, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    settings: dict[str, Any] = {"health": {"interval": "1h"}, "policies": POLICIES}
    url = f"http://127.0.0.1:{upstream.port}"
    async with GatewayProcess(tmp_path_factory.mktemp("gw"), url, **settings) as process:
        yield process


def numbered(headers: dict[str, str]) -> Answer:
    """An upstream whose every answer is another one."""
    counts: Counter[str] = Counter()  # by path: the gateway has questions of its own

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        counts[request.raw_path] += 1
        return web.Response(body=f"answer {counts[request.raw_path]}".encode(), headers=headers)

    return answer


# --- cached answers ------------------------------------------------------------------------------


async def test_another_owners_stored_answer_is_a_miss(gateway: GatewayProcess, echo: Echo) -> None:
    echo.answer = numbered({"Cache-Control": "max-age=600"})

    mine = await gateway.request("GET", "/cached/account")
    again = await gateway.request("GET", "/cached/account")
    theirs = await gateway.request("GET", "/cached/account", key=OTHER_KEY)

    assert mine.body == again.body == b"answer 1"  # so that there is something to be stolen
    assert theirs.body == b"answer 2"


async def test_what_the_upstream_calls_private_is_nobodys(
    gateway: GatewayProcess, echo: Echo
) -> None:
    echo.answer = numbered({"Cache-Control": "private, max-age=600"})

    first = await gateway.request("GET", "/cached/private")
    second = await gateway.request("GET", "/cached/private")

    assert first.body != second.body


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"X-Tenant": "a"}, {"X-Tenant": "b"}),
        ({"X-Tenant": "a"}, {}),
        ({"X-Tenant": "a, b"}, {"X-Tenant": "a"}),
        ({"X-Tenant": "a\tb"}, {"X-Tenant": "a b c"}),
    ],
)
async def test_answers_that_vary_do_not_collide(
    gateway: GatewayProcess, echo: Echo, one: dict[str, str], other: dict[str, str]
) -> None:
    path = f"/cached/vary/{os.urandom(4).hex()}"
    echo.answer = numbered({**CACHEABLE, "Vary": "X-Tenant"})

    first = await gateway.request("GET", path, headers=one)
    second = await gateway.request("GET", path, headers=other)

    assert (first.body, second.body) == (b"answer 1", b"answer 2")


@pytest.mark.parametrize(
    "suffix", ["/x.css", "%2fx.css", ";x.css", "/..%2fx.css", "%00.css", "/x.css?", "%0a.css"]
)
async def test_a_path_dressed_up_as_a_static_file_is_no_ones_to_keep(
    gateway: GatewayProcess, echo: Echo, suffix: str
) -> None:
    """Web cache deception: the upstream may answer `/account/x.css` as it does `/account`."""
    echo.answer = numbered({})  # nothing says that it may be stored

    first = await gateway.request("GET", f"/account{suffix}")
    second = await gateway.request("GET", f"/account{suffix}", key=OTHER_KEY)

    assert first.status == second.status
    if first.status == 200:
        assert first.body != second.body
        assert first.headers["Cache-Control"] == "no-store"
    else:
        assert (first.status, echo.arrived) == (400, [])


@pytest.mark.parametrize(
    "name",
    [
        "X-Forwarded-Host",
        "X-Forwarded-Scheme",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Host",
        "Origin",
    ],
)
async def test_a_header_outside_the_key_poisons_no_one_elses_answer(
    gateway: GatewayProcess, echo: Echo, name: str
) -> None:
    path = f"/cached/unkeyed/{name}"

    async def reflect(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=request.headers.get(name, "clean"), headers=CACHEABLE)

    echo.answer = reflect
    await gateway.request("GET", path, key=OTHER_KEY, headers={name: "evil.example"})
    victim = await gateway.request("GET", path)

    assert b"evil" not in victim.body


# --- secrets -------------------------------------------------------------------------------------


async def test_a_key_is_in_no_answer_log_metric_or_request_to_the_upstream(
    gateway: GatewayProcess, echo: Echo
) -> None:
    secret = format_key(b"a-secret-that-must-not-leak")

    async def fail(request: web.BaseRequest) -> web.StreamResponse:
        # As the real upstream does with what it refuses.
        return web.json_response({"errors": dict(request.headers)}, status=422)

    echo.answer = fail
    answers = [
        await gateway.request("POST", "/x", {"a": 1}),
        await gateway.request("GET", "/x", key=secret),
        await gateway.request("GET", "/x", key=None, headers={"Authorization": f"Bearer {secret}"}),
        await gateway.request("GET", f"/x?key={secret}"),
        await gateway.request("GET", f"/{secret}/x"),
        await gateway.request("GET", "/x", headers={"X-Request-ID": secret}),
    ]
    await gateway.request("GET", "/the-last-line")

    async def is_logged() -> bool:
        return "/the-last-line" in gateway.log

    await eventually("every line is out", is_logged)
    metrics = (await gateway.ask_admin("/metrics")).body.decode()
    health = (await gateway.ask_admin("/health")).body.decode()
    told = [gateway.log, metrics, health, *(str(answer.headers) for answer in answers)]
    told += [answer.body.decode() for answer in answers]
    told += [f"{each.target} {each.headers} {each.body!r}" for each in echo.arrived]
    for text in told:
        for known in (KEY, OTHER_KEY, SECRET_KEY, secret):
            assert known not in text


async def test_a_ticket_is_in_no_log_metric_or_request_to_the_upstream(
    gateway: GatewayProcess, echo: Echo
) -> None:
    shown = {"job_id": "j1", "progress": {"percentage": 1.0, "current_stage": "Downloading"}}

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(shown)

    echo.answer = answer
    await gateway.create()
    ticket = (await gateway.request("POST", "/api/v1/jobs/j1/ticket")).document["ticket"]
    shown["progress"] = {"percentage": 100.0, "current_stage": "Completed"}
    await gateway.finish("j1")  # from now on its streams are the upstream's to serve
    hidden = ticket.replace("gwt_", "gwt%5F")
    answers = [
        await gateway.request("GET", path, key=None)
        for path in (
            f"/api/v1/analysis/j1/stream?a=1&ticket={ticket}&b=2",
            f"/api/v1/analysis/j1/stream?ticket={hidden}",
            f"/api/v1/jobs/j1/events?ticket={ticket}",
            f"/api/v1/analysis/j1/status?ticket={ticket}",
            f"/api/v1/analysis/j1/stream?token={ticket}",
            f"/api/v1/analysis/j1/stream?ticket={ticket}x",
            f"/{ticket}/x",
        )
    ]
    await gateway.request("GET", "/the-last-line-of-tickets")

    async def is_logged() -> bool:
        return "/the-last-line-of-tickets" in gateway.log

    await eventually("every line is out", is_logged)
    metrics = (await gateway.ask_admin("/metrics")).body.decode()
    told = [gateway.log, metrics, *(f"{each.headers} {each.body!r}" for each in answers)]
    told += [f"{each.target} {each.headers} {each.body!r}" for each in echo.arrived]
    assert [each.status for each in answers] == [200, 200, 200, 403, 400, 401, 400]
    assert "/api/v1/analysis/j1/stream?a=1&b=2" in {each.target for each in echo.arrived}
    for text in told:
        assert ticket.partition(".")[0] not in text
        assert ticket[-43:] not in text


# --- browsers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        EVIL,
        f"{APP}.evil.example",
        "https://evil-app.example.com",
        f"{APP}:8443",
        "http://app.example.com",
        f"{APP}%00",
        f"{APP}@evil.example",
    ],
)
async def test_a_foreign_page_reads_nothing(
    gateway: GatewayProcess, echo: Echo, origin: str
) -> None:
    async def reflect(request: web.BaseRequest) -> web.StreamResponse:
        # As the real upstream does: any origin, with credentials.
        headers = {
            "Access-Control-Allow-Origin": request.headers["Origin"],
            "Access-Control-Allow-Credentials": "true",
        }
        return web.Response(body=b"x", headers=headers)

    echo.answer = reflect
    answer = await gateway.request("GET", "/x", headers={"Origin": origin})
    preflight = await gateway.request(
        "OPTIONS",
        "/x",
        key=None,
        headers={"Origin": origin, "Access-Control-Request-Method": "GET"},
    )

    for each in (answer, preflight):
        assert not [name for name in each.headers if name.startswith("Access-Control-Allow")]
        assert "Origin" in each.headers["Vary"]
    assert (preflight.status, len(echo.arrived)) == (403, 1)


async def test_a_preflight_needs_no_key_and_ends_here(gateway: GatewayProcess, echo: Echo) -> None:
    headers = {
        "Origin": APP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key, content-type",
    }

    answer = await gateway.request("OPTIONS", "/api/v1/analysis", key=None, headers=headers)

    assert (answer.status, answer.body, echo.arrived) == (204, b"", [])
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_plain_options_is_the_upstreams(gateway: GatewayProcess, echo: Echo) -> None:
    answer = await gateway.request("OPTIONS", "/x", key=None)

    assert (answer.status, echo.last.method) == (200, "OPTIONS")


async def test_a_page_can_read_why_it_was_refused(gateway: GatewayProcess, echo: Echo) -> None:
    headers = {"Origin": APP}

    unknown = await gateway.request("GET", "/x", key=None, headers=headers)
    await gateway.request("GET", LIMITED, headers=headers)
    too_many = await gateway.request("GET", LIMITED, headers=headers)

    assert (unknown.status, too_many.status) == (401, 429)
    for answer in (unknown, too_many):
        assert answer.headers["Access-Control-Allow-Origin"] == APP
        assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("origin", [EVIL, "null", f"{APP}.evil.example"])
async def test_a_foreign_page_opens_no_websocket(
    gateway: GatewayProcess, echo: Echo, origin: str
) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(
                f"{gateway.public}/ws?x=1", origin=origin, headers={"X-API-Key": KEY}
            )

    assert (caught.value.status, echo.arrived) == (403, [])


# --- what is not there ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/metrics", "/drain", "/health/ready", "/console"])
@pytest.mark.parametrize("spell", [str, lambda path: f"/x/..{path}", lambda path: f"//..{path}"])
async def test_admin_paths_are_not_on_the_public_port(
    gateway: GatewayProcess, echo: Echo, path: str, spell: Callable[[str], str]
) -> None:
    answer = await gateway.request("GET", spell(path))

    assert (answer.status, echo.arrived) == (404, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Request-ID", "short"),
        ("X-Request-ID", "a" * 129),
        ("X-Request-ID", "<script>alert(1)</script>"),
        ("X-Request-ID", "a b c d e f"),
        ("traceparent", "00-" + "0" * 32 + "-00f067aa0ba902b7-01"),
        ("traceparent", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("traceparent", "junk"),
    ],
)
async def test_junk_that_goes_into_logs_is_replaced(
    gateway: GatewayProcess, echo: Echo, name: str, value: str
) -> None:
    answer = await gateway.request("GET", "/x", headers={name: value})

    assert echo.last.headers.get(name) != value
    assert value not in str(answer.headers)


async def test_another_owners_webhook_is_not_there(gateway: GatewayProcess) -> None:
    created = await gateway.register("http://127.0.0.1:9/hook")
    path = f"/api/v1/webhooks/{created['id']}"

    answers = await asyncio.gather(
        gateway.request("GET", path, key=OTHER_KEY),
        gateway.request("DELETE", path, key=OTHER_KEY),
        gateway.request("GET", f"{path}/logs", key=OTHER_KEY),
        gateway.request("POST", f"{path}/test", key=OTHER_KEY),
    )
    missing = await gateway.request("GET", "/api/v1/webhooks/wh_none", key=OTHER_KEY)

    assert {answer.status for answer in answers} == {404}
    assert answers[0].document["type"] == missing.document["type"]
    assert (await gateway.request("GET", path)).status == 200


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "javascript:alert(1)", "x\x00y", "\u202egnp.exe"]
)
async def test_text_that_would_run_where_it_is_shown_is_never_stored(
    gateway: GatewayProcess, echo: Echo, text: str
) -> None:
    answer = await gateway.request("POST", "/api/v1/analysis", {"url": "https://x", "title": text})

    assert (answer.status, echo.arrived) == (422, [])
    assert [error["pointer"] for error in answer.document["errors"]] == ["#/title"]
    assert text not in answer.body.decode()


async def test_markup_in_an_answer_runs_in_no_browser(gateway: GatewayProcess, echo: Echo) -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="<script>alert(1)</script>", content_type="text/html")

    echo.answer = answer
    headers = (await gateway.request("GET", "/x")).headers

    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["X-Content-Type-Options"] == "nosniff"
