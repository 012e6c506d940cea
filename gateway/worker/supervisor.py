"""The parent of several workers: starts them, replaces those that die, and speaks for them all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.settings.model import Settings
from gateway.telemetry.log import get_logger
from gateway.telemetry.worker_metric import WorkerMetrics
from gateway.web.admin import Admin
from gateway.web.problem import problem
from gateway.web.server import listen
from gateway.worker.assignment import Assignment
from gateway.worker.desk import Desk
from gateway.worker.exposition import Exposition
from gateway.worker.listening import Sockets
from gateway.worker.member import Member
from gateway.worker.overview import PULSE_SECONDS, Overview, needed
from gateway.worker.place import PARENT_SOCKET, Place
from gateway.worker.renewal import Renewal
from gateway.worker.slot import Slot

_STOP_MARGIN_SECONDS = 10.0  # beyond the drain, for deliveries and stores


class StartFailed(Exception):
    """The first worker ended before it served; it has said why. `exit_code` is its own."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"the first worker ended with {exit_code}")
        self.exit_code = exit_code


class Supervisor:
    """`start` and `stop` once each; `config` is the settings file that the workers read.

    `reread` gives what its settings are now, or raises SettingsError.
    """

    def __init__(
        self,
        settings: Settings,
        config: Path,
        *,
        sockets: Sockets,
        directory: Path,
        reread: Callable[[], Settings],
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._config = config
        self._sockets = sockets
        self._directory = directory
        self._metrics = WorkerMetrics()
        self._stop_seconds = settings.server.drain_timeout + _STOP_MARGIN_SECONDS
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._members: set[Member] = set()
        self._number = 0
        self._starting = True
        self._is_draining = False
        self._changed = asyncio.Event()
        self._drained: set[Member] = set()
        self.given_up = asyncio.Event()
        self._log = get_logger("workers")
        self._slots = [
            Slot(
                number,
                spawn=self._spawn,
                changed=self._changed.set,
                stop_seconds=self._stop_seconds,
                metrics=self._metrics,
            )
            for number in range(settings.workers)
        ]
        self._assignment = Assignment(settings.workers)
        self._renewal = Renewal(self._slots, settings, reread)
        self.overview = Overview(self.serving, settings.workers, now)
        self.exposition = Exposition(lambda: self.overview.answering, self._metrics)

    def serving(self) -> list[Member]:
        """The members that serve, by slot; none that is on its way out."""
        held = (slot.member for slot in self._slots)
        return [member for member in held if member is not None and member.serves]

    async def start(self) -> dict[str, int]:
        """Start every worker, and return the ports by listener once all serve.

        Raises StartFailed, or OSError for a port that is taken.
        """
        try:
            return await self._start()
        except BaseException:  # whatever stops it passes on, but leaves no worker behind
            await self.stop()
            raise

    async def stop(self) -> bool:
        """Drain all and end them; False when one had to be killed."""
        self.drain()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        ended = await asyncio.gather(*(each.stop(self._stop_seconds) for each in self._members))
        await self._stack.aclose()
        if not all(ended):
            self._log.warning("workers_killed", count=ended.count(False))
        return all(ended)

    def drain(self) -> None:
        """Send all clients away; readiness turns at once, and nobody who ends is replaced."""
        self._is_draining = True
        for slot in self._slots:
            slot.is_closed = True
        self._changed.set()

    def renew(self) -> None:
        """Replace every worker, one at a time, each once its successor serves."""
        if not self._is_draining and not self._starting and self._renewal.ask():
            self._spawn_task(self._renewal.run())

    def not_ready(self) -> str | None:
        """Why traffic should stay away, or None."""
        if self._is_draining:
            return "draining"
        if self._starting:
            return "starting"
        enough = self.overview.ready_count >= needed(self._settings.workers)
        return None if enough else "too few workers"

    async def _start(self) -> dict[str, int]:
        ports = {"public": self._sockets.port, "admin": await self._listen()}
        first, *others = self._slots
        # The first alone: what no worker can start with is said once.
        codes = [await first.open()]
        if codes == [None]:
            codes = await asyncio.gather(*(each.open() for each in others))
        for code in codes:
            if code is not None:
                raise StartFailed(code)
        self._starting = False
        for work in (self._pulse(), *map(self._keep, self._slots)):
            self._spawn_task(work)
        if self._settings.metrics.enabled:
            self._spawn_task(self.exposition.run())
        self._log.info("listening", workers=len(self._slots), **ports)
        return ports

    async def _listen(self) -> int:
        """To operators, and to the workers by a socket of their own; the admin port in use."""
        settings = self._settings
        admin = Admin(
            self.overview,
            self.exposition.render if settings.metrics.enabled else None,
            not_ready=self.not_ready,
            drain=self.drain,
            problem=problem,
            about={"title": settings.api_title, "version": settings.api_version},
            resources=Desk(lambda: self.overview.answering).routes(),
        )
        runner = web.AppRunner(admin.application(), access_log=None)
        self._stack.push_async_callback(runner.cleanup)
        port = await listen(runner, settings.server.admin)
        await web.UnixSite(runner, self._directory / PARENT_SOCKET).start()
        return port

    async def _spawn(self, slot: int) -> Member:
        """A process for a slot, followed until its end."""
        self._number += 1
        place = Place(
            slot=slot,
            workers=self._settings.workers,
            lifeline=-1,
            control=self._directory / f"{slot}-{self._number}.sock",
            public=tuple(tuple(one.fileno() for one in each) for each in self._sockets.public),
            socket=None if self._sockets.unix is None else self._sockets.unix.fileno(),
        )
        inherited = tuple(self._sockets.descriptors)
        member = await Member.start(place, self._number, self._config, inherited)
        self._members.add(member)
        self._spawn_task(self._follow(member))
        self._log.info("worker_started", worker=slot, pid=member.pid)
        return member

    async def _follow(self, member: Member) -> None:
        code = await member.ended()
        self._members.discard(member)
        await self.exposition.ended(member)
        self._log.info("worker_ended", worker=member.slot, pid=member.pid, exit_code=code)

    async def _keep(self, slot: Slot) -> None:
        if not await slot.keep():
            self._log.error("workers_given_up", worker=slot.number)
            self.given_up.set()

    async def _pulse(self) -> None:
        """Ask and tell, each second and whenever another has a slot."""
        while True:
            await self.overview.look()
            if self._is_draining:
                await asyncio.gather(*map(self._drain, self.serving()))
            else:
                await self._assignment.share_out(self.overview.answering)
            self._metrics.workers_ready.set(self.overview.ready_count)
            with suppress(TimeoutError):
                async with asyncio.timeout(PULSE_SECONDS):
                    await self._changed.wait()
            self._changed.clear()

    async def _drain(self, member: Member) -> None:
        if member not in self._drained and await member.tell("POST", "/drain"):
            self._drained.add(member)

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("task_failed", exc_info=error)
            self.given_up.set()
