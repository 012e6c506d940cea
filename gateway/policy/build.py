"""From the policy files to a chain: the order is here, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.core.credential import index_keys
from gateway.core.message import Handler
from gateway.policy.access_log import AccessLog
from gateway.policy.auth import Auth, keys_of
from gateway.policy.base import Policy
from gateway.policy.chain import Chain
from gateway.policy.cors import Cors
from gateway.policy.cors_adapter import Find
from gateway.policy.idempotency import Idempotency, IdempotencyParts
from gateway.policy.key_source import KeySource
from gateway.policy.openapi_source import OpenApiSource
from gateway.policy.quota import STAGES
from gateway.policy.rate_limit import RateLimit
from gateway.policy.request_id import RequestId
from gateway.policy.security_headers import SecurityHeaders
from gateway.policy.shared_window import SharedWindows
from gateway.policy.ticket import Tickets
from gateway.policy.trace import Trace
from gateway.policy.validation import Validation
from gateway.settings.policy import PolicySet
from gateway.telemetry.access import WriteLine, through_structlog
from gateway.telemetry.metric import Metrics
from gateway.telemetry.trace import Tracer


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What policies are made with, and what outlives a change of the policy files.

    `boundary` turns errors into answers; `admission` bounds the active jobs; `long_poll` lets polls
    wait; `cache` holds stored responses; `keys` are those of the store, `tickets` stand for keys
    where none can be sent; `find` names the route of a method and path; `openapi` is what the
    upstream says of itself; `request_id_prefix` is random for each process; `write_line` takes the
    access lines.
    """

    windows: SharedWindows
    keys: KeySource
    tickets: Tickets
    boundary: Policy
    idempotency: IdempotencyParts
    admission: Policy
    long_poll: Policy
    cache: Policy
    find: Find
    openapi: OpenApiSource
    metrics: Metrics
    now: Callable[[], float]
    request_id_prefix: str
    write_line: WriteLine = through_structlog
    tracer: Tracer | None = None


def build(policies: PolicySet, parts: Parts, terminal: Handler) -> Chain:
    """The chain of these policies before `terminal`. Raises ValueError as `in_order` does."""
    return Chain(in_order(policies, parts), terminal)


def in_order(policies: PolicySet, parts: Parts) -> tuple[Policy, ...]:
    """Every policy, outermost first; errors end inside what every answer passes.

    Raises ValueError for a key whose expiry is no time or whose network is none, or a limit whose
    name is not ASCII.
    """
    metrics, now = parts.metrics, parts.now
    limits = {
        stage: RateLimit(policies.rate_limits, stage, parts.windows, metrics, now)
        for stage in STAGES
    }
    # Last of what may fail: the keys in force are those of the files in force.
    parts.keys.listed = index_keys(keys_of(policies.auth))
    return (
        RequestId(parts.request_id_prefix),
        *(() if parts.tracer is None else (Trace(parts.tracer, now),)),
        AccessLog(metrics, now, parts.write_line),
        SecurityHeaders(policies.security_headers, metrics),
        Cors(policies.cors, parts.find, metrics),
        parts.boundary,
        limits["address"],
        Auth(policies.auth, parts.keys, parts.tickets, metrics, now),
        limits["key"],
        Validation(policies.validation, policies.documents, parts.openapi, metrics),
        Idempotency(policies.idempotency, parts.idempotency),
        parts.admission,
        parts.long_poll,
        parts.cache,
    )
