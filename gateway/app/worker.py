"""One worker's process: a gateway that listens where its parent says, and ends when that does."""

from __future__ import annotations

import asyncio
import os
import shutil
from functools import partial
from pathlib import Path

import structlog
import uvloop

from gateway.app.gateway import Gateway
from gateway.app.live import PolicyFiles
from gateway.app.seat import Seat
from gateway.app.serve import log_lines, serve
from gateway.settings.load import load, load_policies, policies_directory
from gateway.settings.share import share
from gateway.telemetry.access import access_writer
from gateway.telemetry.log import get_logger
from gateway.telemetry.sink import SharedStream
from gateway.worker.exposition import OPENMETRICS
from gateway.worker.lifeline import Lifeline
from gateway.worker.place import Place

_END_SECONDS = 10.0  # beyond the drain


def work(config: Path, place: Place) -> None:
    """Serve until SIGTERM, or until the parent is gone. Raises as `serve.run` does."""
    lifeline = Lifeline(place.lifeline)
    structlog.contextvars.bind_contextvars(worker=place.slot)
    read = load(config, os.environ)
    settings = share(read.model_copy(update={"workers": place.workers}))
    files = PolicyFiles.of(policies_directory(config, settings))
    policies = load_policies(files.directory)
    with log_lines(settings, SharedStream(1)) as (logs, stream):
        gateway = Gateway(
            settings, policies, access_writer(logs, stream), files, stream, Seat(place)
        )
        uvloop.run(_work(gateway, lifeline, place))


async def _work(gateway: Gateway, lifeline: Lifeline, place: Place) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def orphaned() -> None:
        get_logger("worker").error("parent_gone")
        shutil.rmtree(place.control.parent, ignore_errors=True)
        gateway.front.server.drain(at_once=True)
        stop.set()

    grace = gateway.settings.server.drain_timeout + _END_SECONDS
    lifeline.watch(partial(loop.call_soon_threadsafe, orphaned), grace)
    await serve(gateway, stop, lambda _: lifeline.tell_ready())
    lifeline.leave(gateway.metrics.render(OPENMETRICS)[1])
