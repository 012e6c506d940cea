"""`gateway convex`: what Convex refused, and sending it again once it is mended."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from gateway.cli.option import Commands, add_desk
from gateway.cli.table import show_table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.cli.convex_desk import Desk

Document = dict[str, Any]
_COLUMNS = ("id", "operation", "job_id", "attempts", "ended_at", "detail")


def add(commands: Commands) -> None:
    """The commands and their options."""
    convex = commands.add_parser("convex", help="what Convex refused, and sending it again")
    below = convex.add_subparsers(required=True, metavar="COMMAND")
    add_desk(below.add_parser("dead", help="show the dead letters, newest first"), _dead)
    replay = below.add_parser("replay", help="send dead letters again")
    what = replay.add_mutually_exclusive_group(required=True)
    what.add_argument("ids", nargs="*", default=[], metavar="ID", help="as `dead` shows it")
    what.add_argument("--all", action="store_true", help="every one, oldest first")
    add_desk(replay, _replay)


def _dead(arguments: argparse.Namespace) -> int:
    async def work(desk: Desk) -> list[Document]:
        found: list[Document] = []
        asked: dict[str, str] = {"limit": "100"}
        while True:
            page = await desk.dead(urlencode(asked))
            found += page["dead"]
            if page["next_cursor"] is None:
                return found
            asked["cursor"] = page["next_cursor"]

    return _at_desk(arguments, work, lambda found: show_table(_COLUMNS, found))


def _replay(arguments: argparse.Namespace) -> int:
    async def work(desk: Desk) -> Document:
        if arguments.all:
            return await desk.replay({"all": True})
        for each in arguments.ids:
            await desk.replay({"id": each})
        return {"replayed": len(arguments.ids), "no_longer_kept": 0}

    def show(done: Document) -> None:
        lost = done["no_longer_kept"]
        print(f"Sent again: {done['replayed']}." + (f" No longer kept: {lost}." if lost else ""))

    return _at_desk(arguments, work, show)


def _at_desk(
    arguments: argparse.Namespace,
    work: Callable[[Desk], Awaitable[Any]],
    show: Callable[[Any], None],
) -> int:
    from gateway.cli.convex_desk import REACH
    from gateway.cli.desk import at_desk

    return at_desk(REACH, arguments, work, show)
