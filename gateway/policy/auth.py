"""API keys: who is asking, and may they."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from multidict import CIMultiDict

from gateway.core.contract import CANCEL, CREATE, DETAILS, LIST, STATUS, STREAM
from gateway.core.credential import (
    ADMIN,
    KEY_PREFIX,
    Key,
    Principal,
    find_key,
    holds_key,
)
from gateway.core.error import Forbidden, GatewayError, InvalidRequest, Unauthorized
from gateway.core.header import connection_options
from gateway.core.message import Handler, Request, Response
from gateway.core.route import Route, RouteTable
from gateway.core.ticket import TicketRefused
from gateway.policy.key_source import KeySource
from gateway.policy.step import Step
from gateway.policy.ticket import Tickets
from gateway.settings.contract import EVENTS, HISTORY, TICKET, UPSTREAM_ADMIN, WEBHOOKS
from gateway.settings.policy import AuthPolicy, PublicRoute
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics, Tally

# What a route needs that the policy file does not list; a route that is not here needs only a key.
DEFAULT_SCOPES: Mapping[str, tuple[str, ...]] = {
    CREATE: ("jobs:write",),
    CANCEL: ("jobs:write",),
    STATUS: ("jobs:read",),
    DETAILS: ("jobs:read",),
    STREAM: ("jobs:read",),
    LIST: ("jobs:read",),
    HISTORY: ("jobs:read",),
    EVENTS: ("jobs:read",),
    TICKET: ("jobs:read",),
    WEBHOOKS: ("webhooks",),
}
TICKET_CREDENTIAL = "ticket"  # what the access line of a request that had one says
_AUTHORIZATION = "Authorization"
_PUBLIC = "public"


class Auth:
    """Knows the caller by a key's hash; the key itself goes no further.

    A bearer token is taken for a key only when it begins like one of ours: any other
    `Authorization` is the upstream's business and passes untouched. `OPTIONS` needs no key. A key
    that `Connection` declares to be for one hop counts as absent, and one in the URL is refused:
    URLs end in logs. A stream ticket, which may stand there, is removed too: it admits to what its
    key may see of one job. Switched off, it still knows and removes keys, but asks for none. Of
    `keys`, those listed now are its own as long as it lives.
    """

    def __init__(
        self,
        policy: AuthPolicy,
        keys: KeySource,
        tickets: Tickets,
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._enabled = policy.enabled
        self._enforced = policy.enabled and policy.mode == "enforce"
        stored = keys.by_hash if "store" in policy.keys.source else {}
        listed = keys.listed if "file" in policy.keys.source else {}
        self._sources: tuple[Mapping[str, Key], ...] = (listed, stored)
        self._by_id = (
            {key.key_id: key for key in listed.values()},
            keys.by_id if "store" in policy.keys.source else {},
        )
        self._tickets = tickets
        self._used = keys.used
        self._header = policy.keys.header
        self._bearer = policy.keys.bearer
        self._fields = frozenset({self._header.lower(), "authorization", "connection"})
        scheme = "Bearer" if self._bearer else "ApiKey"
        self._challenge = {"WWW-Authenticate": f'{scheme} realm="gateway"'}
        self._scopes = {**DEFAULT_SCOPES, **policy.scopes, UPSTREAM_ADMIN: (ADMIN,)}
        self._public = RouteTable([_public(entry) for entry in policy.public])
        self._decisions = metrics.auth_decisions_total
        self._admitted = metrics.tally(self._decisions, "admitted")
        self._now = now
        self._log = get_logger("auth")

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Set `request.principal`. Raises `InvalidRequest`, `Unauthorized` or `Forbidden`."""
        error = self.decide(request)
        if error is None:
            self._admitted.inc()
        else:
            self._refused(request, error)
            if self._enforced:
                raise error
        return await call_next(request)

    def decide(self, request: Request) -> GatewayError | None:
        """Why the request is not admitted, None if it is; nothing is counted.

        Takes every key of ours out of the request, and sets its `principal` and `scope`.
        """
        given = self._take(request.headers)
        tickets = self._tickets.take(request)
        if holds_key(request.target):
            return InvalidRequest(
                f"The URL holds an API key, and URLs are logged on the way. Send it in the "
                f"{self._header} header, and have this one rotated."
            )
        if len(given) > 1:
            return InvalidRequest(
                f"The request carries {len(given)} API keys; send one, in {self._header}"
                f"{' or as a bearer token' if self._bearer else ''}."
            )
        if tickets is not None:
            return self._by_ticket(request, given, tickets)
        key = self._known(request, given[0]) if given else None
        if key is not None:
            request.key, request.principal = key, key.principal
        if not self._enabled:
            return None
        if key is None:
            return None if self._is_public(request) else self._unauthorized(request, given)
        return self._check_scope(request, key.principal)

    def step(self, request: Request, response: Response) -> Step | None:  # noqa: ARG002
        """Admitted again while its key stands where it was found; in shadow it is asked anew."""
        if (self._enabled and not self._enforced) or "credential" in request.fields:
            return None
        key = request.key
        if key is None:
            if request.principal is not None:
                return None  # a ticket, which ends by itself
            return _Again(self._admitted, self._fields)
        source = next((each for each in self._sources if each.get(key.sha256) is key), None)
        return (
            None
            if source is None
            else _AgainByKey(self._admitted, self._fields, key, source, self._used)
        )

    def explain(self, request: Request) -> str:
        """What it would decide and why, in a sentence; the request is left as `decide` does."""
        if not self._enabled:
            return "switched off: nobody is asked for a key"
        error = self.decide(request)
        shadow = "" if self._enforced else " (shadow: let through)"
        if error is not None:
            why = request.fields.get("credential")
            return f"{error.status} {error.slug}{f', key {why}' if why else ''}{shadow}"
        if request.principal is None:
            return "admitted without a key: the request is public"
        scope = f" by the scope {request.scope}" if request.scope else ""
        return f"admitted as {request.owner} with key {request.principal.key_id}{scope}"

    def _take(self, headers: CIMultiDict[str]) -> list[str]:
        """Every credential of ours among the headers, removed from them."""
        one_hop = connection_options(headers)
        given = headers.popall(self._header, None) or []
        if given and not self._enabled:
            # Then the header may be the upstream's own, unless the key is ours.
            theirs = [value for value in given if not self._is_ours(value)]
            headers.extend((self._header, value) for value in theirs)
            given = [value for value in given if self._is_ours(value)]
        if given and self._header.lower() in one_hop:
            given = []
        if self._bearer and _AUTHORIZATION in headers:
            values = headers.popall(_AUTHORIZATION)
            tokens = [token for value in values if (token := _bearer_key(value))]
            headers.extend((_AUTHORIZATION, each) for each in values if not _bearer_key(each))
            if _AUTHORIZATION.lower() not in one_hop and not (
                len(given) == len(tokens) == 1 and given[0] == tokens[0]
            ):
                given += tokens
        return given

    def _by_ticket(
        self, request: Request, given: Sequence[str], tickets: Sequence[str]
    ) -> GatewayError | None:
        try:
            key = self._ticketed(request, self._tickets.key_id(request, tickets, given))
        except TicketRefused as refused:
            request.fields["credential"] = refused.reason
            detail = (
                "The stream ticket does not hold, or not any more. Get another with "
                "POST /api/v1/jobs/{job_id}/ticket."
            )
            error: GatewayError | None = Unauthorized(detail, headers=self._challenge)
        except GatewayError as misused:
            error = misused
        else:
            request.key, request.principal = key, key.principal
            request.fields["credential"] = TICKET_CREDENTIAL
            error = self._check_scope(request, key.principal)
        return error if self._enabled else None

    def _ticketed(self, request: Request, key_id: str) -> Key:
        """The key that a ticket stands for, if it may be used now and from there."""
        for known in self._by_id:
            if key_id in known and self._usable(request, known[key_id]) is not None:
                return known[key_id]
        raise TicketRefused("ticket-orphaned")  # the key was revoked since, or may not come here

    def _is_ours(self, value: str) -> bool:
        return value.startswith(KEY_PREFIX) or find_key(value, *self._sources) is not None

    def _known(self, request: Request, secret: str) -> Key | None:
        """The key, if it may be used now and from there; the access line tells why it may not."""
        key = find_key(secret, *self._sources)
        return None if key is None else self._usable(request, key)

    def _usable(self, request: Request, key: Key) -> Key | None:
        now = self._now()
        if key.is_active(now) and key.allows_client(request.client):
            self._used[key.key_id] = now
            return key
        ended = "revoked" if key.revoked_at is not None else "expired"
        why = ended if not key.is_active(now) else "wrong-network"
        request.fields |= {"credential": why, "refused_key_id": key.key_id}
        return None

    def _is_public(self, request: Request) -> bool:
        if request.method == "OPTIONS":
            return True
        return self._public.match(request.method, request.path).name == _PUBLIC

    def _check_scope(self, request: Request, principal: Principal) -> Forbidden | None:
        wanted = self._scopes.get(request.match.name, ())
        for scope in wanted:
            if scope in principal.scopes:
                request.scope = scope
                return None
        if ADMIN in principal.scopes:
            request.scope = ADMIN
            return None
        if not wanted or self._is_public(request):
            return None
        return Forbidden(
            f"This needs the scope {' or '.join(wanted)}, which the key does not have."
        )

    def _unauthorized(self, request: Request, given: Sequence[str]) -> Unauthorized:
        """The same whatever was wrong, with its challenge (RFC 9110 section 11.6.1)."""
        request.fields.setdefault("credential", "unknown" if given else "missing")
        return Unauthorized(
            f"Send a valid API key in the {self._header} header"
            f"{', or as a bearer token' if self._bearer else ''}.",
            headers=self._challenge,
        )

    def _refused(self, request: Request, error: GatewayError) -> None:
        decision = error.slug if self._enforced else "shadow"
        self._decisions.labels(decision).inc()
        if self._enabled and not self._enforced:
            self._log.info(
                "auth_shadow",
                problem=error.slug,
                route=request.match.name,
                client=request.client,
                **request.ids,
            )


