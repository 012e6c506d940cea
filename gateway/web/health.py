"""What state the gateway and what it needs are in: checked in the background, only read here."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from gateway.core.error import GatewayError
from gateway.core.event import rfc3339
from gateway.core.message import Request, Response
from gateway.telemetry.log import get_logger, mask
from gateway.web.document import json_response


class Status(StrEnum):
    """Of one component; the overall one is the first three alone."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    NOT_CONFIGURED = "not_configured"
    UNKNOWN = "unknown"  # not checked yet


# As `gateway_component_unwell` has it; what is not there or not yet known is no reason for concern.
SEVERITY = {Status.DEGRADED: 1, Status.UNHEALTHY: 2}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a check found; `detail` is shown with the component."""

    status: Status = Status.HEALTHY
    error: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


Check = Callable[[], Awaitable[Reading]]


@dataclass(frozen=True, slots=True)
class Component:
    """Something to check. Without a `critical` one the gateway cannot do its work."""

    name: str
    check: Check
    critical: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """A component as last seen; times are epoch seconds, `since` is its status's last change."""

    status: Status = Status.UNKNOWN
    latency_seconds: float | None = None
    last_success_at: float | None = None
    error: str | None = None
    since: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The condition as JSON shows it."""
        return {
            "status": self.status.value,
            "latency_seconds": self.latency_seconds,
            "last_success_at": _time(self.last_success_at),
            "error": self.error,
            "since": _time(self.since),
            **self.detail,
        }


class Health:
    """Runs every component's check each `interval`; a check that outlasts `timeout` has failed.

    One that took longer than `slow` has found its component degraded, at the least. `unwell` hears
    of each component what `SEVERITY` makes of its status, 0 for the others.
    """

    def __init__(
        self,
        components: Sequence[Component],
        *,
        interval: float,
        timeout: float,
        now: Callable[[], float],
        slow: float = math.inf,
        unwell: Callable[[str, int], None] = lambda _name, _severity: None,
    ) -> None:
        self._components = tuple(components)
        self._conditions = {component.name: Condition() for component in components}
        self._interval = interval
        self._timeout = timeout
        self._slow = slow
        self._unwell = unwell
        self._now = now
        self._log = get_logger("health")

    async def run(self) -> None:
        """Check for ever, the first time at once; cancel to stop."""
        while True:
            await self.check()
            await asyncio.sleep(self._interval)

    async def check(self) -> None:
        """Check every component once, all side by side."""
        await asyncio.gather(*(self._check(component) for component in self._components))

    async def look(self, name: str) -> None:
        """Check one component now, as when it has news of itself."""
        for component in self._components:
            if component.name == name:
                await self._check(component)

    @property
    def status(self) -> Status:
        """`unhealthy` when a critical component is, `degraded` when any is not well."""
        found = {item.name: self._conditions[item.name].status for item in self._components}
        if any(item.critical and found[item.name] is Status.UNHEALTHY for item in self._components):
            return Status.UNHEALTHY
        if {Status.UNHEALTHY, Status.DEGRADED} & set(found.values()):
            return Status.DEGRADED
        return Status.HEALTHY

    def report(self) -> dict[str, Any]:
        """The overall status and every component's condition, as last checked."""
        return {
            "status": self.status.value,
            "components": {
                name: condition.document() for name, condition in self._conditions.items()
            },
        }

    async def answer(self, _request: Request) -> Response:
        """The public `/health`: the status alone, for it names nothing behind the gateway."""
        return status_response(self.status)

    async def _check(self, component: Component) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self._timeout):
                reading = await component.check()
        except TimeoutError:
            reading = Reading(Status.UNHEALTHY, f"no answer within {self._timeout:g} s")
        except GatewayError as error:
            cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
            reading = Reading(Status.UNHEALTHY, f"{error.detail}{cause}")
        except Exception as error:  # noqa: BLE001 - whatever a check raises is what it found
            reading = Reading(Status.UNHEALTHY, f"{type(error).__name__}: {error}")
        took = clock() - began
        if reading.status is Status.HEALTHY and took > self._slow:
            reading = replace(reading, status=Status.DEGRADED, error=f"slow: it took {took:.3g} s")
        self._note(component.name, reading, took)

    def _note(self, name: str, reading: Reading, latency_seconds: float) -> None:
        before, now = self._conditions[name], self._now()
        changed = reading.status is not before.status
        self._conditions[name] = replace(
            before,
            status=reading.status,
            latency_seconds=round(latency_seconds, 6),
            last_success_at=now if reading.status is Status.HEALTHY else before.last_success_at,
            error=None if reading.error is None else mask(reading.error),
            since=now if changed else before.since,
            detail=reading.detail,
        )
        self._unwell(name, SEVERITY.get(reading.status, 0))
        if changed:
            bad = reading.status in (Status.UNHEALTHY, Status.DEGRADED)
            tell = self._log.warning if bad else self._log.info
            tell(
                "component_changed",
                component=name,
                status=reading.status.value,
                previous_status=before.status.value,
                error=reading.error,
            )


def status_response(status: Status) -> Response:
    """The status alone, as clients see it."""
    return health_response(status, {"status": status.value})


def health_response(status: Status, document: Mapping[str, Any]) -> Response:
    """A health document; 503 when unhealthy, so that a prober need not read it."""
    code = 503 if status is Status.UNHEALTHY else 200
    return json_response(code, document, {"Cache-Control": "no-store"})


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)
