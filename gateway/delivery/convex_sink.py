"""Convex as a sink of the outbox: durable, ordered per job, coalesced, and never given up on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from gateway.core.outbox import DeliveryStatus, Message
from gateway.core.retry import ErrorKind, Outcome, Schedule, parse_retry_after
from gateway.delivery.convex import (
    ConvexClient,
    ConvexConfigurationError,
    ConvexError,
    ConvexFunctionError,
    ConvexNotDeployed,
)
from gateway.delivery.header import trace_headers
from gateway.settings.delivery import Convex

SINK = "convex"
DESTINATION = "convex"
CONFIGURATION_RETRY_SECONDS = 60.0
DOUBTFUL_TRIES = 4  # of a call that may fare better once: a deployment under way, a hidden cause
_DOUBTS = 1000  # counted at once; of more, the oldest begin anew
_FALLBACK_DELAY_SECONDS = 60.0
_MARGIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ConvexFault:
    """What the deployment last failed with; `at` is epoch seconds."""

    kind: ErrorKind
    detail: str
    at: float


class ConvexSink:
    """Runs the mutation that a message's kind names (a field of `convex.functions`) with its body.

    A function's refusal ends the message, and so does a function that stays missing: other calls
    of the job must go on. Ended messages are dead letters, which can be replayed. Everything else
    is tried again without end, since Convex being away, or its key being wrong, must cost no state:
    what waits is one update a job. `last_fault` (None after a success) and `last_success_at` are
    for health.
    """

    def __init__(self, client: ConvexClient, settings: Convex, *, now: Callable[[], float]) -> None:
        self._client = client
        self._settings = settings
        self._now = now
        # How often each message met such a cause: its attempts count outages too.
        self._doubts: dict[str, int] = {}
        self.last_fault: ConvexFault | None = None
        self.last_success_at: float | None = None

    @property
    def name(self) -> str:
        """What `Message.sink` calls it."""
        return SINK

    @property
    def concurrency(self) -> int:
        """How many mutations may be in flight."""
        return self._settings.concurrency

    @property
    def per_destination(self) -> int:
        """As many: there is one deployment."""
        return self._settings.concurrency

    @property
    def deadline_seconds(self) -> float:
        """The longest one attempt can take."""
        return self._settings.timeout + _MARGIN_SECONDS

    @property
    def last_error(self) -> str | None:
        """What is wrong now, in a line; None when the last mutation went through."""
        fault = self.last_fault
        return None if fault is None else f"{fault.kind}: {fault.detail}"

    async def start(self) -> None:
        """Open the client's connections."""
        await self._client.start()

    async def close(self) -> None:
        """Close them."""
        await self._client.close()

    async def schedule(self, message: Message) -> Schedule:
        """The setting's delays, the last one repeated for ever."""
        delays = tuple(self._settings.retry_delays) or (_FALLBACK_DELAY_SECONDS,)
        return Schedule(delays + delays[-1:] * (message.attempt - len(delays)))

    async def send(self, message: Message) -> Outcome:
        """Make one attempt; every failure is an outcome."""
        if getattr(self._settings.functions, message.kind, None) is None:
            return Outcome(
                0.0,
                ErrorKind.CONFIGURATION,
                detail=f"convex.functions.{message.kind} is null",
                permanent=True,
                final_status=DeliveryStatus.SKIPPED,
            )
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            await self._client.mutate(
                message.kind, orjson.loads(message.body), trace_headers(message)
            )
        except ConvexError as error:
            return self._failed(message, error, loop.time() - started)
        self._doubts.pop(message.id, None)
        self.last_fault = None
        self.last_success_at = self._now()
        return Outcome(loop.time() - started, status_code=200)

    async def settled(self, message: Message, outcome: Outcome) -> None:
        """Nothing is counted per destination: there is one."""

    def _failed(self, message: Message, error: ConvexError, duration_seconds: float) -> Outcome:
        now = self._now()
        if not isinstance(error, ConvexFunctionError):  # a refusal says that the deployment is well
            self.last_fault = ConvexFault(error.kind, error.line, now)
        wait = None
        if isinstance(error, ConvexConfigurationError):
            wait = CONFIGURATION_RETRY_SECONDS
        elif error.retry_after is not None:
            wait = parse_retry_after(error.retry_after, now)
        return Outcome(
            duration_seconds,
            error.kind,
            error.status_code,
            error.line,
            retry_after_seconds=wait,
            permanent=self._is_final(message, error),
        )

    def _is_final(self, message: Message, error: ConvexError) -> bool:
        """Whether to give up."""
        if isinstance(error, ConvexFunctionError) and error.certain:
            return True
        if not isinstance(error, ConvexFunctionError | ConvexNotDeployed):
            return False
        doubts = self._doubts.pop(message.id, 0) + 1
        if doubts >= DOUBTFUL_TRIES:
            return True
        while len(self._doubts) >= _DOUBTS:
            del self._doubts[next(iter(self._doubts))]
        self._doubts[message.id] = doubts
        return False
