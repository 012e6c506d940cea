"""Spaces attempts to one destination by its `max_per_second`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

_FORGET_ABOVE = 1024


class Pacer:
    """Hands out turns at least 1/rate seconds apart; `clock` is monotone seconds.

    Who waits is bounded by the sink's `per_destination`, so that with `MIN_PER_SECOND` no turn is
    further away than that many seconds.
    """

    def __init__(
        self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._free_at: dict[str, float] = {}

    async def turn(self, destination: str, per_second: float | None) -> None:
        """Return when it is this caller's turn; at once without a rate."""
        if per_second is None:
            return
        now = self._clock()
        if len(self._free_at) > _FORGET_ABOVE:
            self._free_at = {name: at for name, at in self._free_at.items() if at > now}
        at = max(now, self._free_at.get(destination, now))
        self._free_at[destination] = at + 1.0 / per_second
        if at > now:
            await self._sleep(at - now)
