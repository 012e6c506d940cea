"""What clients meet: the listener, the chain of policies, and who answers at its end."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from http import HTTPStatus

from yarl import URL

from gateway.app.behind import Behind
from gateway.app.place import open_places
from gateway.app.status import Statuses
from gateway.app.store import Stores
from gateway.core.contract import STATUS, Contract, Unreadable, decode
from gateway.core.error import UpstreamError
from gateway.core.forwarded import TrustedProxies
from gateway.core.host import HostRule
from gateway.core.job import State
from gateway.core.message import Handler, Request, Response
from gateway.core.ticket import derive_secret
from gateway.policy.admission import Admission
from gateway.policy.build import Parts, build
from gateway.policy.cache import ResponseCache
from gateway.policy.idempotency import IdempotencyParts
from gateway.policy.key_source import KeySource
from gateway.policy.long_poll import LongPoll
from gateway.policy.openapi_source import MAX_BYTES, OpenApiSource
from gateway.policy.security_headers import SecurityHeaders
from gateway.policy.shared_window import SharedWindows
from gateway.policy.step import Step
from gateway.policy.ticket import Tickets
from gateway.policy.waiter import Waiters
from gateway.settings.contract import (
    EVENTS,
    HEALTH,
    HISTORY,
    METRICS,
    TICKET,
    WEBHOOKS,
    route_table,
)
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet
from gateway.store.job import JobQuery, JobStore
from gateway.telemetry.access import WriteLine
from gateway.telemetry.metric import Metrics
from gateway.telemetry.trace import Tracer
from gateway.upstream.client import UpstreamClient
from gateway.web.adapt import Adapter
from gateway.web.jobs import JobApi
from gateway.web.problem import ProblemBoundary
from gateway.web.proxy import Proxy
from gateway.web.server import PublicServer
from gateway.web.stream import FanOut
from gateway.web.ticket import TicketApi
from gateway.web.webhooks import WebhookApi

_LEASE_MARGIN_SECONDS = 10.0
_CLOCK_SECONDS = 1.0  # a job is dated when its creation was answered, by the same clock
OPENAPI_SECONDS = 10.0


class Front:
    """The public side of one process."""

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        settings: Settings,
        policies: PolicySet,
        *,
        stores: Stores,
        contract: Contract,
        client: UpstreamClient,
        behind: Behind,
        metrics: Metrics,
        health: Handler,
        exposition: Handler,
        write_line: WriteLine,
        now: Callable[[], float],
        tracer: Tracer | None,
    ) -> None:
        self._contract = contract
        self._metrics = metrics
        self.now = now
        self._routes = route_table(settings, contract)
        self._proxy = Proxy(
            client=client,
            upstream_url=settings.upstream.url,
            contract=contract,
            tracker=behind.tracker,
            observer=behind.observer,
            callbacks=behind.callbacks,
            fan_out=FanOut(behind.broadcasts) if settings.jobs.fan_out.enabled else None,
            metrics=metrics,
            max_body=settings.server.max_body,
            now=now,
        )
        self.policies = policies
        self.keys = KeySource(stores.keys, metrics, now)
        self.tickets = _tickets(settings, now)
        self.cache = ResponseCache(
            policies.cache,
            store=stores.responses,
            state_of=self._state_of,
            is_watched=behind.tracker.is_active,
            route_of=self._routes.match,
            metrics=metrics,
            now=now,
        )
        if stores.tiers is not None:
            stores.tiers.listeners.append(self.cache.outdate)
        self.waiters = Waiters(metrics)
        self.long_poll = LongPoll(
            policies.cache,
            cache=self.cache,
            waiters=self.waiters,
            is_active=behind.tracker.is_active,
            metrics=metrics,
            now=now,
        )
        self.statuses = Statuses(
            cache=self.cache,
            upstream=self._proxy,
            contract=contract,
            routes=self._routes,
            host=URL(settings.upstream.url).authority,
            policy=lambda: self.policies.cache,
            now=now,
        )
        self.idempotency = IdempotencyParts(
            store=stores.idempotency,
            find_job=partial(_find_job, stores.jobs),
            metrics=metrics,
            now=now,
            token=partial(secrets.token_hex, 16),
            max_body=settings.server.max_body,
            lease_seconds=2 * settings.upstream.response_timeout + _LEASE_MARGIN_SECONDS,
        )
        self.places = open_places(
            settings,
            stores.places,
            behind.tracker,
            creation_lease_seconds=self.idempotency.lease_seconds,
            metrics=metrics,
            now=now,
        )
        admission = Admission(settings.jobs.admission, self.places, behind.tracker, metrics, now)
        self.openapi = OpenApiSource(self._ask_upstream)
        self.openapi.apply(policies.validation.openapi, policies.documents)
        self._client = client
        self.parts = Parts(
            windows=SharedWindows(stores.windows, stores.local_windows, metrics, now),
            keys=self.keys,
            tickets=self.tickets,
            boundary=ProblemBoundary(),
            idempotency=self.idempotency,
            admission=admission,
            long_poll=self.long_poll,
            cache=self.cache,
            find=self._routes.match,
            openapi=self.openapi,
            metrics=metrics,
            now=now,
            request_id_prefix=f"{secrets.token_hex(6)}-",
            write_line=write_line,
            tracer=tracer,
        )
        self._stores = stores
        self._terminal = self._handlers(settings, stores, behind, health, exposition)
        self._fallback = dict(SecurityHeaders(policies.security_headers, metrics).headers)
        self.adapter = Adapter(
            self._routes,
            TrustedProxies(settings.server.trusted_proxies, settings.server.forwarded),
            HostRule(settings.server.hosts),
            settings.server.max_body,
        )
        self.server = PublicServer(
            settings.server,
            adapter=self.adapter,
            chain=build(policies, self.parts, self._terminal),
            fallback_headers=self._fallback,
            metrics=metrics,
            now=now,
        )
        self.server.ending.append(self.waiters.end)

    def apply(self, policies: PolicySet) -> None:
        """Go by these policies from the next request on; those under way keep what they began with.

        Counts, stored answers and the keys of the store stay. Raises ValueError, and changes
        nothing, for policies that cannot be made.
        """
        chain = build(policies, self.parts, self._terminal)
        self.openapi.apply(policies.validation.openapi, policies.documents)
        self.cache.apply(policies.cache)
        self.long_poll.apply(policies.cache)
        self._stores.apply(policies)
        fallback = SecurityHeaders(policies.security_headers, self._metrics).headers
        self._fallback.clear()
        self._fallback.update(fallback)
        self.policies = policies
        self.server.chain = chain

    async def _ask_upstream(self, path: str) -> bytes | None:
        answer = await self._client.fetch(
            "GET",
            path,
            {"Accept": "application/json"},
            limit=MAX_BYTES,
            seconds=OPENAPI_SECONDS,
        )
        if answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return None
        if answer.status != HTTPStatus.OK:
            raise UpstreamError(f"the upstream answers {path} with {answer.status}")
        return answer.body

    def _handlers(
        self,
        settings: Settings,
        stores: Stores,
        behind: Behind,
        health: Handler,
        exposition: Handler,
    ) -> Handler:
        """Who answers at the end of the chain: the gateway's own resources, else the upstream."""
        webhooks = WebhookApi(
            webhooks=stores.webhooks,
            outbox=stores.outbox,
            jobs=stores.jobs,
            audit=stores.audit,
            rule=behind.rule,
            max_per_owner=settings.webhooks.max_per_owner,
            now=self.now,
            token=secrets.token_bytes,
            wake=behind.wake,
            publish=behind.publish,
        )
        jobs = JobApi(stores.jobs, behind.tracker.unrecorded)
        own: dict[str, Handler] = {
            WEBHOOKS: webhooks.handle,
            HISTORY: jobs.handle,
            EVENTS: jobs.handle,
            TICKET: TicketApi(stores.jobs, self.tickets, self._contract).handle,
            HEALTH: health,
            METRICS: exposition,
        }
        return _Terminal(own, self._proxy)

    def _state_of(self, body: bytes) -> State | None:
        try:
            return self._contract.state_of(decode(body), self._contract.template(STATUS))
        except Unreadable:
            return None


