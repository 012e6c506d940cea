"""Sliding-window rate limits: by address before the key is known, by key and route after."""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping, Sequence

from multidict import istr

from gateway.core.error import GatewayError, QuotaExceeded, StoreUnavailable
from gateway.core.message import Handler, Request, Response
from gateway.core.window import Hit, Window, WindowState, all_admit, count, microseconds
from gateway.policy.quota import Plan, Planner, Rule, Stage, state_member
from gateway.policy.shared_window import RETRY_SECONDS, SharedWindows
from gateway.policy.step import NOTHING, Answer, Step
from gateway.policy.subject import by_address
from gateway.settings.policy import RateLimitPolicy
from gateway.store.window import WindowsAtHand
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

Fields = MutableMapping[str, str]
_POLICY, _STATE = istr("RateLimit-Policy"), istr("RateLimit")
_LEGACY_REMAINING = "X-RateLimit-Remaining"
_QUOTA = "quota"  # of the access line: what is left, by limit


class RateLimit:
    """One stage of the limits; those of a request are decided in one atomic step.

    While the shared store is away each limit does as its `on_store_error` says. Probes of the
    gateway's own health are never limited.
    """

    def __init__(
        self,
        policy: RateLimitPolicy,
        stage: Stage,
        windows: SharedWindows,
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._planner = Planner(policy, stage, metrics)
        self.stage = stage
        self._legacy = policy.legacy_headers
        self._windows = windows
        self._now = now
        self._log = get_logger("rate_limit")

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Count the request, or raise `QuotaExceeded`; every other answer tells what is left.

        Raises `StoreUnavailable` for a limit that is not to be passed while the store is away.
        """
        plan = self._planner.plan(request.match.name, request.principal)
        if plan is None:
            return await call_next(request)
        at = self._now()
        hits = hits_of(plan, request)
        states = await self._windows.hit(hits, at)
        if states is None:
            states = await self._decide_alone(plan, hits, at)
        refused = self._count(request, plan, states)
        if refused:
            raise self._exceeded(refused, at)
        if not plan.told:
            return await call_next(request)
        quota = request.fields[_QUOTA]
        known = len(quota)
        try:
            response = await call_next(request)
        except QuotaExceeded:
            raise  # a 429 shows the limits that refused, so that none returns after Retry-After
        except GatewayError as error:
            self.describe(error.headers, plan, states, at, nested=len(quota) > known)
            raise
        self.describe(response.headers, plan, states, at, nested=len(quota) > known)
        return response

    def step(self, request: Request, response: Response) -> Step | None:  # noqa: ARG002
        """Counted against the same windows, where these are in this process."""
        plan = self._planner.plan(request.match.name, request.principal)
        if plan is None:
            return NOTHING
        windows = self._windows.at_hand
        if windows is None or self._legacy:  # the older fields are not worth a way of their own
            return None
        again = _AgainOne if len(plan.rules) == len(plan.told) == 1 else _Again
        return again(self, plan, request, windows)

    def explain(self, request: Request) -> list[str]:
        """What this stage would decide by, a line a limit; nothing is counted."""
        plan = self._planner.plan(request.match.name, request.principal)
        if plan is None:
            return []
        return [
            f"{rule.quota.policy}: {rule.quota.limit} in {rule.quota.window_seconds:g} s for {key}"
            + (f", this request counts {cost}" if cost != 1 else "")
            + (", shadow: never refuses" if rule.quota.shadow else "")
            for rule, (_, key, cost, _) in zip(plan.rules, hits_of(plan, request), strict=True)
        ]

    async def _decide_alone(
        self, plan: Plan, hits: Sequence[Hit], at: float
    ) -> Sequence[WindowState]:
        """The limits while their store is away: each as it is told to."""
        denying = [
            rule.quota.policy
            for rule in plan.rules
            if rule.on_store_error == "deny" and not rule.quota.shadow
        ]
        if denying:
            raise StoreUnavailable(
                f"The limit {denying[0]} cannot be counted now; try again shortly.",
                headers={"Retry-After": str(math.ceil(RETRY_SECONDS))},
            )
        counted = [i for i, rule in enumerate(plan.rules) if rule.on_store_error == "local"]
        local = await self._windows.local.hit([hits[i] for i in counted], at)
        known = dict(zip(counted, local, strict=True))
        return [
            known.get(i) or WindowState(True, rule.quota.limit, 0.0, 0.0)
            for i, rule in enumerate(plan.rules)
        ]

    def _count(
        self, request: Request, plan: Plan, states: Sequence[WindowState]
    ) -> list[tuple[Rule, WindowState]]:
        """Count every decision; the rules that refuse the request."""
        refused: list[tuple[Rule, WindowState]] = []
        quota = request.fields.setdefault(_QUOTA, {})
        for rule, state in zip(plan.rules, states, strict=True):
            admitted, remaining, _, _ = state
            shadow = rule.quota.shadow
            if not shadow:
                quota[rule.quota.policy] = remaining
            if admitted:
                rule.admitted.inc()
                continue
            rule.refused.inc()
            if shadow:
                self._log_shadow(rule, request)
            else:
                refused.append((rule, state))
        return refused

    def _log_shadow(self, rule: Rule, request: Request) -> None:
        self._log.info(
            "rate_limit_shadow",
            policy=rule.quota.policy,
            route=request.match.name,
            client=request.client,
            key_id=request.principal.key_id if request.principal else None,
            **request.ids,
        )

    def _exceeded(self, refused: Sequence[tuple[Rule, WindowState]], at: float) -> QuotaExceeded:
        wait = max(1, *(math.ceil(max(s.retry_after_seconds, s.reset_seconds)) for _, s in refused))
        said = ", ".join(
            f"{rule.quota.policy} ({rule.quota.limit} in {rule.quota.window_seconds:g} s)"
            for rule, _ in refused
        )
        error = QuotaExceeded(
            f"Too many requests for {said}; try again in {wait} s.",
            extra={"violated-policies": [rule.quota.policy for rule, _ in refused]},
            headers={
                "Retry-After": str(wait),
                _POLICY: ", ".join(rule.policy_item for rule, _ in refused),
                _STATE: ", ".join(state_member(rule, state) for rule, state in refused),
            },
        )
        if self._legacy:
            _legacy(error.headers, refused, at)
        return error

    def describe(
        self,
        headers: Fields,
        plan: Plan,
        states: Sequence[WindowState],
        at: float,
        *,
        nested: bool,
    ) -> None:
        """Add this stage's limits to those of the stage `nested` in it; replace the upstream's."""
        policy, state = plan.policy_field, plan.state_field(states)
        if nested:
            policy, state = f"{policy}, {headers[_POLICY]}", f"{state}, {headers[_STATE]}"
        headers[_POLICY] = policy
        headers[_STATE] = state
        if not self._legacy:
            return
        pairs = [(plan.rules[i], states[i]) for i in plan.told]
        tightest = min(each.remaining for _, each in pairs)
        if not nested or tightest < int(headers[_LEGACY_REMAINING]):
            _legacy(headers, pairs, at)


class _Again(Step):
    """The same limits and subjects; ready while all of them, those in shadow too, admit."""

    __slots__ = (
        "_admitted",
        "_at",
        "_found",
        "_hits",
        "_now",
        "_plan",
        "_policies",
        "_policy",
        "_quota",
        "_states",
        "_windows",
        "reads",
        "varying",
    )

    def __init__(
        self, policy: RateLimit, plan: Plan, request: Request, windows: WindowsAtHand
    ) -> None:
        self._policy = policy
        self._plan = plan
        self._hits = windows.counted(hits_of(plan, request))
        self._windows = windows
        self._quota: dict[str, int] = request.fields[_QUOTA]
        self._admitted = [rule.admitted.inc for rule in plan.rules]
        # By the names that the access line tells of; a shadow's is none.
        self._policies = ["" if rule.quota.shadow else rule.quota.policy for rule in plan.rules]
        self._found: Sequence[Window] = ()
        self._now = 0
        self._at = 0.0
        self._states: Sequence[WindowState] = ()
        self.varying = {_STATE: self._told} if plan.told else {}
        self.reads = frozenset().union(*(rule.fields for rule in plan.rules))

    def is_ready(self, at: float) -> bool:
        now = self._now = microseconds(at)
        windows = self._found = self._windows.windows(self._hits)
        return all_admit(windows, self._hits, now)

    def enter(self, at: float) -> None:
        self._at = at
        states = self._states = count(self._found, self._hits, self._now)
        quota = self._quota
        for admitted, policy, state in zip(self._admitted, self._policies, states, strict=True):
            admitted()
            if policy:
                quota[policy] = state.remaining

    async def leave(self, answer: Answer) -> Answer:
        if self._plan.told:
            nested = _POLICY in answer.headers
            self._policy.describe(answer.headers, self._plan, self._states, self._at, nested=nested)
        return answer

    def _told(self) -> str:
        return self._plan.state_field(self._states)


class _AgainOne(_Again):
    """Most requests meet one limit of a stage: the same, without a list."""

    __slots__ = (
        "_cost",
        "_limit",
        "_name",
        "_remaining",
        "_reset_seconds",
        "_state_item",
        "_window",
    )

    def __init__(
        self, policy: RateLimit, plan: Plan, request: Request, windows: WindowsAtHand
    ) -> None:
        super().__init__(policy, plan, request, windows)
        (hit,) = self._hits
        (rule,) = plan.rules
        self._cost, self._limit, self._name = hit.cost, hit.quota.limit, hit.quota.policy
        self._state_item = rule.state_item
        self._window: Window
        self._remaining, self._reset_seconds = 0, 0.0

    def is_ready(self, at: float) -> bool:
        now = self._now = microseconds(at)
        (window,) = self._windows.windows(self._hits)
        self._window = window
        window.advance(now)
        return window.total + self._cost <= self._limit

    def enter(self, at: float) -> None:
        self._at = at
        window = self._window
        window.add(self._cost)
        remaining = self._remaining = self._limit - window.total
        self._reset_seconds = window.frees_in(1, self._now)
        self._admitted[0]()
        self._quota[self._name] = remaining

    async def leave(self, answer: Answer) -> Answer:
        self._states = (WindowState(True, self._remaining, self._reset_seconds, 0.0),)
        return await super().leave(answer)

    def _told(self) -> str:
        return f"{self._state_item}{self._remaining};t={math.ceil(self._reset_seconds)}"


def hits_of(plan: Plan, request: Request) -> list[Hit]:
    """What a request counts against."""
    principal = request.principal
    tag = by_address(request) if principal is None else principal.owner
    return [
        Hit(rule.quota, rule.subject(request), rule.cost, tag if rule.tagged else "")
        for rule in plan.rules
    ]


def _legacy(headers: Fields, pairs: Sequence[tuple[Rule, WindowState]], at: float) -> None:
    """The fields of older clients: of the limit that has least left."""
    rule, state = min(pairs, key=lambda pair: pair[1].remaining)
    headers["X-RateLimit-Limit"] = str(rule.quota.limit)
    headers[_LEGACY_REMAINING] = str(state.remaining)
    headers["X-RateLimit-Reset"] = str(math.ceil(at + state.reset_seconds))
