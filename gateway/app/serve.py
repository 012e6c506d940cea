"""The process: from files and environment to a gateway that serves until a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import uvloop

from gateway.settings.load import load, load_policies, policies_directory
from gateway.settings.model import Settings
from gateway.settings.telemetry import Log
from gateway.telemetry import log
from gateway.telemetry.access import access_writer
from gateway.telemetry.sink import BackgroundStream, SharedStream, Stream
from gateway.worker.until import until

if TYPE_CHECKING:
    from gateway.app.gateway import Gateway

Serving = Callable[[dict[str, int]], None]


def run(config: Path, port_file: Path | None) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP has the policy files read at once. The exit code.

    With several workers this process is their parent, and SIGHUP renews them one by one.
    `port_file` is written, as JSON by listener, once the ports are open. Raises SettingsError with
    every problem, or OSError for a port that is taken.
    """
    settings = load(config, os.environ)

    def serving(ports: dict[str, int]) -> None:
        if port_file is not None:
            _write_whole(port_file, orjson.dumps(ports))

    if settings.workers == 1:
        return _run_alone(settings, config, serving)
    return _run_workers(settings, config, serving)


def _run_alone(settings: Settings, config: Path, serving: Serving) -> int:
    # Imported here, for the parent of several workers would carry it all for nothing.
    from gateway.app.gateway import Gateway  # noqa: PLC0415
    from gateway.app.live import PolicyFiles  # noqa: PLC0415

    files = PolicyFiles.of(policies_directory(config, settings))
    policies = load_policies(files.directory)
    with log_lines(settings, sys.stdout) as (logs, stream):
        gateway = Gateway(settings, policies, access_writer(logs, stream), files, stream)
        uvloop.run(serve(gateway, asyncio.Event(), serving))
    return 0


def _run_workers(settings: Settings, config: Path, serving: Serving) -> int:
    from gateway.worker.serve import supervise  # noqa: PLC0415 - as above

    def reread() -> Settings:
        found = load(config, os.environ)
        load_policies(policies_directory(config, found))
        return found

    reread()  # what no worker could start with is said once, and before any does
    with log_lines(settings, SharedStream(sys.stdout.fileno())):
        return supervise(settings, config, reread=reread, serving=serving)


@contextmanager
def log_lines(settings: Settings, to: Stream) -> Iterator[tuple[Log, BackgroundStream]]:
    """Log lines as the settings want them, to a stream that a thread writes."""
    level: dict[str, str] = {"level": "debug"} if settings.debug else {}
    logs = settings.log.model_copy(update=level)
    stream = BackgroundStream(to)
    log.configure(logs, stream)
    try:
        yield logs, stream
    finally:
        stream.close()


async def serve(gateway: Gateway, stop: asyncio.Event, serving: Serving) -> None:
    """Serve until `stop`, SIGTERM or SIGINT; `serving` hears of the ports by listener."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if gateway.live is not None:
        loop.add_signal_handler(signal.SIGHUP, gateway.live.wake)
    # A store that is awaited must not keep a process from ending.
    ports = await until(stop, gateway.start())
    if ports is None:
        return
    try:
        serving(ports)
        await stop.wait()
    finally:
        await gateway.stop()


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
