"""A request that came before, byte for byte, on one connection: its course through the policies.

Most requests to a job API are polls, and a client that polls sends the same head each time. What
the policies found out about it holds until something changes, and each policy says what (`Step`).
While nothing has, a request is answered by the steps alone: no parsing, no coroutines, and the
answer's head is the one that was sent before, with what varies put in its place. Whatever a step is
not sure of goes through the chain, which alone decides what the policies are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from multidict import CIMultiDict

from gateway.core.error import GatewayError, UpstreamError
from gateway.core.message import Request, Response
from gateway.policy.chain import Chain
from gateway.policy.step import Answer, Step
from gateway.upstream.client import Exchange
from gateway.web.forward import Forward
from gateway.web.head import Likeness
from gateway.web.listening import Listening
from gateway.web.template import Template, template
from gateway.web.wire import has_body

_MAX_KNOWN = 4  # heads of the upstream's, of one course
_OF_THE_HOP = re.compile(rb"\r\n(?:connection|transfer-encoding|keep-alive):", re.IGNORECASE)


class Course:
    """What is done for one connection's repeated request, by the steps of `chain`."""

    __slots__ = ("_done", "_enter", "_likeness", "_ready", "_request", "_steps", "chain")

    def __init__(self, chain: Chain, steps: Sequence[Step], request: Request) -> None:
        self.chain = chain
        self._request = request
        self._steps = steps
        self._ready = _overriding(steps, "is_ready")
        self._enter = _overriding(steps, "enter")
        self._done = _overriding(steps, "done")
        self._likeness: Likeness | None = None

    def like(self, raw: bytes) -> None:
        """Take heads like this one too, which is the request's, where the steps leave that open."""
        read: set[str] = set()
        for step in self._steps:
            if step.reads is None:
                return
            read |= step.reads
        self._likeness = Likeness(raw, read)

    def takes(self, raw: bytes) -> bool:
        """True for a head that differs from the last in what no step looks at."""
        return self._likeness is not None and self._likeness.changes(raw) is not None

    def is_ready(self, at: float) -> bool:
        """True when every policy would do as before, at `at` (epoch seconds)."""
        for ready in self._ready:  # noqa: SIM110 - a generator costs as much as some of the steps
            if not ready(at):
                return False
        return True


class HeldCourse(Course):
    """Of a request whose answer the gateway holds."""

    __slots__ = ("_body", "_date", "_head", "_size", "_status")

    def __init__(
        self,
        server: Listening,
        steps: Sequence[Step],
        request: Request,
        response: Response,
        head: Template,
    ) -> None:
        super().__init__(server.chain, steps, request)
        self._date = server.date
        body = response.body
        assert isinstance(body, bytes)
        self._head = head
        self._status = response.status
        self._size = len(body)
        self._body = body if has_body(request.method, response.status) else b""

    def answer(self, at: float, *, close: bool = False) -> bytes:
        """The whole answer; only when ready, and `done` follows.

        `close` says that the connection ends with it.
        """
        self._request.received_at = at
        for enter in self._enter:
            enter(at)
        return self._head.filled(at, self._date, close=close) + self._body

    def done(self, at: float) -> None:
        """The answer was written."""
        for done in self._done:
            done(at, self._status, self._size)


class Client(Protocol):
    """The connection that a course belongs to, while its request is under way."""

    @property
    def closes(self) -> bool:
        """True when the connection must end with the answer under way."""
        ...

    def pass_interim(self, status: int, headers: CIMultiDict[str]) -> None:
        """Write an interim answer before the one under way."""
        ...

    def forwarded(self, answer: bytes) -> None:
        """Write a whole answer: the request is done."""
        ...

    def go_on(self, request: Request, work: Coroutine[Any, Any, Response]) -> None:
        """Send what comes of this, in a task."""
        ...


