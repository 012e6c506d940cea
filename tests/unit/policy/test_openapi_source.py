"""Where the upstream's description comes from, and what holds while it does not come."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.core.error import UpstreamRefused
from gateway.policy.openapi_source import OpenApiSource, SourceState
from gateway.settings.policy_validation import OpenApiRule

DOCUMENT = (Path(__file__).parents[2] / "data" / "upstream" / "openapi.json").read_bytes()
RULE = OpenApiRule(source="upstream")


class Upstream:
    """Answers what it is told to, and says when it was asked."""

    def __init__(self) -> None:
        self.answer: bytes | Exception | None = DOCUMENT
        self.asked: list[str] = []
        self.was_asked = asyncio.Event()

    async def __call__(self, path: str) -> bytes | None:
        self.asked.append(path)
        self.was_asked.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def source(upstream: Upstream) -> OpenApiSource:
    source = OpenApiSource(upstream)
    source.apply(RULE, {})
    return source


async def test_the_upstream_is_asked_once_it_is_the_source(
    source: OpenApiSource, upstream: Upstream
) -> None:
    source.apply(OpenApiRule(), {})
    task = asyncio.create_task(source.run())
    await asyncio.sleep(0)
    assert upstream.asked == []

    source.apply(OpenApiRule(source="upstream", path="/api.json"), {})
    async with asyncio.timeout(5):
        await upstream.was_asked.wait()
    task.cancel()

    assert upstream.asked == ["/api.json"]


async def test_what_was_given_is_held(source: OpenApiSource) -> None:
    await source.refresh()

    assert source.current is not None
    assert source.state == SourceState(wanted=True, operations=len(source.current))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (UpstreamRefused("nobody listens"), "nobody listens"),
        (b"<html>", "is not JSON"),
        (b"{}", "3.1"),
    ],
)
async def test_while_it_is_away_the_last_one_is_kept(
    source: OpenApiSource, upstream: Upstream, answer: bytes | Exception, said: str
) -> None:
    await source.refresh()
    before = source.current
    upstream.answer = answer

    await source.refresh()

    assert source.current is before
    assert said in (source.state.error or "")
    upstream.answer = DOCUMENT
    await source.refresh()
    assert source.state.error is None
    assert source.current is before  # the same bytes are not compiled again


async def test_an_upstream_without_one_is_left_alone(
    source: OpenApiSource, upstream: Upstream
) -> None:
    await source.refresh()
    upstream.answer = None

    await source.refresh()

    assert source.current is None
    assert source.state == SourceState(wanted=True, published=False)


async def test_a_file_is_in_force_at_once(source: OpenApiSource) -> None:
    source.apply(OpenApiRule(source="file", file="a.json"), {"a.json": {"openapi": "3.1.0"}})

    assert source.current is not None
    with pytest.raises(ValueError, match=r"3\.1"):
        source.apply(OpenApiRule(source="file", file="b.json"), {"b.json": {}})


async def test_another_rule_forgets_what_came_by_the_last_one(source: OpenApiSource) -> None:
    await source.refresh()
    source.apply(RULE, {})
    assert source.state.operations > 30

    source.apply(OpenApiRule(), {})

    assert source.current is None
    assert source.state == SourceState()
