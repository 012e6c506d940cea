"""`gateway webhooks`: what operators see of webhooks, and sending again what they missed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from gateway.cli.option import Commands, add_desk
from gateway.cli.table import show_table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.cli.webhook_desk import Desk

Document = dict[str, Any]
_COLUMNS = ("id", "owner", "status", "consecutive_failures", "last_success_at", "url")
_DELIVERY_COLUMNS = ("id", "event", "job_id", "status", "attempt_count", "created_at")
_LINE_COLUMNS = ("at", "action", "webhook_id", "actor")
_SHOWN_DELIVERIES = 20


def add(commands: Commands) -> None:
    """The commands and their options."""
    webhooks = commands.add_parser("webhooks", help="webhooks of every owner, and their audit log")
    below = webhooks.add_subparsers(required=True, metavar="COMMAND")
    _add_list(below)
    _add_show(below)
    _add_replay(below)
    _add_audit(below)


def _add_list(commands: Commands) -> None:
    listing = commands.add_parser("list", help="show webhooks")
    listing.add_argument("--owner", help="only this one's")
    listing.add_argument("--status", choices=["active", "paused", "disabled"], help="only these")
    listing.add_argument("--job", metavar="JOB_ID", help="the callbacks of this job instead")
    add_desk(listing, _list)


def _add_show(commands: Commands) -> None:
    show = commands.add_parser("show", help="show one webhook and its latest deliveries")
    show.add_argument("webhook_id", metavar="ID", help="as `list` shows it")
    show.add_argument("--status", help="only deliveries with it, such as exhausted")
    add_desk(show, _show)


def _add_replay(commands: Commands) -> None:
    replay = commands.add_parser("replay", help="send again what a webhook missed")
    replay.add_argument("webhook_id", metavar="ID", help="as `list` shows it")
    what = replay.add_mutually_exclusive_group(required=True)
    what.add_argument("--since", metavar="TIME", help="such as 2026-01-01T00:00:00Z")
    what.add_argument("--delivery", metavar="DELIVERY_ID", help="this one alone")
    add_desk(replay, _replay)


def _add_audit(commands: Commands) -> None:
    audit = commands.add_parser("audit", help="who changed what, and how deliveries ended")
    audit.add_argument("--webhook", metavar="ID", help="of this webhook alone")
    audit.add_argument("--action", help="such as webhook.deleted, or webhook.*, delivery.*")
    audit.add_argument("--since", metavar="TIME", help="such as 2026-01-01T00:00:00Z")
    audit.add_argument("--until", metavar="TIME", help="up to there; default: now")
    audit.add_argument("--limit", type=int, default=50, help="default: %(default)s; at most 100")
    add_desk(audit, _audit)


def _list(arguments: argparse.Namespace) -> int:
    asked = _query(owner=arguments.owner, status=arguments.status, job_id=arguments.job, limit=100)

    async def work(desk: Desk) -> list[Document]:
        found: list[Document] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await desk.list(asked + _query("&", cursor=cursor))
            found += page["webhooks"]
            cursor = page["next_cursor"]
        return found

    return _at_desk(arguments, work, lambda found: show_table(_COLUMNS, found))


def _show(arguments: argparse.Namespace) -> int:
    asked = _query(status=arguments.status, limit=_SHOWN_DELIVERIES)

    async def work(desk: Desk) -> Document:
        webhook = await desk.show(arguments.webhook_id)
        page = await desk.deliveries(arguments.webhook_id, asked)
        return {**webhook, "deliveries": page["deliveries"]}

    def show(found: Document) -> None:
        for name, value in found.items():
            if name != "deliveries":
                print(f"{name:27} {'-' if value is None else value}")
        print()
        show_table(_DELIVERY_COLUMNS, found["deliveries"])

    return _at_desk(arguments, work, show)


def _replay(arguments: argparse.Namespace) -> int:
    async def work(desk: Desk) -> Document:
        if arguments.delivery is not None:
            await desk.replay(arguments.webhook_id, {"delivery_id": arguments.delivery})
            return {"replayed": 1}
        count, cursor = 0, None
        while True:
            asked = {"since": arguments.since, **({"cursor": cursor} if cursor else {})}
            page = await desk.replay(arguments.webhook_id, asked)
            count, cursor = count + page["replayed"], page["next_cursor"]
            if cursor is None:
                return {"replayed": count}

    return _at_desk(arguments, work, lambda done: print(f"Sent again: {done['replayed']}."))


def _audit(arguments: argparse.Namespace) -> int:
    asked = _query(
        webhook_id=arguments.webhook,
        action=arguments.action,
        since=arguments.since,
        until=arguments.until,
        limit=arguments.limit,
    )

    async def work(desk: Desk) -> list[Document]:
        entries: list[Document] = (await desk.lines(asked))["entries"]
        return entries

    def show(entries: list[Document]) -> None:
        rows = [
            {**entry, "details": " ".join(f"{k}={v}" for k, v in entry["details"].items())}
            for entry in entries
        ]
        show_table((*_LINE_COLUMNS, "details"), rows)

    return _at_desk(arguments, work, show)


def _at_desk(
    arguments: argparse.Namespace,
    work: Callable[[Desk], Awaitable[Any]],
    show: Callable[[Any], None],
) -> int:
    from gateway.cli.desk import at_desk
    from gateway.cli.webhook_desk import REACH

    return at_desk(REACH, arguments, work, show)


def _query(prefix: str = "", **members: Any) -> str:
    given = {name: value for name, value in members.items() if value not in (None, "")}
    return prefix + urlencode(given) if given else ""
