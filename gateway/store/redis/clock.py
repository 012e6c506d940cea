"""One time for all replicas: the server's.

Leases compare what one replica wrote with what another reads, so their clocks must agree. A wall
clock that jumps, on any of the hosts, moves nothing here: between looks at the server's the time
goes by the process's own monotonic clock.
"""

from __future__ import annotations

import time

from gateway.store.redis.client import RedisClient

SYNC_SECONDS = 10.0
_MAX_ROUND_TRIP_SECONDS = 0.5  # a slower answer says too little of when it was


class RedisClock:
    """`now` gives epoch seconds; until the first `sync` they are this host's."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._offset_seconds = time.time() - time.monotonic()

    def now(self) -> float:
        """Epoch seconds, never waiting."""
        return time.monotonic() + self._offset_seconds

    async def sync(self) -> None:
        """Ask the server. Raises `StoreUnavailable`."""
        asked_at = time.monotonic()
        seconds, microseconds = (await self._client.everywhere("TIME"))[0]
        answered_at = time.monotonic()
        if answered_at - asked_at <= _MAX_ROUND_TRIP_SECONDS:
            server = int(seconds) + int(microseconds) / 1e6
            self._offset_seconds = server - (asked_at + answered_at) / 2
