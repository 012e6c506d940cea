"""When a worker that died is started again, and when that is given up."""

from __future__ import annotations

from dataclasses import dataclass

STEADY_SECONDS = 60.0  # one that served so long died of something else than its start
MAX_DEATHS = 10
_FIRST_SECONDS = 0.5
_MAX_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often a worker has died in a row."""

    deaths: int = 0

    def after(self, served_seconds: float) -> Restarts:
        """One more death, of one that had served so long."""
        return Restarts(1 if served_seconds >= STEADY_SECONDS else self.deaths + 1)

    @property
    def delay_seconds(self) -> float | None:
        """Seconds until the next start: none after the first death, then longer each time.

        None once it has died too often: what every start ends in is not mended by one more.
        """
        if self.deaths > MAX_DEATHS:
            return None
        if self.deaths <= 1:
            return 0.0
        return float(min(_MAX_SECONDS, _FIRST_SECONDS * 2 ** (self.deaths - 2)))
