"""The store of rate windows, and the way on while it is away."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.core.error import StoreUnavailable
from gateway.core.window import Hit, WindowState
from gateway.store.window import WindowStore
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

RETRY_SECONDS = 1.0


class SharedWindows:
    """Asks the store while it answers; while it does not, one request a second tries it again.

    So an outage costs no request its time but the few that look whether it is over, and it is
    logged once. `local` counts in this process for limits that want it; `at_hand` are the store's
    windows where they are in this process too. It outlives the policy
    files: a reload forgets no count.
    """

    def __init__(
        self,
        store: WindowStore,
        local: WindowStore,
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self.local = local
        self.at_hand = store.at_hand
        self._store = store
        self._now = now
        self._is_away = False
        self._asked_at = 0.0
        self._errors = metrics.store_errors_total.labels("windows")
        self._away = metrics.windows_away
        self._log = get_logger("rate_limit")

    async def hit(self, hits: Sequence[Hit], at: float) -> Sequence[WindowState] | None:
        """What the store decides; None while it is away."""
        if self._is_away:
            # A clock set back must not keep the store away for longer.
            if 0 <= self._now() - self._asked_at < RETRY_SECONDS:
                return None
            self._asked_at = self._now()
        try:
            states = await self._store.hit(hits, at)
        except StoreUnavailable as error:
            self._errors.inc()
            self._asked_at = self._now()
            if not self._is_away:
                self._is_away = True
                self._away.set(1)
                self._log.warning("windows_away", error=error.detail)
            return None
        if self._is_away:
            self._is_away = False
            self._away.set(0)
            self._log.info("windows_back")
        return states
