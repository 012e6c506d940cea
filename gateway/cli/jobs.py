"""`gateway jobs`: what operators see of jobs, and sending their events again."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from gateway.cli.option import Commands, add_desk
from gateway.cli.table import show_table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.cli.job_desk import Desk

Document = dict[str, Any]
_STATES = ("queued", "running", "completed", "failed", "cancelled")
_COLUMNS = ("job_id", "owner", "status", "stage", "progress", "sequence", "created_at")
_EVENT_COLUMNS = ("sequence", "type", "at", "stage", "progress")
_DELIVERY_COLUMNS = ("id", "destination", "event", "sequence", "status", "attempt_count")
_SHOWN_APART = ("events", "deliveries")


def add(commands: Commands) -> None:
    """The commands and their options."""
    jobs = commands.add_parser("jobs", help="jobs of every owner, their events and deliveries")
    below = jobs.add_subparsers(required=True, metavar="COMMAND")
    _add_list(below)
    _add_show(below)
    _add_replay(below)


def _add_list(commands: Commands) -> None:
    listing = commands.add_parser("list", help="show jobs, newest first")
    listing.add_argument("--owner", help="only this one's")
    listing.add_argument("--state", choices=_STATES, help="only those in it")
    listing.add_argument("--subject", help="only those about it, such as a video's id")
    older, newer = "created longer ago than that, such as 2h", "created since, such as 7d"
    listing.add_argument("--older-than", metavar="AGE", type=_ago, help=older)
    listing.add_argument("--newer-than", metavar="AGE", type=_ago, help=newer)
    listing.add_argument("--limit", type=int, default=100, help="default: %(default)s")
    add_desk(listing, _list)


def _add_show(commands: Commands) -> None:
    show = commands.add_parser("show", help="show one job, its events and their deliveries")
    show.add_argument("job_id", metavar="ID", help="as `list` shows it")
    add_desk(show, _show)


def _add_replay(commands: Commands) -> None:
    replay = commands.add_parser("replay", help="send a job's events to a webhook again")
    replay.add_argument("job_id", metavar="ID", help="as `list` shows it")
    replay.add_argument("--webhook", metavar="WEBHOOK_ID", required=True, help="to whom")
    replay.add_argument("--event", metavar="TYPE", help="this one alone, such as job.completed")
    add_desk(replay, _replay)


def _list(arguments: argparse.Namespace) -> int:
    asked = {
        "owner": arguments.owner,
        "state": arguments.state,
        "subject": arguments.subject,
        "until": arguments.older_than,
        "since": arguments.newer_than,
    }

    async def work(desk: Desk) -> list[Document]:
        found: list[Document] = []
        cursor: str | None = None
        while len(found) < arguments.limit:
            limit = min(100, arguments.limit - len(found))
            page = await desk.list(_query(**asked, cursor=cursor, limit=limit))
            found += page["jobs"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return found

    return _at_desk(arguments, work, lambda found: show_table(_COLUMNS, found))


def _show(arguments: argparse.Namespace) -> int:
    async def work(desk: Desk) -> Document:
        job = await desk.show(arguments.job_id)
        events: list[Document] = []
        after: int | None = 0
        while after is not None:
            page = await desk.events(arguments.job_id, _query(after=after))
            events += page["events"]
            after = page["next_after"]
        told = await desk.deliveries(arguments.job_id)
        return {**job, "events": events, "deliveries": told["deliveries"]}

    def show(found: Document) -> None:
        for name, value in found.items():
            if name not in _SHOWN_APART:
                print(f"{name:27} {'-' if value is None else value}")
        print()
        show_table(_EVENT_COLUMNS, [_event_row(event) for event in found["events"]])
        print()
        show_table(_DELIVERY_COLUMNS, found["deliveries"])

    return _at_desk(arguments, work, show)


def _replay(arguments: argparse.Namespace) -> int:
    event = {} if arguments.event is None else {"event": arguments.event}
    asked = {"webhook_id": arguments.webhook, **event}

    async def work(desk: Desk) -> Document:
        return await desk.replay(arguments.job_id, asked)

    return _at_desk(arguments, work, lambda done: print(f"Sent again: {done['replayed']}."))


def _event_row(event: Document) -> Document:
    data = event["data"]
    return {**event, "at": event["timestamp"], "stage": data["stage"], "progress": data["progress"]}


def _ago(age: str) -> str:
    """The time so long ago, RFC 3339; argparse tells what is wrong with an age."""
    import time

    from gateway.core.event import rfc3339
    from gateway.settings.base import parse_duration

    try:
        return rfc3339(time.time() - parse_duration(age))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _query(**members: Any) -> str:
    return urlencode({name: value for name, value in members.items() if value is not None})


def _at_desk(
    arguments: argparse.Namespace,
    work: Callable[[Desk], Awaitable[Any]],
    show: Callable[[Any], None],
) -> int:
    from gateway.cli.desk import at_desk
    from gateway.cli.job_desk import REACH

    return at_desk(REACH, arguments, work, show)
