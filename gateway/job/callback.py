"""Callbacks that a creation asks for: checked before the job exists, webhooks once it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.address import AddressRule
from gateway.core.audit import Change, change_entry
from gateway.core.contract import Contract
from gateway.core.identifier import derived
from gateway.core.job import Job
from gateway.core.message import Request
from gateway.core.subscription import read_events, read_url, url_fault
from gateway.core.violation import Violations, json_type
from gateway.core.webhook import ALL_EVENTS, Webhook
from gateway.store.webhook import WebhookStore

HEADER = "X-Webhook-Url"
MAX_URLS = 10
_NO_SECRET = "cannot be honoured: the operator has set no webhooks.secret_key to sign it with"  # noqa: S105 - a sentence


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where a creation wants its job's events sent, and which; no events means all."""

    urls: tuple[str, ...] = ()
    events: tuple[str, ...] = ()


class Callbacks:
    """Reads callbacks out of creations, and makes webhooks of them.

    `secret_key` signs them all; without one a creation that asks for a callback is refused.
    """

    def __init__(
        self,
        webhooks: WebhookStore,
        rule: AddressRule,
        secret_key: str | None,
        now: Callable[[], float],
    ) -> None:
        self._webhooks = webhooks
        self._rule = rule
        self._secret_key = secret_key if secret_key and secret_key.strip() else None
        self._now = now

    def extract(self, request: Request, document: Any, contract: Contract) -> Wanted:
        """What a creation asks for.

        Read are the contract's `callback_url`, `webhook_urls` and `webhook_events` of its JSON
        body, and every `X-Webhook-Url` header. Raises `UnprocessableContent` naming every field
        that breaks a rule.
        """
        violations = Violations()
        body = document if isinstance(document, Mapping) else {}
        callback_url = contract.callback_url(document, request.match.route.template)
        urls = [
            *self._callback_url(callback_url, body.get("callback_url"), violations),
            *self._webhook_urls(body.get("webhook_urls"), violations),
            *self._headers(request.headers.getall(HEADER, []), violations),
        ]
        wanted = Wanted(tuple(dict.fromkeys(urls)), _events(body, urls, violations))
        if len(wanted.urls) > MAX_URLS:
            detail = f"with callback_url and {HEADER} name more than {MAX_URLS} receivers"
            violations.add(detail, "webhook_urls")
        violations.raise_any()
        return wanted

    async def prepare(self, job: Job) -> None:
        """Store a new job's webhooks before its first event; made again, they are the same."""
        for webhook in self.webhooks_of(job):
            entry = change_entry(Change.CREATED, webhook, webhook.created_at, job_id=job.id)
            await self._webhooks.add(webhook, entry)

    def webhooks_of(self, job: Job) -> tuple[Webhook, ...]:
        """The webhooks that a job's creation asked for; they belong to whoever created it."""
        if self._secret_key is None:
            return ()
        now = self._now()
        return tuple(
            Webhook(
                id=derived("wh_", job.created_at, job.id, url),
                owner=job.owner,
                url=url,
                secret=self._secret_key,
                created_at=now,
                updated_at=now,
                events=job.webhook_events or (ALL_EVENTS,),
                job_id=job.id,
            )
            for url in job.webhook_urls
        )

    def _callback_url(self, url: str | None, raw: object, violations: Violations) -> Iterator[str]:
        if url is not None:
            yield self._url(url, violations, "callback_url")
        elif raw is not None and raw != "":
            violations.add(f"must be a string, not {json_type(raw)}", "callback_url")

    def _webhook_urls(self, value: object, violations: Violations) -> Iterator[str]:
        if value is None:
            return
        if not isinstance(value, list):
            violations.add(f"must be an array of URLs, not {json_type(value)}", "webhook_urls")
        elif len(value) > MAX_URLS:
            detail = f"names {len(value)} receivers; a job may have {MAX_URLS}"
            violations.add(detail, "webhook_urls")
        else:
            for index, url in enumerate(value):
                yield self._url(url, violations, "webhook_urls", index)

    def _headers(self, values: list[str], violations: Violations) -> Iterator[str]:
        for url in values:
            if detail := url_fault(url, self._rule) or self._unsigned():
                violations.add_header(detail, HEADER)
            yield url

    def _url(self, value: object, violations: Violations, *path: str | int) -> str:
        url = read_url(value, self._rule, violations, *path)
        if detail := self._unsigned():
            violations.add(detail, *path)
        return url

    def _unsigned(self) -> str | None:
        return _NO_SECRET if self._secret_key is None else None


def _events(body: Mapping[str, Any], urls: list[str], violations: Violations) -> tuple[str, ...]:
    value = body.get("webhook_events")
    if value is None:
        return ()
    if not urls:
        violations.add("is given without webhook_urls to send the events to", "webhook_events")
    return read_events(value, violations, "webhook_events")
