"""What makes one of many replicas: signs of life, notices from the others, and their leftovers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import orjson

from gateway.core.error import StoreUnavailable
from gateway.job.orphan import Orphans
from gateway.job.tracker import Tracker
from gateway.settings.model import Settings
from gateway.store.redis.client import RedisClient
from gateway.store.redis.clock import SYNC_SECONDS, RedisClock
from gateway.store.redis.layout import Layout
from gateway.store.redis.replica import RedisReplicas
from gateway.store.redis.subscription import Subscription
from gateway.telemetry.log import get_logger

_AT_ONCE = 64  # changes of others that are taken up together


class Replica:
    """This process among those that share its Redis; `follow` before `run`."""

    def __init__(self, settings: Settings, client: RedisClient) -> None:
        watch, upstream = settings.jobs.watch, settings.upstream
        self._watch = watch
        self._shared = upstream.shared
        self._instance = upstream.instance or upstream.url
        self._id = secrets.token_hex(8)
        self._clock = RedisClock(client)
        self._replicas = RedisReplicas(client)
        self._log = get_logger("replica")
        self._changed: dict[str, int] = {}
        self._has_changed = asyncio.Event()
        self._has_gap = False
        self._client = client
        self.layout = Layout(client)
        self.now = self._clock.now
        self.count = 1

    async def open(self) -> None:
        """Wait for the server, take its time and the layout of its data.

        Raises SettingsError for data of a newer layout.
        """
        said = False
        while True:
            try:
                await self._clock.sync()
                await self.layout.open()
            except StoreUnavailable as error:
                if not said:
                    self._log.warning("redis_awaited", error=error.detail)
                said = True
                await asyncio.sleep(self._pause)
            else:
                return

    async def join(self) -> None:
        """Live from now on. Raises `StoreUnavailable`."""
        await self._beat()

    def follow(
        self,
        tracker: Tracker,
        *,
        wake: Callable[[], None],
        reconcile: Callable[[], Awaitable[None]],
    ) -> None:
        """Whom to tell of the others' changes, and what to do once the server has lost its data."""
        self._tracker = tracker
        self._wake = wake
        self._reconcile = reconcile
        self._notices = Subscription(self._client, self.layout.channel, self._hear, self._missed)
        self._orphans = Orphans(
            jobs=tracker.store,
            replicas=self._replicas,
            tracker=tracker,
            instance=self._instance,
            lost_after_seconds=self._watch.lost_after,
            lease_seconds=self._watch.lease,
            now=self.now,
        )

    async def run(self) -> None:
        """Do all of it until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._notices.run())
            group.create_task(self._take_up())
            group.create_task(self._every(self._pause, self._live))
            group.create_task(self._every(SYNC_SECONDS, self._clock.sync))

    async def leave(self) -> None:
        """Tell the others, so that they share its work at once."""
        try:
            await self._replicas.leave(self._id)
        except StoreUnavailable as error:
            self._log.info("left_untold", error=error.detail)  # its sign of life runs out by itself

    @property
    def _pause(self) -> float:
        """Seconds between signs of life: two may fail before a lease ends."""
        return self._watch.lease / 3

    async def _beat(self) -> None:
        now = self.now()
        until = now + self._watch.lease
        self.count = await self._replicas.beat(self._id, self._instance, now, until)

    async def _live(self) -> None:
        if not await self.layout.is_there():
            await self._heal()
        await self._beat()
        if not self._shared and (count := await self._orphans.end()):
            self._log.warning("orphans_ended", count=count)

    async def _heal(self) -> None:
        """The server was flushed, or came back without its data: what is known here goes there."""
        await self.layout.open()
        await self._beat()
        # One that is gone and was forgotten now would never be missed.
        await self._replicas.expect(self._tracker.upstreams, self.now() + self._watch.lease)
        count = await self._tracker.restore()
        self._log.error("redis_lost_its_data", jobs_restored=count)
        await self._reconcile()

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except StoreUnavailable as error:
                self._log.info("replica_turn_failed", error=error.detail)

    def _hear(self, notice: bytes) -> None:
        """A job's id and its new version: a hint, for the store is what counts."""
        job_id, version = orjson.loads(notice)
        self._wake()
        self._changed[job_id] = max(version, self._changed.get(job_id, 0))
        self._has_changed.set()

    def _missed(self) -> None:
        """Nothing is told again to those who were away: look at all of it."""
        self._wake()
        self._has_gap = True
        self._has_changed.set()

    async def _take_up(self) -> None:
        """What was noted, many jobs at once but each of them once."""
        while True:
            await self._has_changed.wait()
            self._has_changed.clear()
            if self._has_gap:
                await self._make_good()
            while self._changed:
                batch = [self._changed.popitem() for _ in range(min(_AT_ONCE, len(self._changed)))]
                results = await asyncio.gather(
                    *(self._tracker.refresh(*each) for each in batch), return_exceptions=True
                )
                for result in results:
                    # While the server is away: once it is back, the gap is made good.
                    if isinstance(result, BaseException) and not isinstance(
                        result, StoreUnavailable
                    ):
                        raise result

    async def _make_good(self) -> None:
        try:
            await self._tracker.reload()
        except StoreUnavailable as error:
            self._log.info("reload_failed", error=error.detail)  # the next subscription asks again
        else:
            self._has_gap = False
