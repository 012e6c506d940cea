"""The parent's process: from good settings to workers that serve until a signal."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from gateway.settings.model import Settings
from gateway.worker.directory import control_directory
from gateway.worker.listening import bind
from gateway.worker.supervisor import StartFailed, Supervisor
from gateway.worker.until import until

_FAILED = 1

Serving = Callable[[dict[str, int]], None]


def supervise(
    settings: Settings, config: Path, *, reread: Callable[[], Settings], serving: Serving
) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP replaces the workers one by one. The exit code.

    `serving` hears of the ports by listener. Raises SettingsError when there is no folder for the
    workers' sockets, OSError for a port that is taken.
    """
    sockets = bind(settings.server, settings.workers)
    try:
        with control_directory() as directory:

            async def serve() -> int:
                supervisor = Supervisor(
                    settings,
                    config,
                    sockets=sockets,
                    directory=directory,
                    reread=reread,
                    now=time.time,
                )
                return await _serve(supervisor, serving)

            return uvloop.run(serve())
    finally:
        sockets.close()


async def _serve(supervisor: Supervisor, serving: Serving) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, supervisor.renew)
    try:
        ports = await until(stop, supervisor.start())
    except StartFailed as error:
        return max(error.exit_code, _FAILED)
    if ports is None:
        return 0
    serving(ports)
    try:
        await until(stop, supervisor.given_up.wait())
    finally:
        ended_well = await supervisor.stop()
    return 0 if ended_well and not supervisor.given_up.is_set() else _FAILED