class ForwardCourse(Course):
    """Of a request that the upstream answers: a `Sink`.

    An answer whose head came before, with a body of the same length, is sent with the head that was
    made of it then; any other passes what each policy makes of an answer, and is remembered.
    """

    __slots__ = ("_client", "_date", "_forward", "_known", "_now")

    def __init__(
        self,
        server: Listening,
        steps: Sequence[Step],
        request: Request,
        forward: Forward,
        client: Client,
    ) -> None:
        super().__init__(server.chain, steps, request)
        self._forward = forward
        self._client: Client | None = client
        self._now = server.now
        self._date = server.date
        self._known: dict[bytes, _Known] = {}

    def takes(self, raw: bytes) -> bool:
        """As of any course; what differs is forwarded."""
        if self._likeness is None or (changes := self._likeness.changes(raw)) is None:
            return False
        return self._forward.change(changes)

    def start(self, at: float) -> None:
        """Ask the upstream; only when ready. The client is called when there is an answer."""
        self._request.received_at = at
        for enter in self._enter:
            enter(at)
        self._forward.send(self, at)

    def leave(self) -> None:
        """The client is gone."""
        self._client = None
        self._forward.abandon()
        for step in self._steps:
            step.left()

    # --- what comes of it ------------------------------------------------------------------------

    def length_of(self, head: bytes) -> int | None:
        """See `Sink`."""
        known = self._known.get(head)
        return None if known is None else known.length

    def whole(self, head: bytes, body: bytes) -> None:
        """See `Sink`."""
        known = self._known[head]
        at = self._now()
        self._forward.relayed(known.status, body, at)
        client = self._client
        if client is None:
            return
        for done in self._done:
            done(at, known.status, known.length)
        client.forwarded(known.head.filled(at, self._date, close=client.closes) + body)

    def begun(self, exchange: Exchange, head: bytes) -> None:
        """See `Sink`."""
        client = self._client
        if client is None:
            exchange.close()
            return
        self._request.interim = client.pass_interim
        client.go_on(self._request, self._told(self._forward.begun(exchange), head))

    def failed(self, error: UpstreamError, *, answered: bool) -> None:
        """See `Sink`."""
        if self._client is not None:
            attempt = self._forward.failed(error, answered=answered)
            self._client.go_on(self._request, self._told(attempt, b""))

    async def _told(self, attempt: Coroutine[Any, Any, Response], head: bytes) -> Response:
        """The answer as the policies leave it."""
        answer: Answer
        try:
            answer = await attempt
        except GatewayError as error:
            answer = error
        except BaseException:  # it passes on, but not without the access line
            for step in self._steps:
                step.left()
            raise
        told = head and isinstance(answer, Response) and _is_repeatable(answer, head)
        for step in reversed(self._steps):
            answer = await step.leave(answer)
        assert isinstance(answer, Response)
        if told:
            self._learn(head, answer)
        return answer

    def _learn(self, head: bytes, response: Response) -> None:
        made = template(self._steps, self._request, response)
        if made is not None and isinstance(response.body, bytes):
            while len(self._known) >= _MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[head] = _Known(response.status, len(response.body), made)


@dataclass(frozen=True, slots=True)
class _Known:
    """An answer's head of the upstream's: its status and length, and what is sent for it."""

    status: int
    length: int
    head: Template


def _is_repeatable(response: Response, head: bytes) -> bool:
    """True for an answer whose head alone says where it ends, and that its connection goes on."""
    headers, body = response.headers, response.body
    return (
        200 <= response.status < 300
        and response.status not in (204, 205)
        and head.startswith(b"HTTP/1.1 ")
        and isinstance(body, bytes)
        and headers.getall("Content-Length", ()) == [str(len(body))]
        and not _OF_THE_HOP.search(head)
    )


def course(
    server: Listening, request: Request, raw: bytes, response: Response, client: Client
) -> HeldCourse | ForwardCourse | None:
    """The course of requests like this one, which the chain has just answered; None without one.

    `request`, whose head is `raw`, belongs to the course from now on. The answer must not have been
    rendered yet.
    """
    steps = server.chain.steps(request, response)
    if steps is None or not isinstance(response.body, bytes):
        return None
    made: HeldCourse | ForwardCourse
    if isinstance(steps[-1], Forward):
        made = ForwardCourse(server, steps, request, steps[-1], client)
    elif (head := template(steps, request, response)) is not None:
        made = HeldCourse(server, steps, request, response, head)
    else:
        return None
    made.like(raw)
    return made


def _overriding(steps: Sequence[Step], method: str) -> tuple[Callable[..., object], ...]:
    """The bound methods of the steps that have one of their own."""
    return tuple(
        getattr(step, method)
        for step in steps
        if getattr(type(step), method) is not getattr(Step, method)
    )