def _tickets(settings: Settings, now: Callable[[], float]) -> Tickets:
    """Signed with the secret of the settings, or one made of the webhooks'.

    Without either it is this process's own, where there is one process alone.
    """
    secret: bytes | None = None
    for given in (settings.jobs.tickets.secret_key, settings.webhooks.secret_key):
        if secret is None and given is not None and given.get_secret_value().strip():
            secret = derive_secret(given.get_secret_value().encode())
    if secret is None and settings.store.kind == "sqlite":
        secret = secrets.token_bytes(32)
    return Tickets(secret, settings.jobs.tickets.lifetime, now)


class _Terminal:
    """The gateway's own resources by the names of their routes; all else is the upstream's."""

    def __init__(self, own: Mapping[str, Handler], proxy: Proxy) -> None:
        self._own = own
        self._proxy = proxy

    async def __call__(self, request: Request) -> Response:
        """The answer of whoever answers for the route."""
        handler: Handler = self._own.get(request.match.name, self._proxy)
        return await handler(request)

    def step(self, request: Request, response: Response) -> Step | None:
        """The proxy's."""
        if request.match.name in self._own:
            return None
        return self._proxy.step(request, response)


async def _find_job(jobs: JobStore, owner: str, request_id: str, since: float) -> str | None:
    """The job that an owner's request created, among those made since (epoch seconds)."""
    query = JobQuery(owner=owner, since=since - _CLOCK_SECONDS, limit=100)
    while True:
        page, cursor = await jobs.list(query)
        for job in page:
            if job.request_id == request_id:
                return job.id
        if cursor is None:
            return None
        query = replace(query, cursor=cursor)
