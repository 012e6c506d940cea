"""Signed POSTs to webhooks, by Standard Webhooks (github.com/standard-webhooks/standard-webhooks).

What a receiver answers is not trusted: no redirect is followed, nothing decompressed, no cookie
kept, and at most `RESPONSE_READ_BYTES` of a body are read, of which `RESPONSE_KEPT_BYTES` reach the
log.
"""

from __future__ import annotations

import asyncio
import io
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from gateway.core.address import AddressRule, ParsedUrl, check_url
from gateway.core.audit import Change, change_entry
from gateway.core.job import EventType
from gateway.core.outbox import DeliveryStatus, Message
from gateway.core.retry import ErrorKind, Outcome, Schedule, parse_retry_after
from gateway.core.signature import secret_key
from gateway.core.webhook import (
    MIN_PER_SECOND,
    DisableRule,
    Webhook,
    WebhookStatus,
    dead_reason,
)
from gateway.delivery.failure import EXCHANGE_ERRORS, describe, error_kind
from gateway.delivery.guard import guarded_connector, judging
from gateway.delivery.header import delivery_headers
from gateway.delivery.pacer import Pacer
from gateway.settings.delivery import Webhooks
from gateway.store.webhook import WebhookStore
from gateway.telemetry.log import get_logger

SINK = "webhook"
RESPONSE_KEPT_BYTES = 16 * 1024
RESPONSE_READ_BYTES = 1024 * 1024
PROGRESS_RETRIES = 1
SUCCESS_PRECISION_SECONDS = 1.0  # of `last_success_at`: not every delivery rewrites its webhook
GONE_REASON = "The receiver answered 410 Gone."

Publish = Callable[[Webhook, bool], Awaitable[None]]


