"""The process: from files and environment to a gateway that serves until a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import orjson
import uvloop

from gateway.app.gateway import Gateway
from gateway.app.live import PolicyFiles
from gateway.settings.load import load, load_policies, policies_directory
from gateway.telemetry import log
from gateway.telemetry.access import access_writer
from gateway.telemetry.sink import BackgroundStream


def run(config: Path, port_file: Path | None) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP has the policy files read at once.

    `port_file` is written, as JSON by listener, once the ports are open. Raises SettingsError with
    every problem, or OSError for a port that is taken.
    """
    settings = load(config, os.environ)
    files = PolicyFiles.of(policies_directory(config, settings))
    policies = load_policies(files.directory)
    level: dict[str, str] = {"level": "debug"} if settings.debug else {}
    logs = settings.log.model_copy(update=level)
    stream = BackgroundStream(sys.stdout)
    log.configure(logs, stream)
    try:
        gateway = Gateway(settings, policies, access_writer(logs, stream), files, stream)
        uvloop.run(_serve(gateway, port_file))
    finally:
        stream.close()


async def _serve(gateway: Gateway, port_file: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    if gateway.live is not None:
        loop.add_signal_handler(signal.SIGHUP, gateway.live.wake)
    ports = await gateway.start()
    try:
        if port_file is not None:
            _write_whole(port_file, orjson.dumps(ports))
        await stop.wait()
    finally:
        await gateway.stop()


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
