"""A request that came before, byte for byte, on one connection: its course through the policies.

Most requests to a job API are polls, and a client that polls sends the same head each time. What
the policies found out about it holds until something changes, and each policy says what (`Step`).
While nothing has, a request is answered by the steps alone: no parsing, no coroutines, and the
answer's head is the one that was sent before, with what varies put in its place. Whatever a step is
not sure of goes through the chain, which alone decides what the policies are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from multidict import CIMultiDict, istr

from gateway.core.message import Request, Response
from gateway.policy.chain import Chain
from gateway.policy.step import Step
from gateway.web.wire import has_body, render_head

_DATE = istr("Date")
_CLOSE = b"Connection: close\r\n\r\n"
_GAP = "\0"  # no field can hold it


class Course:
    """What is done for one connection's repeated request, by the steps of `chain`."""

    __slots__ = (
        "_body",
        "_done",
        "_enter",
        "_head",
        "_ready",
        "_request",
        "_size",
        "_status",
        "chain",
    )

    def __init__(
        self,
        chain: Chain,
        steps: Sequence[Step],
        request: Request,
        response: Response,
        head: Template,
    ) -> None:
        body = response.body
        assert isinstance(body, bytes)
        self.chain = chain
        self._request = request
        self._ready = _overriding(steps, "is_ready")
        self._enter = _overriding(steps, "enter")
        self._done = _overriding(steps, "done")
        self._head = head
        self._status = response.status
        self._size = len(body)
        self._body = body if has_body(request.method, response.status) else b""

    def is_ready(self, at: float) -> bool:
        """True when every policy would do as before, at `at` (epoch seconds)."""
        for ready in self._ready:  # noqa: SIM110 - a generator costs as much as some of the steps
            if not ready(at):
                return False
        return True

    def answer(self, at: float, date: str, *, close: bool = False) -> bytes:
        """The whole answer; only when ready. `date` is now's, `done` follows.

        `close` says that the connection ends with it.
        """
        self._request.received_at = at
        for enter in self._enter:
            enter(at)
        head = self._head.filled(date)
        if close:
            head = head[:-2] + _CLOSE
        return head + self._body

    def done(self, at: float) -> None:
        """The answer was written."""
        for done in self._done:
            done(at, self._status, self._size)


class Template:
    """An answer's head with gaps for what varies."""

    __slots__ = ("_has_date", "_text", "_values")

    def __init__(self, text: str, values: Sequence[Callable[[], str]], *, has_date: bool) -> None:
        self._text = text
        self._values = tuple(values)
        self._has_date = has_date

    def filled(self, date: str) -> bytes:
        """The head as it is now."""
        values = [value() for value in self._values]
        if not self._has_date:
            values.append(date)
        return (self._text % tuple(values)).encode("utf-8", "surrogateescape")


def course(chain: Chain, request: Request, response: Response) -> Course | None:
    """The course of requests like this one, which the chain has just answered; None without one.

    `request` belongs to the course from now on. The answer must not have been rendered yet.
    """
    steps = chain.steps(request, response)
    if steps is None or not isinstance(response.body, bytes):
        return None
    head = _template(steps, request, response)
    return None if head is None else Course(chain, steps, request, response, head)


def _template(steps: Sequence[Step], request: Request, response: Response) -> Template | None:
    varying: dict[str, list[Callable[[], str]]] = {}
    headers = CIMultiDict(response.headers)
    for step in steps:
        for name, value in step.varying.items():
            varying.setdefault(name.lower(), []).append(value)
            if len(headers.getall(name, ())) != 1:
                return None
            headers[name] = _GAP
    has_date = _DATE in headers
    if not has_date:
        headers[_DATE] = _GAP
    marked = Response(response.status, headers, response.body, response.reason)
    text = render_head(request.method, marked, "", close=False).decode("utf-8", "surrogateescape")
    # In the order of the gaps: that of the fields, the date's last.
    values = [_joined(varying[each]) for name in headers if (each := name.lower()) in varying]
    return Template(text.replace("%", "%%").replace(_GAP, "%s"), values, has_date=has_date)


def _joined(values: Sequence[Callable[[], str]]) -> Callable[[], str]:
    if len(values) == 1:
        return values[0]
    return lambda: ", ".join([value() for value in values])


def _overriding(steps: Sequence[Step], method: str) -> tuple[Callable[..., object], ...]:
    """The bound methods of the steps that have one of their own."""
    return tuple(
        getattr(step, method)
        for step in steps
        if getattr(type(step), method) is not getattr(Step, method)
    )
