"""What requests may hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.core.error import GatewayError
from gateway.core.message import Request
from gateway.core.route import OTHER, Match, Route
from gateway.policy.openapi_source import OpenApiSource
from gateway.policy.validation import Validation
from gateway.settings.policy_validation import OpenApiRule, ValidationPolicy
from gateway.telemetry.metric import Metrics
from tests.support.coding import CODERS
from tests.support.fakes import PEEKED_BYTES, make_request
from tests.support.policy import Terminal, sample

UPSTREAM = Path(__file__).parents[2] / "data" / "upstream" / "openapi.json"
CREATE = Match(Route("job-create", "/api/v1/analysis", frozenset({"POST"})))
SCHEMA = {"type": "object", "required": ["url"], "properties": {"url": {"type": "string"}}}
MARKUP = {"url": "<script>"}


class Upstream:
    """What it answers when asked for its description."""

    def __init__(self, answer: bytes | None = UPSTREAM.read_bytes()) -> None:
        self.answer = answer

    async def __call__(self, path: str) -> bytes | None:
        return self.answer


class Judge:
    """The policy before a terminal; `ask` is what a client does."""

    def __init__(self, documents: Mapping[str, Any] | None = None, **policy: Any) -> None:
        self.metrics = Metrics()
        self.terminal = Terminal()
        self.source = OpenApiSource(Upstream())
        self.policy = Validation(
            ValidationPolicy.model_validate(policy), documents or {}, self.source, self.metrics
        )

    async def ask(
        self,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "POST",
        target: str = "/api/v1/analysis",
        match: Match = CREATE,
    ) -> Request:
        """The request as it is forwarded; raises what it is refused with."""
        given = {"Content-Type": "application/json"} if headers is None else headers
        request = make_request(method, target, body, headers=given, match=match)
        if headers is not None and "Content-Type" not in headers:
            request.headers.popall("Content-Type", None)
        await self.policy(request, self.terminal)
        return request

    async def refused(self, *args: Any, **more: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.ask(*args, **more)
        assert self.terminal.requests == []
        return caught.value

    def count(self, decision: str) -> float:
        return sample(self.metrics, "validation_decisions_total", decision=decision)


def pointers(error: GatewayError) -> list[str]:
    return [each["pointer"] for each in error.extra["errors"]]


async def test_good_json_passes_byte_for_byte() -> None:
    judge = Judge()
    body = b'{"url" : "https://x/?a<3", "n": 1e2}'

    request = await judge.ask(body)

    assert await request.body.read(100) == body
    assert judge.count("passed") == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b"[" * 40 + b"]" * 40, "deeper than 32"),
        (b"{", "is not JSON"),
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "application/merge-patch+json"},
        {},  # without a type: an upstream may take it for JSON
    ],
)
async def test_json_that_parsers_read_differently_is_a_400(
    headers: dict[str, str], body: bytes, said: str
) -> None:
    error = await Judge().refused(body, headers)

    assert (error.status, said in error.detail) == (400, True)


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "multipart/form-data"])
async def test_a_body_that_no_rule_needs_is_not_read(kind: str) -> None:
    class Unread:
        is_empty = False

        async def read(self, limit: int) -> bytes:
            raise AssertionError("was read")

    judge = Judge()
    request = make_request("POST", "/x", b"{", headers={"Content-Type": kind})
    request.body = Unread()  # type: ignore[assignment]

    await judge.policy(request, judge.terminal)

    assert len(judge.terminal.requests) == 1


@pytest.mark.parametrize("body", [b"{", b" \n[", b" " * 2 * PEEKED_BYTES + b"{"])
@pytest.mark.parametrize("headers", [{}, {"Content-Length": "1"}])
async def test_a_body_without_a_type_is_judged_if_it_may_be_json(
    headers: dict[str, str], body: bytes
) -> None:
    assert (await Judge().refused(body, headers)).status == 400


@pytest.mark.parametrize("begin", [b"", b"x", b" \n--", b"\x1f\x8b", b"\x00"])
async def test_a_body_without_a_type_that_begins_otherwise_is_not_read(begin: bytes) -> None:
    class Begun:
        is_empty = False

        async def peek(self) -> bytes:
            return begin

        async def read(self, limit: int) -> bytes:
            raise AssertionError("was read")

    judge = Judge()
    request = make_request("POST", "/x")
    request.body = Begun()  # type: ignore[assignment]

    await judge.policy(request, judge.terminal)

    assert len(judge.terminal.requests) == 1


async def test_markup_is_refused_at_its_field() -> None:
    error = await Judge().refused({"a": [{"url": "<script>"}], "b": "\x00"})

    assert (error.status, pointers(error)) == (422, ["#/a/0/url", "#/b"])


async def test_stripping_rewrites_what_is_forwarded() -> None:
    judge = Judge(markup="strip", control="strip")

    request = await judge.ask(
        {"url": "<b>x\x01</b>", "ü": "ü"},
        {"Content-Type": "application/json", "Content-Length": "1"},
    )

    body = await request.body.read(0)
    assert json.loads(body) == {"url": "b>x/b>", "ü": "ü"}
    assert b"".join([part async for part in request.body.chunks()]) == body
    assert request.headers.getall("Content-Length") == [str(len(body))]
    assert judge.count("stripped") == 1


async def test_a_route_may_allow_what_the_file_does_not() -> None:
    judge = Judge(routes={"job-create": {"markup": "allow"}})

    await judge.ask(MARKUP)
    assert (await Judge().refused(MARKUP)).status == 422


async def test_a_routes_schema_points_at_fields() -> None:
    judge = Judge({"s.json": SCHEMA}, routes={"job-create": {"schema_file": "s.json"}})

    error = await judge.refused({"url": 1})

    assert (error.status, pointers(error)) == (422, ["#/url"])
    await judge.ask({"url": "x"})
    await judge.ask({"url": 1}, match=Match(OTHER))


@pytest.mark.parametrize("headers", [{"Content-Type": "text/plain"}, {}])
async def test_a_route_takes_its_content_types_alone(headers: dict[str, str]) -> None:
    judge = Judge(routes={"job-create": {"content_types": ["application/json"]}})

    error = await judge.refused(b"{}", headers)

    assert (error.status, error.headers["Accept"]) == (415, "application/json")
    await judge.ask(b"{}", {"Content-Type": "Application/JSON;charset=utf-8"})


async def test_two_content_types_are_none() -> None:
    judge = Judge(routes={"job-create": {"content_types": ["application/json"]}})

    assert (await judge.refused(b"{}", {"Content-Type": "application/json, text/x"})).status == 415


async def test_a_routes_bound_is_a_413() -> None:
    judge = Judge(routes={"job-create": {"max_body": 10}})

    error = await judge.refused(b"x" * 11, {"Content-Type": "text/plain"})

    assert (error.status, "policies/validation.yaml" in error.detail) == (413, True)
    await judge.ask(b"x" * 10, {"Content-Type": "text/plain"})


# --- compressed bodies ---------------------------------------------------------------------------

GZIP = {"Content-Type": "application/json", "Content-Encoding": "gzip"}


@pytest.mark.parametrize("coding", list(CODERS))
async def test_a_compressed_body_is_judged_and_forwarded_as_it_came(coding: str) -> None:
    judge = Judge()
    packed = CODERS[coding](b'{"url": "x"}')
    headers = {**GZIP, "Content-Encoding": coding}

    request = await judge.ask(packed, headers)

    assert await request.body.read(1000) == packed
    assert request.headers["Content-Encoding"] == coding
    assert (await Judge().refused(CODERS[coding](b'{"a": "<b>"}'), headers)).status == 422


async def test_a_stripped_body_is_forwarded_plain() -> None:
    request = await Judge(markup="strip").ask(CODERS["gzip"](b'{"a": "<b>"}'), GZIP)

    assert await request.body.read(0) == b'{"a":"b>"}'
    assert "Content-Encoding" not in request.headers


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
async def test_a_bomb_is_a_413_whatever_its_type(kind: str) -> None:
    bomb = CODERS["gzip"](bytes(2 * 1024**2))

    error = await Judge(max_inflated="1MiB").refused(bomb, {**GZIP, "Content-Type": kind})

    assert (error.status, "1048576" in error.detail) == (413, True)


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "zstd, gzip", "x"])
async def test_a_coding_that_is_not_taken_is_a_415(coding: str) -> None:
    error = await Judge().refused(b"x", {**GZIP, "Content-Encoding": coding})

    assert (error.status, error.headers["Accept-Encoding"]) == (415, "gzip, zstd")


async def test_compressed_bodies_may_be_refused() -> None:
    error = await Judge(compressed="refuse").refused(CODERS["gzip"](b"{}"), GZIP)

    assert (error.status, error.headers["Accept-Encoding"]) == (415, "identity")


async def test_broken_gzip_is_a_400() -> None:
    assert (await Judge().refused(b"{}", GZIP)).status == 400


async def test_x_gzip_is_gzip() -> None:
    await Judge().ask(CODERS["gzip"](b"{}"), {**GZIP, "Content-Encoding": "X-GZIP"})


async def test_the_coding_identity_is_none() -> None:
    await Judge().ask(b"{}", {**GZIP, "Content-Encoding": "identity"})


# --- the upstream's description ------------------------------------------------------------------


async def described(**rule: Any) -> Judge:
    judge = Judge(openapi={"source": "upstream", **rule})
    judge.source.apply(OpenApiRule(source="upstream"), {})
    await judge.source.refresh()
    return judge


async def test_a_creation_is_held_against_the_upstreams_description() -> None:
    judge = await described()

    error = await judge.refused({"callback_url": 5})

    assert (error.status, set(pointers(error))) == (422, {"#/url", "#/callback_url"})
    await judge.ask({"url": "https://www.twitch.tv/videos/1"})


async def test_a_missing_body_is_told() -> None:
    error = await (await described()).refused()

    assert (error.status, "JSON body" in error.detail) == (422, True)


async def test_parameters_are_judged_on_requests_without_a_body() -> None:
    judge = await described()

    error = await judge.refused(
        method="GET", target="/api/v1/monitoring/alerts?limit=x", match=Match(OTHER)
    )

    assert error.extra["errors"][0]["parameter"] == "limit"


async def test_what_the_gateway_answers_itself_is_not_the_upstreams() -> None:
    own = Match(Route("webhooks", "/api/v1/webhooks/", gateway=True))

    await (await described()).ask({"anything": 1}, target="/api/v1/webhooks/", match=own)


async def test_in_its_own_shadow_the_description_refuses_nothing() -> None:
    judge = await described(mode="shadow")

    assert (await judge.refused(MARKUP)).status == 422
    await judge.ask({})
    assert judge.count("shadow-validation-failed") == 1


async def test_while_it_is_away_requests_pass_or_wait_as_the_file_says() -> None:
    skipping = Judge(openapi={"source": "upstream"})
    denying = Judge(openapi={"source": "upstream", "on_unavailable": "deny"})

    await skipping.ask({})
    error = await denying.refused({})
    assert (error.status, error.headers["Retry-After"]) == (503, "5")


# --- shadow, off, explanations -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "decision"),
    [
        (b"{", "shadow-invalid-request"),
        (b'{"a": "<b>"}', "shadow-validation-failed"),
        (b'{"a": "' + b"x" * 100 + b'"}', "shadow-content-too-large"),
        (b"{}", "shadow-passed"),
    ],
)
async def test_shadow_lets_all_through_and_counts(body: bytes, decision: str) -> None:
    judge = Judge(mode="shadow", routes={"job-create": {"max_body": 50}})

    request = await judge.ask(body)

    assert await request.body.read(1000) == body
    assert judge.count(decision) == 1


async def test_shadow_strips_nothing() -> None:
    judge = Judge(mode="shadow", markup="strip")

    request = await judge.ask(b'{"a": "<b>"}')

    assert await request.body.read(100) == b'{"a": "<b>"}'
    assert judge.count("shadow-stripped") == 1


async def test_switched_off_it_judges_nothing() -> None:
    await Judge(enabled=False).ask(b"{")


@pytest.mark.parametrize(
    ("policy", "body", "said"),
    [
        ({}, {}, "the body is good"),
        ({}, None, "no body"),
        ({}, b"{", "400 invalid-request"),
        ({"mode": "shadow"}, b"{", "(shadow: let through)"),
        ({"markup": "strip"}, MARKUP, "once stripped"),
        ({"enabled": False}, b"{", "switched off"),
    ],
)
async def test_it_explains_itself(policy: dict[str, Any], body: object, said: str) -> None:
    judge = Judge(**policy)

    explained = await judge.policy.explain(make_request("POST", "/x", body, match=CREATE))

    assert said in explained
    assert judge.metrics.registry.get_sample_value("gateway_validation_decisions_total") is None
