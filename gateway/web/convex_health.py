"""Whether Convex has what it was told: the sink's last fault, and what was refused of late."""

from __future__ import annotations

from collections.abc import Callable

from gateway.delivery.dead_letter import DeadLetters
from gateway.web.health import Check, Reading, Status

RECENT_SECONDS = 3600.0  # older ones are for `gateway convex dead`, not for an alarm


def check_convex(
    last_error: Callable[[], str | None], letters: DeadLetters, now: Callable[[], float]
) -> Check:
    """Degraded while the deployment fails, and for an hour by what it refused."""

    async def check() -> Reading:
        recent = await letters.recent(now() - RECENT_SECONDS)
        detail = {"dead_letters_of_the_last_hour": len(recent)}
        if (error := last_error()) is not None:
            return Reading(Status.DEGRADED, error, detail)
        if not recent:
            return Reading(detail=detail)
        last = max(recent, key=lambda each: each.finished_at or 0.0)
        said = last.attempts[-1].detail if last.attempts else "no attempt is on record"
        word = "message was" if len(recent) == 1 else "messages were"
        error = f"{len(recent)} {word} refused (`gateway convex dead`), the last: {said}"
        return Reading(Status.DEGRADED, error, detail)

    return check
