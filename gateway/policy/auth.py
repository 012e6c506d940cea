"""API keys: who is asking, and may they."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from gateway.core.contract import CANCEL, CREATE, DETAILS, LIST, STATUS, STREAM
from gateway.core.credential import KEY_PREFIX, Key, Principal, find_key, hash_key, index_keys
from gateway.core.error import Forbidden, GatewayError, InvalidRequest, Unauthorized
from gateway.core.header import connection_options
from gateway.core.message import Handler, Request, Response
from gateway.core.route import Route, RouteTable
from gateway.settings.contract import EVENTS, HISTORY, UPSTREAM_ADMIN, WEBHOOKS
from gateway.settings.policy import AuthPolicy, PublicRoute
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

ADMIN = "admin"
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
    WEBHOOKS: ("webhooks",),
}
_AUTHORIZATION = "Authorization"
_PUBLIC = "public"


class Auth:
    """Knows the caller by a key's hash; the key itself goes no further.

    A bearer token is taken for a key only when it begins like one of ours: any other
    `Authorization` is the upstream's business and passes untouched. `OPTIONS` needs no key. A key
    that `Connection` declares to be for one hop counts as absent, and a key in the query is not
    read: URLs end in logs. Switched off, it still knows and removes keys, but asks for none.
    """

    def __init__(
        self,
        policy: AuthPolicy,
        keys: Sequence[Key],
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._enabled = policy.enabled
        self._enforced = policy.enabled and policy.mode == "enforce"
        self._keys = index_keys(keys)
        self._header = policy.keys.header
        self._bearer = policy.keys.bearer
        self._scopes = {**DEFAULT_SCOPES, **policy.scopes, UPSTREAM_ADMIN: (ADMIN,)}
        self._public = RouteTable([_public(entry) for entry in policy.public])
        self._decisions = metrics.auth_decisions_total
        self._admitted = self._decisions.labels("admitted")
        self._now = now
        self._log = get_logger("auth")

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Set `request.principal`. Raises `InvalidRequest`, `Unauthorized` or `Forbidden`."""
        try:
            self._decide(request, self._take(request))
        except GatewayError as error:
            self._refused(request, error)
            if self._enforced:
                raise
        else:
            self._admitted.inc()
        return await call_next(request)

    def _take(self, request: Request) -> list[str]:
        """Every credential of ours in the request, removed from it."""
        headers = request.headers
        one_hop = connection_options(headers)
        given = headers.popall(self._header, [])
        if not self._enabled:  # then the header may be the upstream's own, unless the key is ours
            theirs = [value for value in given if not self._is_ours(value)]
            headers.extend((self._header, value) for value in theirs)
            given = [value for value in given if self._is_ours(value)]
        if self._header.lower() in one_hop:
            given = []
        if self._bearer and _AUTHORIZATION in headers:
            values = headers.popall(_AUTHORIZATION)
            tokens = [token for value in values if (token := _bearer_key(value))]
            headers.extend((_AUTHORIZATION, each) for each in values if not _bearer_key(each))
            if _AUTHORIZATION.lower() not in one_hop:
                if len(given) == len(tokens) == 1 and given[0] == tokens[0]:
                    return given
                given += tokens
        return given

    def _is_ours(self, value: str) -> bool:
        return value.startswith(KEY_PREFIX) or hash_key(value) in self._keys

    def _decide(self, request: Request, given: Sequence[str]) -> None:
        if len(given) > 1:
            raise InvalidRequest(
                f"The request carries {len(given)} API keys; send one, in {self._header}"
                f"{' or as a bearer token' if self._bearer else ''}."
            )
        key = find_key(self._keys, given[0], self._now()) if given else None
        if key is not None:
            request.principal = key.principal
        if not self._enabled or self._is_public(request):
            return
        if key is None:
            request.fields["credential"] = "rejected" if given else "missing"
            raise Unauthorized(
                f"Send a valid API key in the {self._header} header"
                f"{', or as a bearer token' if self._bearer else ''}.",
                headers={"WWW-Authenticate": self._challenge()},
            )
        self._check_scope(request, key.principal)

    def _is_public(self, request: Request) -> bool:
        if request.method == "OPTIONS":
            return True
        return self._public.match(request.method, request.path).name == _PUBLIC

    def _check_scope(self, request: Request, principal: Principal) -> None:
        wanted = self._scopes.get(request.match.name, ())
        if wanted and not any(principal.allows(scope) for scope in wanted):
            raise Forbidden(
                f"This needs the scope {' or '.join(wanted)}, which the key does not have."
            )

    def _challenge(self) -> str:
        """`WWW-Authenticate` (RFC 9110 section 11.6.1); the same whatever was wrong."""
        scheme = "Bearer" if self._bearer else "ApiKey"
        return f'{scheme} realm="gateway"'

    def _refused(self, request: Request, error: GatewayError) -> None:
        decision = error.slug if self._enforced else "shadow"
        self._decisions.labels(decision).inc()
        if self._enabled and not self._enforced:
            self._log.info(
                "auth_shadow",
                problem=error.slug,
                route=request.match.name,
                client=request.client,
                request_id=request.request_id,
            )


def keys_of(policy: AuthPolicy) -> tuple[Key, ...]:
    """The keys of the policy file. Raises ValueError for an expiry that is no RFC 3339 time."""
    return tuple(
        Key(
            key_id=entry.id,
            sha256=entry.hash.removeprefix("sha256:"),
            owner=entry.owner,
            scopes=frozenset(entry.scopes),
            expires_at=None if entry.expires is None else _epoch(entry.expires),
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