@dataclass(slots=True)
class _Answer:
    """What has come of a response so far."""

    status: int | None = None
    retry_after: str | None = None
    body: bytearray = field(default_factory=bytearray)
    is_too_large: bool = False

    @property
    def succeeded(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def excerpt(self) -> str:
        return self.body.decode("utf-8", "replace")


class WebhookSink:
    """Delivers messages whose destination is a webhook's id.

    Success is a 2xx whose body is complete within the timeout. `now` gives epoch seconds, `wall`
    those that receivers hold signatures against; `publish(webhook, deleted)` hears of a webhook
    that was disabled here.
    """

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        store: WebhookStore,
        settings: Webhooks,
        rule: AddressRule,
        *,
        now: Callable[[], float],
        wall: Callable[[], float] | None = None,
        publish: Publish | None = None,
        tls: ssl.SSLContext | None = None,
        resolver: aiohttp.abc.AbstractResolver | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._rule = rule
        self._now = now
        self._wall = wall
        self._publish = publish
        self._tls = tls
        self._resolver = resolver
        self._disable_rule = DisableRule(settings.disable_after, settings.disable_exhausted)
        self._pacer = Pacer(time.monotonic, asyncio.sleep)
        self._session: aiohttp.ClientSession | None = None
        self._log = get_logger("delivery")

    @property
    def name(self) -> str:
        """What `Message.sink` calls it."""
        return SINK

    @property
    def concurrency(self) -> int:
        """How many messages may be in flight over all webhooks."""
        return self._settings.concurrency

    @property
    def per_destination(self) -> int:
        """How many messages may be in flight to one webhook."""
        return self._settings.per_endpoint

    @property
    def deadline_seconds(self) -> float:
        """The longest one attempt can take."""
        waiting = self._settings.per_endpoint / MIN_PER_SECOND
        return self._settings.max_timeout + waiting

    async def start(self) -> None:
        """Open the connection pool."""
        self._session = aiohttp.ClientSession(
            connector=guarded_connector(self._rule, tls=self._tls, resolver=self._resolver),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # see _exchange
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection; harmless when it was never started."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def schedule(self, message: Message) -> Schedule:
        """The setting's delays, as many as the webhook wants; progress is tried twice at most.

        Raises StoreUnavailable.
        """
        webhook = await self._store.get(message.destination)
        retries = self._settings.max_retries
        if webhook is not None and webhook.max_retries is not None:
            retries = webhook.max_retries
        if message.kind == EventType.PROGRESS:
            retries = min(retries, PROGRESS_RETRIES)
        return Schedule(self._settings.retry_delays[:retries])

    async def send(self, message: Message) -> Outcome:
        """Make one attempt. Raises StoreUnavailable when the webhook cannot be looked up."""
        webhook = await self._store.get(message.destination)
        if webhook is None:
            return _ended(DeliveryStatus.CANCELLED, "the webhook was deleted")
        if webhook.status is not WebhookStatus.ACTIVE:
            return _ended(DeliveryStatus.SKIPPED, f"the webhook is {webhook.status}")
        try:
            url = check_url(webhook.url, self._rule)
        except ValueError as error:
            return Outcome(0.0, ErrorKind.BLOCKED_ADDRESS, detail=f"url {error}")
        await self._pacer.turn(webhook.id, webhook.max_per_second)
        now = self._now()
        try:
            keys = [secret_key(secret) for secret in _secrets(webhook, now)]
        except ValueError as error:
            return Outcome(0.0, ErrorKind.CONFIGURATION, detail=str(error), permanent=True)
        signed_at = now if self._wall is None else self._wall()
        headers = delivery_headers(webhook.headers, message, keys, int(signed_at))
        timeout = webhook.timeout_seconds or self._settings.timeout
        return await self._exchange(
            url, headers, message.body, min(timeout, self._settings.max_timeout)
        )

    async def settled(self, message: Message, outcome: Outcome) -> None:
        """Count the outcome for the webhook, and disable it when a 410 or its count says so.

        Raises StoreUnavailable.
        """
        if outcome.final_status is not DeliveryStatus.EXHAUSTED:
            return  # nothing was sent
        now = self._now()
        if outcome.ok and await self._is_well(message.destination, now):
            return
        webhook = await self._store.note_outcome(
            message.destination, outcome.ok, now, exhausted=message.status.final
        )
        if webhook is None or outcome.ok or webhook.status is not WebhookStatus.ACTIVE:
            return
        reason = GONE_REASON if outcome.gone else dead_reason(webhook, self._disable_rule, now)
        if reason is not None:
            await self._disable(webhook, reason, now)

    async def _is_well(self, webhook_id: str, now: float) -> bool:
        """True when one more success says nothing new, but for a fraction of a second."""
        webhook = await self._store.get(webhook_id)
        if webhook is None or webhook.consecutive_failures or webhook.last_success_at is None:
            return False
        return now - webhook.last_success_at < SUCCESS_PRECISION_SECONDS

    async def _disable(self, webhook: Webhook, reason: str, now: float) -> None:
        disabled = replace(webhook, status=WebhookStatus.DISABLED, disabled_reason=reason)
        entry = change_entry(Change.DISABLED, disabled, now, reason=reason)
        if not await self._store.disable(webhook.id, reason, now, entry):
            return  # another attempt was faster
        self._log.warning("webhook_disabled", webhook_id=webhook.id, reason=reason)
        stored = await self._store.get(webhook.id)
        if self._publish is not None and stored is not None:
            await self._publish(stored, False)

    async def _exchange(
        self, url: ParsedUrl, headers: CIMultiDict[str], body: bytes, timeout_seconds: float
    ) -> Outcome:
        loop = asyncio.get_running_loop()
        started = loop.time()
        answer = _Answer()
        kind, detail = None, ""
        with judging() as judgement:
            try:
                # One deadline over name, connection, request and body: dripping gains no time.
                async with asyncio.timeout(timeout_seconds):
                    await self._post(url, headers, body, answer)
            except EXCHANGE_ERRORS as error:
                kind, detail = error_kind(error), describe(error)
                if kind is ErrorKind.TIMEOUT:
                    detail = f"no complete answer within {timeout_seconds:g} s"
                elif judgement.is_blocked:
                    kind, detail = ErrorKind.BLOCKED_ADDRESS, judgement.detail
        return self._judge(answer, kind, detail, loop.time() - started)

    async def _post(
        self, url: ParsedUrl, headers: CIMultiDict[str], body: bytes, answer: _Answer
    ) -> None:
        assert self._session is not None, "start() comes first"
        async with self._session.post(
            URL(url.url, encoded=True),
            data=io.BytesIO(body),
            headers=headers,
            allow_redirects=False,
        ) as response:
            answer.status = response.status
            answer.retry_after = response.headers.get("Retry-After")
            # A failure's body only serves the log; a success must be complete.
            limit = RESPONSE_READ_BYTES if answer.succeeded else RESPONSE_KEPT_BYTES
            received = 0
            async for chunk in response.content.iter_any():
                received += len(chunk)
                answer.body += chunk[: RESPONSE_KEPT_BYTES - len(answer.body)]
                if received > limit:
                    answer.is_too_large = True
                    return

    def _judge(
        self, answer: _Answer, kind: ErrorKind | None, detail: str, duration_seconds: float
    ) -> Outcome:
        """The outcome; a status that says failure counts even when its body did not end well."""
        retry_after = None
        if answer.status is not None and not answer.succeeded:
            kind, detail = ErrorKind.HTTP_STATUS, f"answered {answer.status}"
            if answer.retry_after is not None:
                retry_after = parse_retry_after(answer.retry_after, self._now())
        elif kind is None and answer.is_too_large:
            kind = ErrorKind.RESPONSE_TOO_LARGE
            detail = f"the response is larger than {RESPONSE_READ_BYTES} bytes"
        return Outcome(
            duration_seconds,
            kind,
            answer.status,
            detail,
            answer.excerpt,
            retry_after,
            gone=answer.status == 410,
        )


def _secrets(webhook: Webhook, now: float) -> list[str]:
    """What signs now: the secret, and the one before it until its overlap ends."""
    expires_at = webhook.previous_secret_expires_at
    if webhook.previous_secret is None or expires_at is None or expires_at <= now:
        return [webhook.secret]
    return [webhook.secret, webhook.previous_secret]


def _ended(status: DeliveryStatus, detail: str) -> Outcome:
    return Outcome(0.0, ErrorKind.REJECTED, detail=detail, permanent=True, final_status=status)
