"""The command: plays the story once, or plays it and stays for you to try things."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path

import aiohttp
import orjson

from gateway.demo.child import ChildError
from gateway.demo.screen import Screen
from gateway.demo.stage import Stage
from gateway.demo.story import DemoError, Summary, tell


def run(*, once: bool, json: bool) -> int:
    """Play the demo; 0 only if everything happened that the gateway promises."""
    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder:
        try:
            summary = asyncio.run(_play(Path(folder), once=once))
        except KeyboardInterrupt:
            return 130
        except (ChildError, DemoError, aiohttp.ClientError, TimeoutError) as error:
            Screen().line(f"The demo failed: {type(error).__name__}: {error}")
            return 1
    if json:
        print(orjson.dumps(summary.document()).decode())
    return 0 if summary.good else 1


async def _play(folder: Path, *, once: bool) -> Summary:
    screen = Screen()
    screen.heading("Starting: upstream stand-in, Convex, receiver, gateway")
    async with Stage(folder, screen.delivery) as stage:
        screen.line(f"  gateway {stage.public}, admin {stage.admin}")
        summary = await tell(stage, screen)
        verdict = (
            "Everything arrived, in order and verified" if summary.good else "NOT as it should"
        )
        screen.heading(f"{verdict}: {summary.seconds:.1f} s.")
        if not once:
            screen.line(
                "\nIt all keeps running; try it, and stop it with Ctrl-C:\n"
                f"  curl -H 'X-API-Key: {stage.key}' {stage.public}/api/v1/jobs\n"
                f"  curl {stage.admin}/health\n"
                f"  curl {stage.admin}/metrics"
            )
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
    return summary