class _Again(Step):
    """Whoever needs no key."""

    __slots__ = ("_admitted", "reads")

    def __init__(self, admitted: Tally, reads: frozenset[str]) -> None:
        self._admitted = admitted
        self.reads = reads

    def enter(self, at: float) -> None:  # noqa: ARG002 - a decision has no time
        self._admitted.inc()


class _AgainByKey(_Again):
    """The same bytes hold the same key; it may have ended since."""

    __slots__ = ("_digest", "_ends", "_key", "_key_id", "_source", "_used")

    def __init__(
        self,
        admitted: Tally,
        reads: frozenset[str],
        key: Key,
        source: Mapping[str, Key],
        used: dict[str, float],
    ) -> None:
        super().__init__(admitted, reads)
        self._key = key
        self._digest = key.sha256
        self._key_id = key.key_id
        self._ends = math.inf if key.expires_at is None else key.expires_at
        self._source = source
        self._used = used

    def is_ready(self, at: float) -> bool:
        # A key that is revoked, or changed in any way, is another object.
        return at < self._ends and self._source.get(self._digest) is self._key

    def enter(self, at: float) -> None:
        self._used[self._key_id] = at
        self._admitted.inc()


def keys_of(policy: AuthPolicy) -> tuple[Key, ...]:
    """The keys of the policy file.

    Raises ValueError for an expiry that is no RFC 3339 time, or a network that is none.
    """
    return tuple(
        Key(
            key_id=entry.id,
            sha256=entry.hash.removeprefix("sha256:"),
            owner=entry.owner,
            scopes=frozenset(entry.scopes),
            expires_at=None if entry.expires is None else _epoch(entry.expires),
            name=entry.name or "",
            tier=entry.tier,
            networks=entry.networks,
            lineage=entry.lineage or "",
        )
        for entry in policy.entries
    )


def _public(entry: PublicRoute) -> Route:
    """Who may GET without a key may HEAD as well: it tells less."""
    head = ("HEAD",) if "GET" in entry.methods else ()
    return Route(_PUBLIC, entry.path, frozenset((*entry.methods, *head)))


def _bearer_key(value: str) -> str | None:
    """The key in an `Authorization` value (RFC 6750 section 2.1); None when it is none of ours."""
    scheme, _, token = value.partition(" ")
    token = token.strip(" ")
    return token if scheme.lower() == "bearer" and token.startswith(KEY_PREFIX) else None


def _epoch(text: str) -> float:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} names no zone; write it like 2027-01-31T00:00:00Z")
    return moment.timestamp()
