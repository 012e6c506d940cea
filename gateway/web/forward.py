"""What the proxy does again for a request that came before."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from gateway.core.error import UpstreamError
from gateway.core.message import Request, Response
from gateway.policy.step import Step
from gateway.telemetry.metric import DurationTally
from gateway.upstream.client import Connection, Exchange, Expected, Sink, UpstreamClient

if TYPE_CHECKING:
    from gateway.web.proxy import Proxy


class Forward(Step):
    """The upstream is asked the same; its answer comes by a `Sink`."""

    __slots__ = (
        "_after",
        "_before",
        "_client",
        "_connection",
        "_durations",
        "_expected",
        "_head",
        "_is_seen",
        "_proxy",
        "_request",
        "_since",
    )
    answers = True
    # All else is forwarded as it is, or told apart by `change`.
    reads = frozenset({"traceparent", "tracestate"})

    def __init__(
        self,
        proxy: Proxy,
        client: UpstreamClient,
        request: Request,
        head: tuple[bytes, bytes],
        expected: Expected,
        durations: DurationTally,
        *,
        is_seen: bool,
    ) -> None:
        """`head` is what stands before and after the request's id.

        `durations` are those of answers 2xx; `is_seen` says that the job shows in them.
        """
        self._durations = durations
        self._is_seen = is_seen
        self._proxy = proxy
        self._client = client
        self._request = request
        self._before, self._after = head
        self._expected = expected
        self._connection: Connection | None = None
        self._head = b""
        self._since = 0.0

    def change(self, changes: Sequence[tuple[bytes, bytes]]) -> bool:
        """Forward other values of these lines of the head; False where one is not forwarded so."""
        before, after = self._before, self._after
        for known, line in changes:
            old, new = _forwarded(known), _forwarded(line)
            if before.count(old) + after.count(old) != 1:
                return False
            before, after = before.replace(old, new), after.replace(old, new)
        self._before, self._after = before, after
        return True

    def is_ready(self, at: float) -> bool:  # noqa: ARG002 - connections have no time here
        """True with a connection at hand, which is taken: it is asked last, and `send` follows."""
        self._connection = self._client.at_hand()
        return self._connection is not None

    def send(self, sink: Sink, at: float) -> None:
        """Ask."""
        assert self._connection is not None
        self._since = at
        self._head = self._before + self._request.request_id.encode() + self._after
        self._client.relay(self._connection, self._head, self._expected, sink)

    def relayed(self, status: int, body: bytes, at: float) -> None:
        """The answer, a 2xx, came whole, and will be sent as one that came before."""
        self._client.relayed()
        seconds = at - self._since
        self._durations.observe(max(0.0, seconds))
        if self._is_seen:
            self._proxy.seen(self._request, status, body, self._since)

    def begun(self, exchange: Exchange) -> Coroutine[Any, Any, Response]:
        """The answer, where it is another. Raises `UpstreamError`."""
        assert self._connection is not None
        attempt = self._client.begun(self._connection, exchange)
        return self._proxy.concluded(self._request, attempt, self._since)

    def failed(self, error: UpstreamError, *, answered: bool) -> Coroutine[Any, Any, Response]:
        """The answer of a second try, where one is safe. Raises `UpstreamError`."""
        attempt = self._client.resend(self._head, self._expected, error, answered=answered)
        return self._proxy.concluded(self._request, attempt, self._since)

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        if self._connection is not None:
            self._connection.abort()


def _forwarded(line: bytes) -> bytes:
    """A field's line as it stands in a forwarded head, and nothing else can."""
    name, _, value = line.partition(b":")
    return b"\n" + name + b": " + value.strip(b" \t") + b"\r"
