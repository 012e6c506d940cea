"""How many jobs may be active at once: more are refused before the upstream hears of them."""

from __future__ import annotations

import math
from collections.abc import Callable

from gateway.core.contract import CREATE
from gateway.core.error import ServiceUnavailable
from gateway.core.message import Handler, Request, Response

DEFAULT_WAIT_SECONDS = 30.0


class Admission:
    """Lets a creation through while fewer than `max_concurrent` jobs are active or being created.

    `active` counts the jobs that have not ended; `typical_seconds` is how long one takes, None
    while none has ended: with n places one becomes free about every n-th part of it.
    """

    def __init__(
        self,
        max_concurrent: int,
        active: Callable[[], int],
        typical_seconds: Callable[[], float | None],
    ) -> None:
        self._max = max_concurrent
        self._active = active
        self._typical_seconds = typical_seconds
        self._arriving = 0

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Pass a creation on, or raise `ServiceUnavailable` with `Retry-After`."""
        if request.match.name != CREATE:
            return await call_next(request)
        if self._active() + self._arriving >= self._max:
            raise self._full()
        self._arriving += 1
        try:
            return await call_next(request)
        finally:
            self._arriving -= 1

    def _full(self) -> ServiceUnavailable:
        typical = self._typical_seconds()
        wait = DEFAULT_WAIT_SECONDS if typical is None else typical / self._max
        seconds = max(1, math.ceil(wait))
        return ServiceUnavailable(
            f"{self._max} jobs are active, which is the most at once; try again in {seconds} s.",
            headers={"Retry-After": str(seconds)},
        )
