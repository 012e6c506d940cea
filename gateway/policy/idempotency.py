"""Idempotent creations: a key sent again gets the same answer, never a second job.

The key is reserved on the disk before the upstream is asked, and its answer is stored before the
client gets it. Whatever happens in between (a crash, a connection that breaks), the key then says
that the job may exist: the gateway does not create it again by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from multidict import CIMultiDict

from gateway.core.contract import CREATE
from gateway.core.error import (
    GatewayError,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    OutcomeUnknown,
    RequestOutstanding,
    StoreUnavailable,
)
from gateway.core.idempotency import (
    HEADER,
    Entry,
    Outcome,
    Repeat,
    Reservation,
    StoredAnswer,
    fingerprint,
    judge_answer,
    judge_failure,
    judge_repeat,
    read_key,
)
from gateway.core.message import Handler, Request, Response
from gateway.policy.step import NOTHING, Step
from gateway.settings.policy import IdempotencyPolicy
from gateway.store.idempotency import IdempotencyStore
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

REPLAYED = "Idempotency-Replayed"
MAX_ANSWER_BYTES = 256 * 1024
_RETRY_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyParts:
    """What outlives a change of the policy file.

    `find_job` gives the id of the job that an owner's request (by its id, since a time) created, if
    the gateway knows one. `lease_seconds` is longer than a creation can take.
    """

    store: IdempotencyStore
    find_job: Callable[[str, str, float], Awaitable[str | None]]
    metrics: Metrics
    now: Callable[[], float]
    token: Callable[[], str]
    max_body: int
    lease_seconds: float
    running: set[asyncio.Task[Response]] = field(default_factory=set)

    async def close(self, within_seconds: float) -> None:
        """Let creations whose clients have left end in time; those that do not are interrupted."""
        if self.running:
            await asyncio.wait(self.running, timeout=within_seconds)
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)


class Idempotency:
    """Answers a repeated creation from the store; the first one runs to its end by itself.

    A client that leaves does not end a creation under its key: the answer is stored, and waits for
    the client's next try.
    """

    def __init__(self, policy: IdempotencyPolicy, parts: IdempotencyParts) -> None:
        self._enabled = policy.enabled
        self._enforced = policy.mode == "enforce"
        self._required = policy.required
        self._retention_seconds = policy.retention
        self._on_store_error = policy.on_store_error
        self._parts = parts
        self._store = parts.store
        self._results = parts.metrics.idempotency_total
        self._running = parts.running
        self._log = get_logger("idempotency")

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """The answer, or the one that was stored.

        Raises IdempotencyKeyMissing, IdempotencyKeyReused, RequestOutstanding or OutcomeUnknown;
        InvalidRequest for a key that is none, StoreUnavailable where policy says so.
        """
        if not self._enabled or request.match.name != CREATE:
            return await call_next(request)
        try:
            held = await self._reserve(request)
        except GatewayError as error:
            if self._enforced:
                raise
            self._shadow(request, error)
            return await call_next(request)
        if isinstance(held, Response):
            return held if self._enforced else await call_next(request)
        if held is None:
            return await call_next(request)
        task = asyncio.create_task(self._carry_out(request, call_next, held))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def step(self, request: Request, response: Response) -> Step | None:  # noqa: ARG002
        """Nothing for what is no creation."""
        return None if request.match.name == CREATE else NOTHING

    def explain(self, request: Request) -> str:
        """What it would decide and why, in a sentence; the store is not asked."""
        if not self._enabled:
            return "switched off"
        if request.match.name != CREATE:
            return "not asked: only creations have idempotency keys"
        given = request.headers.getall(HEADER, ())
        shadow = "" if self._enforced else " (shadow: let through)"
        if not given:
            return f"400 idempotency-key-missing{shadow}" if self._required else "passed: no key"
        try:
            read_key(given)
        except GatewayError as error:
            return f"{error.status} {error.slug}{shadow}"
        return f"the first answer within {self._retention_seconds:g} s is given again{shadow}"

    async def _reserve(self, request: Request) -> Reservation | Response | None:
        """The reservation that is now this request's, the answer known, or None without a key."""
        given = request.headers.getall(HEADER, ())
        if not given:
            if self._required:
                self._results.labels("missing").inc()
                raise IdempotencyKeyMissing(
                    f"A creation needs the header {HEADER}: a value of your own, new for each job "
                    "and the same when you try again."
                )
            return None
        wanted = await self._wanted(request, read_key(given))
        try:
            entry = await self._store.begin(wanted, self._parts.now())
        except StoreUnavailable as error:
            self._parts.metrics.store_errors_total.labels("idempotency").inc()
            self._log.warning("idempotency_away", error=error.detail, result=self._on_store_error)
            if self._on_store_error == "deny":
                raise
            return None
        if entry is None:
            self._note(request, "first")
            return wanted
        return await self._repeated(request, entry, wanted)

    async def _wanted(self, request: Request, key: str) -> Reservation:
        body = await request.body.read(self._parts.max_body)
        kind = request.headers.get("Content-Type", "")
        now = self._parts.now()
        return Reservation(
            scope=request.owner,
            key=key,
            fingerprint=fingerprint(request.method, request.target, kind, body),
            token=self._parts.token(),
            request_id=request.request_id,
            started_at=now,
            lease_until=now + self._parts.lease_seconds,
            expires_at=now + self._retention_seconds,
        )

    async def _repeated(self, request: Request, entry: Entry, wanted: Reservation) -> Response:
        """The stored answer; raises what else the repeated key means."""
        repeat = judge_repeat(entry, wanted, self._parts.now())
        self._note(request, repeat)
        match repeat:
            case Repeat.REPLAYED:
                assert entry.answer is not None
                headers = CIMultiDict(entry.answer.headers)
                headers[REPLAYED] = "true"
                return Response(entry.answer.status, headers, entry.answer.body)
            case Repeat.REUSED:
                raise IdempotencyKeyReused(
                    f"This {HEADER} stood for another request before; use a new one for this."
                )
            case Repeat.OUTSTANDING:
                raise RequestOutstanding(
                    f"The first request with this {HEADER} is still under way; ask again shortly.",
                    headers={"Retry-After": str(_RETRY_SECONDS)},
                )
            case Repeat.UNKNOWN:
                raise await self._unknown(entry.reservation)

    async def _unknown(self, first: Reservation) -> OutcomeUnknown:
        job_id = None
        try:
            job_id = await self._parts.find_job(first.scope, first.request_id, first.started_at)
        except StoreUnavailable:
            self._parts.metrics.store_errors_total.labels("idempotency").inc()
        if job_id is not None:
            return OutcomeUnknown(
                f"The first request with this {HEADER} created the job {job_id}, but its answer "
                "was lost; go on with that job.",
                extra={"job_id": job_id},
            )
        return OutcomeUnknown(
            f"The first request with this {HEADER} was interrupted, and its job may exist. Look "
            f"for it; if it is not there, create it with a new {HEADER}."
        )

    async def _carry_out(self, request: Request, call_next: Handler, held: Reservation) -> Response:
        try:
            response = await call_next(request)
        except BaseException as error:
            await self._settle(held, judge_failure(error))
            raise
        if not isinstance(response.body, bytes) or len(response.body) > MAX_ANSWER_BYTES:
            await self._settle(held, Outcome.UNKNOWN)  # too large to be given again
            return response
        answer = StoredAnswer(response.status, tuple(response.headers.items()), response.body)
        await self._settle(held, judge_answer(response.status), answer)
        return response

    async def _settle(
        self, held: Reservation, outcome: Outcome, answer: StoredAnswer | None = None
    ) -> None:
        """Write down how it ended. What cannot be written stays open, and then unknown."""
        work: Coroutine[Any, Any, bool]
        if outcome is Outcome.KEPT and answer is not None:
            work = self._store.finish(held, answer)
        elif outcome is Outcome.FREED:
            work = self._store.free(held)
        else:
            work = self._store.interrupt(held)
        try:
            await work
        except StoreUnavailable as error:
            self._parts.metrics.store_errors_total.labels("idempotency").inc()
            self._log.error(
                "idempotency_not_settled",
                outcome=outcome,
                request_id=held.request_id,
                error=error.detail,
            )

    def _ended(self, task: asyncio.Task[Response]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits has it; if nobody does, it was settled

    def _note(self, request: Request, result: str) -> None:
        request.fields["idempotency"] = result
        self._results.labels(result).inc()

    def _shadow(self, request: Request, error: GatewayError) -> None:
        self._log.info(
            "idempotency_shadow",
            problem=error.slug,
            client=request.client,
            **request.ids,
        )
