"""Policies as one handler."""

from __future__ import annotations

from gateway.core.message import Handler, Request, Response
from gateway.policy.chain import compose
from tests.support.fakes import make_request
from tests.support.policy import Terminal, answer


class Noting:
    """Notes when a request passes it, in and out."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self._name = name
        self._notes = notes

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        self._notes.append(f"{self._name} in")
        response = await call_next(request)
        self._notes.append(f"{self._name} out")
        return response


class Answering:
    """Answers itself."""

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        return answer(b"mine")


async def test_the_first_policy_is_the_outermost() -> None:
    notes: list[str] = []
    handler = compose([Noting("a", notes), Noting("b", notes)], Terminal())

    await handler(make_request("GET", "/"))

    assert notes == ["a in", "b in", "b out", "a out"]


async def test_a_policy_that_answers_ends_the_walk() -> None:
    terminal = Terminal()

    response = await compose([Answering()], terminal)(make_request("GET", "/"))

    assert response.body == b"mine"
    assert terminal.requests == []


async def test_without_policies_the_terminal_answers() -> None:
    assert (await compose([], Terminal())(make_request("GET", "/"))).body == b"ok"
