"""python -m examples.analysis_api --port 8000 --speed 10: the stand-in API as a process."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from aiohttp import web

from examples.analysis_api.app import build_app
from examples.analysis_api.fault import Mode, parse_fault
from examples.analysis_api.state import STATE, Config


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="analysis_api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one (default)")
    parser.add_argument("--speed", type=float, default=1.0, help="job seconds a second")
    parser.add_argument("--create-seconds", type=float, default=Config.create_seconds)
    parser.add_argument(
        "--fault",
        type=parse_fault,
        action="append",
        default=[],
        metavar="MODE[:ROUTE,...][:COUNT]",
        help=f"may be repeated; on all routes and for good if not said. Modes: {', '.join(Mode)}",
    )
    parser.add_argument("--port-file", type=Path, help="written with the port once it is bound")
    arguments = parser.parse_args()
    if not arguments.speed > 0:
        parser.error("--speed must be more than 0")
    return arguments


async def _serve(arguments: argparse.Namespace) -> None:
    app = build_app(Config(speed=arguments.speed, create_seconds=arguments.create_seconds))
    for mode, routes, count in arguments.fault:
        app[STATE].faults.put(mode, routes, count)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, arguments.host, arguments.port)
        await site.start()
        # With port 0 only the bound socket knows the number.
        port = runner.addresses[0][1]
        if arguments.port_file is not None:
            partial = arguments.port_file.with_name(f"{arguments.port_file.name}.partial")
            partial.write_text(f"{port}\n")
            partial.replace(arguments.port_file)  # a reader never sees half of it
        print(f"listening on http://{arguments.host}:{port}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve(_arguments()))
