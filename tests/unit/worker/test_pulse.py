"""Workers are asked how they are; one that stays silent is named, and in the end is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from gateway.web.health import Status
from gateway.worker.member import Member
from gateway.worker.overview import HUNG_SECONDS, PULSE, Overview
from tests.unit.worker.doubles import FakeMember


def says(status: str, **parts: str) -> bytes:
    found = {name: {"status": each, "error": None} for name, each in parts.items()}
    return orjson.dumps({"status": status, "components": found})


def silent(*_: object) -> bytes:
    raise TimeoutError


class Workers:
    def __init__(self, *statuses: str) -> None:
        self.members = [FakeMember(slot) for slot in range(len(statuses))]
        for member, status in zip(self.members, statuses, strict=True):
            member.heard_at = asyncio.get_running_loop().time()
            member.answers = lambda *_, status=status: says(status, store=status)
        self.at = 1000.0
        self.overview = Overview(self._serving, len(statuses), lambda: self.at)

    @property
    def component(self) -> Any:
        return self.overview.report()["components"]["workers"]

    def _serving(self) -> Sequence[Member]:
        return [member for member in self.members if member.serves]


async def test_each_is_told_how_all_are() -> None:
    workers = Workers("healthy", "degraded")
    await workers.overview.look()
    await workers.overview.look()

    told = [member.asked[-1] for member in workers.members]
    assert told == [("POST", PULSE, b'{"status":"degraded"}')] * 2


async def test_the_worst_is_the_whole() -> None:
    workers = Workers("healthy", "unhealthy", "degraded")
    await workers.overview.look()

    report = workers.overview.report()
    assert workers.overview.status is Status.UNHEALTHY
    assert report["components"]["store"]["worker"] == 1
    assert [each["status"] for each in report["workers"]] == ["healthy", "unhealthy", "degraded"]


async def test_before_the_first_word_nothing_is_wrong() -> None:
    assert Workers("healthy", "healthy").overview.status is Status.HEALTHY


async def test_a_silent_one_is_named_and_no_longer_counted_on() -> None:
    workers = Workers("healthy", "healthy", "healthy")
    await workers.overview.look()
    workers.members[1].answers = silent
    workers.at = 1010.0
    await workers.overview.look()

    assert workers.component["error"] == "worker 1 does not answer"
    assert workers.component["status"] == "degraded"
    assert workers.component["since"].endswith("16:50.000Z")
    assert [member.slot for member in workers.overview.answering] == [0, 2]

    workers.members[1].answers = lambda *_: says("healthy")
    await workers.overview.look()
    assert workers.component["error"] is None


async def test_an_answer_that_is_none_is_no_answer() -> None:
    workers = Workers("healthy", "healthy")
    workers.members[0].answers = lambda *_: b"<html>"
    await workers.overview.look()

    assert workers.overview.ready_count == 1


async def test_one_that_stands_still_is_killed_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = Workers("healthy", "healthy")
    workers.members[0].answers = silent
    await workers.overview.look()
    before = [member.killed for member in workers.members]
    workers.members[0].heard_at -= HUNG_SECONDS + 1
    await workers.overview.look()

    assert before == [False, False]
    assert [member.killed for member in workers.members] == [True, False]
    assert workers.members[0].is_hung


async def test_one_that_has_left_is_forgotten() -> None:
    workers = Workers("healthy", "unhealthy")
    await workers.overview.look()
    workers.members[1].die()
    await workers.overview.look()

    report = workers.overview.report()
    assert report["components"]["store"] == {"status": "healthy", "error": None, "worker": 0}
    assert workers.component["error"] == "worker 1 is not running"
    assert (workers.component["ready"], workers.component["needed"]) == (1, 1)
